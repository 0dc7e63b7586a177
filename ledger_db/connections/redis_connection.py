"""
What does a connection to Redis do beyond redis-py's: log in, be renewed, be asked, be given up?

    lent        stale, at an address that its name has left, on a replica?  closed, and logged in anew; the
                only place where this is asked, so that nothing is ever closed under a subscriber, a pipeline,
                a transaction or a MONITOR
    connects    `Logins` decide with what; no frame keeps the password
    sends       what was asked is remembered
    reads       for as long as what was asked waits by itself, and the time-out on top
    is lost     sent again if nothing was sent yet, or if doing it twice is as good as doing it once
"""

import asyncio
import math
import sys
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.connection
from redis.credentials import CredentialProvider as RedisCredentialProvider

from ledger_db.connections.hangup import may_have_hung_up
from ledger_db.connections.line import address_of
from ledger_db.connections.login import Logins
from ledger_db.connections.redis_commands import NOTHING, Asked, Command, asked_by
from ledger_db.credentials.model import Credentials
from ledger_db.redaction import forget_frames

# Of who waits for as long as it takes, only the network can end the wait.
_SILENT = (
    "the network was silent for too long, and the connection is lost; see LEDGER_DB_SILENCE_TIMEOUT_SECONDS"
)


class _Given(RedisCredentialProvider):
    """Hands out one snapshot, in both of redis-py's worlds."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def get_credentials(self) -> tuple[str, str]:
        return self._credentials.username, self._credentials.password

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()  # the default would warn at each connect that this one is synchronous


def address(connection: Any, credentials: Credentials) -> None:
    """Let *connection* lead to where *credentials* say, and log in with them."""
    connection.host = credentials.host
    connection.port = credentials.port
    connection.credential_provider = _Given(credentials)


class _Asking:
    """
    Mixed into redis-py's connection classes, of threads and of loops: remembers what was asked of it.

    A connection that is lost while it logs in has been asked nothing yet, whatever it was wanted for.
    """

    def __init__(self, *, logins: Logins, repeat_writes: bool = False, **arguments: Any) -> None:
        self._logins = logins
        self._repeat_writes = repeat_writes
        self._stamp, self._share = "", logins.provider.draw_share()
        self._address: str | None = None
        self.asked = NOTHING
        super().__init__(**arguments)
        retry: Any = self.retry  # type: ignore[attr-defined] # redis-py's copy of what it was given
        retry.connection = weakref.ref(self)

    def connect(self) -> Any:
        """Connect if that is not done yet; the login is tried again as the socket is."""
        connection: Any = self
        return connection.retry.call_with_retry(
            # Of redis-py, only 8 and later ones would try the login again.
            lambda: connection.connect_check_health(retry_socket_connect=False),
            lambda error: connection.disconnect(),
        )

    def send_command(self, *arguments: Any, **named: Any) -> Any:
        self._ask([arguments])
        return super().send_command(*arguments, **named)  # type: ignore[misc] # of the class mixed into

    def pack_commands(self, commands: Iterable[Any]) -> Any:
        together = list(commands)
        self._ask(together)
        return super().pack_commands(together)  # type: ignore[misc] # as above

    @property
    def _is_stale(self) -> bool:
        is_left = self._address in self._logins.addresses.left
        return is_left or self._logins.provider.is_stale(self._stamp, self._share)

    def _note_login(self, credentials: Credentials, line: Any) -> None:
        self._stamp, self._address = credentials.stamp, address_of(line.fileno())
        self._logins.addresses.note_login(self._address)

    def _note_refusal(self) -> None:
        # It was the primary, or the endpoint follows a failover late.  The next who borrows it has it
        # connected anew; where that still leads to a replica, an error a write and a login each is the price.
        self._stamp = ""

    def _ask(self, commands: list[Command]) -> None:
        asked = asked_by(commands)
        self.asked = Asked(may_repeat=True, wait_seconds=asked.wait_seconds) if self._repeat_writes else asked

    def _seconds_to_read(self, usual: float | None, named: dict[str, Any]) -> float | None:
        """Return how long an answer may take.  Only redis-py's subscribers wait for what nobody asked for."""
        waits = math.inf if named.get("push_request") else self.asked.wait_seconds
        return None if usual is None or waits == math.inf else usual + waits


