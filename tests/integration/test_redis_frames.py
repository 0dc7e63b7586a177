"""Do the frames of an error of Redis keep a password, for tools that print their variables?"""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio.connection
import redis.connection

from ledger_db.answers.secret import Password
from ledger_db.connections.login import Logins
from ledger_db.connections.redis import RedisOptions, create_async_redis, create_redis, probe_with
from ledger_db.credentials.model import Credentials
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.static import StaticSource
from tests.support.frames import PASSWORD, shown_in


class Odd:
    """
    A server that reads a login, and then does something else than to accept it.

    Attributes:
        credentials: Lead to it.

        logins: The same, for clients.
    """

    def __init__(self, answer: bytes | None, *, resets: bool = False) -> None:
        """
        Listen.

        Args:
            answer: What to answer; None is to say nothing, and an empty one to hang up.

            resets: Whether to break connections off before anything was read of them.
        """
        self._answer = answer
        self._resets = resets
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.credentials = Credentials(
            "user", Password(PASSWORD), "v1", "127.0.0.1", self._listener.getsockname()[1], "0"
        )
        provider = CredentialProvider(StaticSource(self.credentials))
        provider.load()
        self.logins = Logins(provider, patience_seconds=0.1)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        for end in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve(self) -> None:
        try:
            while True:
                client, _ = self._listener.accept()
                if self._resets:
                    time.sleep(0.01)  # else it breaks while it is made, and no login is sent
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.close()
                    continue
                self._sockets.append(client)
                client.recv(4096)
                if self._answer is not None:
                    client.sendall(self._answer)
                    client.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


@pytest.fixture(params=[b"", b"-WRONGPASS no such user\r\n", b"-ERR odd\r\n", b"rubbish\r\n", None], ids=str)
def odd(request: pytest.FixtureRequest) -> Iterator[Odd]:
    """A server that hangs up, refuses, says something odd, or nothing."""
    server = Odd(request.param)
    yield server
    server.close()


@pytest.fixture
def resetting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Odd]:
    """A server that has broken a connection off by the time that the login is sent on it."""
    connect: Any = redis.connection.Connection._connect
    connect_on_loop: Any = redis.asyncio.connection.Connection._connect

    def connect_slowly(self: redis.connection.Connection) -> Any:
        made = connect(self)
        time.sleep(0.05)
        return made

    async def connect_slowly_on_loop(self: redis.asyncio.connection.Connection) -> None:
        await connect_on_loop(self)
        time.sleep(0.05)  # noqa: ASYNC251 - the loop must not see it before the login is sent

    monkeypatch.setattr(redis.connection.Connection, "_connect", connect_slowly)
    monkeypatch.setattr(redis.asyncio.connection.Connection, "_connect", connect_slowly_on_loop)
    server = Odd(None, resets=True)
    yield server
    server.close()


OPTIONS = RedisOptions(connect_timeout_seconds=0.5, timeout_seconds=0.5, retries=1)


def test_no_frame_of_a_login_shows_the_password(odd: Odd) -> None:
    """However a login fails, its error can be reported with all that debuggers show."""
    with pytest.raises(Exception) as failed:  # noqa: PT011 - whatever it is
        create_redis(odd.logins, OPTIONS).get("k")

    assert shown_in(failed.value) == []


def test_no_frame_of_a_trial_shows_the_password(odd: Odd) -> None:
    """The same where a new version is tried before it is adopted."""
    with pytest.raises(Exception) as failed:  # noqa: PT011 - whatever it is
        probe_with(odd.logins, odd.credentials, OPTIONS)

    assert shown_in(failed.value) == []


@pytest.mark.parametrize(
    "use", [lambda client: client.get("k"), lambda client: client.pubsub().subscribe("c")]
)
async def test_no_frame_on_a_loop_shows_the_password(odd: Odd, use: Callable[..., Awaitable[object]]) -> None:
    """The same on an event loop, for a command and for a subscriber."""
    client = create_async_redis(odd.logins, OPTIONS)
    with pytest.raises(Exception) as failed:  # noqa: PT011 - whatever it is
        await use(client)

    assert shown_in(failed.value) == []


def test_a_login_that_cannot_be_sent_shows_nothing(resetting: Odd) -> None:
    """The bytes of a login that was on its way when the connection broke are in no frame either."""
    with pytest.raises(redis.ConnectionError) as failed:
        create_redis(resetting.logins, OPTIONS).get("k")
    with pytest.raises(redis.ConnectionError) as tried:
        probe_with(resetting.logins, resetting.credentials, OPTIONS)

    assert shown_in(failed.value) == []
    assert shown_in(tried.value) == []


async def test_a_login_that_cannot_be_sent_on_a_loop_shows_nothing(resetting: Odd) -> None:
    """The same on an event loop."""
    with pytest.raises(redis.ConnectionError) as failed:
        await create_async_redis(resetting.logins, OPTIONS).get("k")

    assert shown_in(failed.value) == []


async def test_a_login_that_is_cancelled_shows_nothing() -> None:
    """Neither a time limit of the caller's nor a cancelled task leaves the driver's frames."""
    odd = Odd(None)
    client = create_async_redis(odd.logins, RedisOptions())
    try:
        with pytest.raises(TimeoutError) as late:
            async with asyncio.timeout(0.2):
                await client.get("k")
        task = asyncio.ensure_future(client.get("k"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
    finally:
        odd.close()

    assert shown_in(late.value) == []
    assert shown_in(cancelled.value) == []