class _LogsIn(_Asking):
    """
    Where a connection connects, `Logins` decide with what.

    The decision sits below redis-py's retry, which therefore never repeats a wrong password: a refusal ends
    as `LoginRefused`, which is none of the errors that it retries.
    """

    def lend(self) -> None:
        """Make this one fit for somebody who begins to use it."""
        connection: Any = self
        self.asked = NOTHING
        if self._is_stale:
            connection.disconnect()
            connection.connect()

    def connect_check_health(self, *flags: bool, **named: bool) -> None:
        if self._sock:  # type: ignore[attr-defined] # redis-py's own test for "connected"
            return
        asked, self.asked = self.asked, NOTHING

        def connect(credentials: Credentials) -> None:
            address(self, credentials)
            handled_already = sys.exception()
            try:
                super(_LogsIn, self).connect_check_health(*flags, **named)  # type: ignore[misc] # as above
            except BaseException as error:
                self.asked = NOTHING
                forget_frames(error, but=handled_already)
                raise
            self._note_login(credentials, self._sock)  # type: ignore[attr-defined] # as above

        self._logins.log_in(connect)
        self.asked = asked

    def read_response(self, *arguments: Any, **named: Any) -> Any:
        connection: Any = self
        line, usual = connection._sock, connection.socket_timeout  # noqa: SLF001 - there is no other way to it
        seconds = self._seconds_to_read(usual, named)
        is_unusual = seconds != usual and line is not None
        if is_unusual:
            line.settimeout(seconds)
        try:
            return super().read_response(*arguments, **named)  # type: ignore[misc] # as above
        except redis.ReadOnlyError:
            self._note_refusal()
            raise
        except redis.TimeoutError as error:
            if seconds is not None:
                raise
            raise redis.ConnectionError(_SILENT) from error
        finally:
            if is_unusual:
                with suppress(OSError):  # closed meanwhile
                    line.settimeout(usual)


class _LogsInAsync(_Asking):
    """Same as `_LogsIn`, on an event loop."""

    async def lend(self) -> None:
        """Make this one fit for somebody who begins to use it."""
        connection: Any = self
        self.asked = NOTHING
        if self._is_stale or await self._has_hung_up():
            await connection.disconnect()
            await connection.connect()

    async def _has_hung_up(self) -> bool:
        # redis-py looks at what the loop has read, and what has come since the last turn is not read yet.
        line = self._line()
        for _ in range(2):
            if not may_have_hung_up(line):
                return False
            # One turn to see that there is something, one to read it: an end of the line is there after that.
            await asyncio.sleep(0)
        return may_have_hung_up(line)

    def _line(self) -> Any:
        connection: Any = self
        return connection._writer.get_extra_info("socket")  # noqa: SLF001 - there is no other way to it

    async def connect_check_health(self, *flags: bool, **named: bool) -> None:
        if self.is_connected:  # type: ignore[attr-defined] # redis-py's own test
            return
        asked, self.asked = self.asked, NOTHING

        async def connect(credentials: Credentials) -> None:
            address(self, credentials)
            handled_already = sys.exception()
            try:
                await super(_LogsInAsync, self).connect_check_health(*flags, **named)  # type: ignore[misc]
            except BaseException as error:
                self.asked = NOTHING
                forget_frames(error, but=handled_already)
                raise
            self._note_login(credentials, self._line())

        await self._logins.async_log_in(connect)
        self.asked = asked

    async def read_response(self, *arguments: Any, **named: Any) -> Any:
        connection: Any = self
        usual = connection.socket_timeout
        seconds = connection.socket_timeout = self._seconds_to_read(usual, named)
        reader = connection._reader  # noqa: SLF001 - as above
        try:
            answer = await super().read_response(*arguments, **named)  # type: ignore[misc] # as above
        except redis.ReadOnlyError:
            self._note_refusal()
            raise
        except redis.TimeoutError as error:
            if seconds is not None:
                raise
            raise redis.ConnectionError(_SILENT) from error
        finally:
            connection.socket_timeout = usual
        # redis-py takes the end of a silent line for that of a subscriber's own wait, and waits on, for ever.
        if answer is None and named.get("push_request") and reader and reader.exception():
            raise redis.ConnectionError(_SILENT) from reader.exception()
        return answer


class Connection(_LogsIn, redis.connection.Connection):
    """Of threads, in clear."""


class TlsConnection(_LogsIn, redis.connection.SSLConnection):
    """Of threads, in TLS."""


class AsyncConnection(_LogsInAsync, redis.asyncio.connection.Connection):
    """Of an event loop, in clear."""


class AsyncTlsConnection(_LogsInAsync, redis.asyncio.connection.SSLConnection):
    """Of an event loop, in TLS."""
