"""
Puts it all together: the only object that an application needs.

It decides nothing about credentials or connections itself.  It opens and closes the two servers together, and
hands out what belongs to them.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, Unpack

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ledger_db.background import async_in_thread
from ledger_db.connections.engine_arguments import Given
from ledger_db.connections.probe import MAX_AGE_SECONDS, NOT_OPEN, Prober, ProbeReport
from ledger_db.credentials.model import CredentialSource
from ledger_db.errors import ConfigurationError, ManagerClosed
from ledger_db.event_log import EventLog
from ledger_db.forking import at_fork
from ledger_db.manager.assembly import database_server, redis_server, signal_listener
from ledger_db.manager.forgotten import Forgotten, close_all, named
from ledger_db.manager.opening import Opening
from ledger_db.settings import Settings
from ledger_db.transactions import sessions
from ledger_db.transactions.kinds import SessionKind, SessionKindArguments
from ledger_db.transactions.sessions import SessionArguments
from ledger_db.transactions.tally import TransactionTally

if TYPE_CHECKING:
    # Imported where they are needed: a script without Redis or an event loop does not pay for them.
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from ledger_db.connections.redis_server import RedisServer
    from ledger_db.connections.server import Database, Server
    from ledger_db.manager.health import HealthReport
    from ledger_db.signals.listener import SignalListener

log: EventLog = EventLog(__name__)

T = TypeVar("T")

_NOT_COPIED = (
    "a ConnectionManager is neither pickled nor copied: it has connections and threads of this process; send "
    "its settings to a spawned process, and open a ConnectionManager there; in this one share the manager"
)


class ConnectionManager:
    """
    PostgreSQL and Redis, with whatever credentials are valid now.

    Use it as a context manager, ``with`` in a synchronous program and ``async with`` on an event loop; the
    latter offers everything.  One manager a process is enough; several do not disturb each other.  After a
    fork a child has the same manager with connections and threads of its own.  Its asynchronous half serves
    one event loop after another, never two at once.
    """

    __module__ = "ledger_db"

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        database_source: CredentialSource | None = None,
        redis_source: CredentialSource | None = None,
        engine_options: Mapping[str, Any] | None = None,
        async_engine_options: Mapping[str, Any] | None = None,
        **session_kind: Unpack[SessionKindArguments],
    ) -> None:
        """
        Prepare a manager; nothing is read or connected before it is opened.

        Its engines can be named already, and listened to, at import and before a fork.

        Args:
            settings: From the environment if None.

            database_source: Where PostgreSQL's credentials come from, instead of what the settings say.

            redis_source: The same for Redis.

            engine_options: What you would give to ``create_engine`` beside a URL, ``connect_args`` included.

            async_engine_options: The same for ``create_async_engine``; if None that of `engine_options`,
                without the ``connect_args``.

            session_kind: ``session_class``, ``async_session_class``, ``expire_on_commit``, ``autoflush``; see
                `SessionKind`.

        Raises:
            ConfigurationError: Names the setting or the option that is wrong, and what to do instead.
        """
        self._settings = settings or Settings()
        #: What its sessions are like, for whoever opens one beside it.
        self.session_kind: SessionKind = SessionKind(**session_kind)
        given = Given.of({} if engine_options is None else engine_options, async_engine_options)
        self._database = database_server(self._settings, database_source, given=given)
        self._redis = redis_server(self._settings, redis_source)
        self._servers: tuple[Server, ...] = tuple(s for s in (self._database, self._redis) if s is not None)
        self._prober = Prober({server.name: server.probe for server in self._servers})
        self._signals: SignalListener | None = None
        self._forgotten = Forgotten(self._servers)
        self._tally = TransactionTally()
        self._state = "not opened yet"
        # Who is at it, while it is being opened.
        self._opening: Opening | None = None

        # Guards the change of _state in open and close, so that two closers close once.
        self._changing = threading.Lock()
        at_fork(in_child=self._after_fork)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(_NOT_COPIED)

    def __repr__(self) -> str:
        return f"<ConnectionManager {self._state}: {named(self._servers)}>"

    def open(self) -> Self:
        """
        Fetch the secrets, check both servers, and follow rotations from then on.

        One that was closed may be opened again: its engines and clients are the same objects as before.

        Raises:
            LedgerDBError: Within ``startup_timeout_seconds``, or at once if trying again will not help.
                Nothing is left open then.
        """
        opening = self._begin_open()
        try:
            opening.make_ready()
            self._end_open(opening)
        except BaseException:
            if self._opening is opening:
                self.close()
            raise
        return self

    async def async_open(self) -> Self:
        """Same as `open`, on an event loop; the asynchronous engine and client are the ones checked."""
        opening = self._begin_open()
        try:
            await opening.async_make_ready()
            self._end_open(opening)
        except BaseException:
            if self._opening is opening:
                await self.async_close()
            raise
        return self

    def close(self) -> None:
        """
        Close everything that is idle; what is borrowed is closed when it is returned.

        Closing twice is fine.

        Raises:
            ManagerClosed: The asynchronous half is open and can only be closed on its event loop: await
                `async_close`.  Nothing was closed.
        """
        if self._state != "closed" and any(server.belongs_here for server in self._servers):
            raise ManagerClosed("this manager has an asynchronous half; close it with 'await async_close()'")
        if not self._begin_close():
            return
        close_all(self._servers, self._signals)
        self._end_close()

    async def async_close(self) -> None:
        """Same as `close`, on an event loop.  It is finished even if the task that awaits it is cancelled."""
        if not self._begin_close():
            return
        # Shielded: sessions that nobody closes would stay on the servers for as long as the process lives.
        await asyncio.shield(self._close_all())

    async def _close_all(self) -> None:
        async with AsyncExitStack() as closing:
            for server in self._servers:
                closing.push_async_callback(server.async_close)
            if self._signals is not None:
                closing.push_async_callback(async_in_thread, self._signals.stop, name="ledger_db-close")
        self._end_close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await self.async_open()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.async_close()

    @property
    def settings(self) -> Settings:
        """What it was made with."""
        return self._settings

    @property
    def is_open(self) -> bool:
        """Whether it was opened and not closed yet."""
        return self._state == "open"

    @property
    def engine(self) -> Engine:
        """An ordinary Engine; the same object for ever, and opens connections while the manager is open."""
        return self._known_database().engine

    @property
    def async_engine(self) -> "AsyncEngine":
        """An ordinary AsyncEngine; as `engine`."""
        return self._known_database().async_engine

    @property
    def redis(self) -> "Redis":
        """An ordinary redis-py client."""
        return self._open_redis().client

    @property
    def async_redis(self) -> "AsyncRedis":
        """An ordinary asynchronous redis-py client."""
        return self._open_redis().async_client

    def session(self, **options: Unpack[SessionArguments]) -> Session:
        """
        Return a session for ``with``; nothing is committed unless you do.

        Args:
            options: ``read_only``, ``isolation_level``, ``deferrable``, ``statement_timeout_seconds``,
                ``expire_on_commit``, ``autoflush``; see `SessionOptions`.
        """
        return sessions.open_session(self.engine, sessions.asked_for(options), kind=self.session_kind)

    def begin(self, **options: Unpack[SessionArguments]) -> AbstractContextManager[Session]:
        """Return a transaction for ``with``: commits at its end, rolls back on an error; as `session`."""
        return sessions.begin(self.engine, sessions.asked_for(options), kind=self.session_kind)

    def async_session(self, **options: Unpack[SessionArguments]) -> "AsyncSession":
        """Same as `session`, for ``async with``."""
        return sessions.async_open_session(
            self.async_engine, sessions.asked_for(options), kind=self.session_kind
        )

    def async_begin(self, **options: Unpack[SessionArguments]) -> "AbstractAsyncContextManager[AsyncSession]":
        """Same as `begin`, for ``async with``."""
        return sessions.async_begin(self.async_engine, sessions.asked_for(options), kind=self.session_kind)

    def run(
        self,
        work: Callable[[Session], T],
        *,
        patience_seconds: float | None = None,
        **options: Unpack[SessionArguments],
    ) -> T:
        """
        Return what *work* returns, once its transaction is committed; see `transactions.run`.

        It is repeated after conflicts and lost connections, each time from the start and with a new session,
        so it must do nothing outside of the session that cannot be done twice.

        Args:
            work: Is given the session; which attempt it is says ``session.info["attempt"]``.

            patience_seconds: When to stop; ``retry_patience_seconds`` of the settings if None.

            options: As `session`.

        Raises:
            RetriesExhausted: Patience is over, and nothing is committed.

            OutcomeUnknown: The answer to COMMIT got lost: it is done, or it is not.
        """
        from ledger_db.transactions.run import Patience, run  # noqa: PLC0415 - few scripts repeat anything

        seconds = self.settings.retry_patience_seconds if patience_seconds is None else patience_seconds
        asked = sessions.one_transaction(sessions.asked_for(options))
        opened = partial(sessions.open_session, self.engine, asked, kind=self.session_kind)
        return run(opened, work, patience=Patience(seconds=seconds), tally=self._tally)

    async def async_run(
        self,
        work: "Callable[[AsyncSession], Awaitable[T]]",
        *,
        patience_seconds: float | None = None,
        **options: Unpack[SessionArguments],
    ) -> T:
        """Same as `run`, on an event loop."""
        from ledger_db.transactions.run import Patience, async_run  # noqa: PLC0415 - as above

        seconds = self.settings.retry_patience_seconds if patience_seconds is None else patience_seconds
        asked = sessions.one_transaction(sessions.asked_for(options))
        opened = partial(sessions.async_open_session, self.async_engine, asked, kind=self.session_kind)
        return await async_run(opened, work, patience=Patience(seconds=seconds), tally=self._tally)

    def look_now(self, *, urgent: bool = False) -> None:
        """
        Read the secrets now instead of at the end of the interval: somebody says that one changed.

        Args:
            urgent: Whether connections with older credentials are replaced at once, not spread over
                ``renewal_spread_seconds``: a password has leaked, say, and its sessions shall not stay.
        """
        for server in self._servers:
            if urgent:
                # Also those of a rotation that was adopted a moment ago.
                server.provider.hurry()
            server.look_now(urgent=urgent)

    def health(self) -> "HealthReport":
        """Say how things are, in microseconds: no server is asked."""
        from ledger_db.manager.health import report_of  # noqa: PLC0415 - a script asks for none

        return report_of(self._state, self._database, self._redis, self._tally.counters)

    def probe(self, *, max_age_seconds: float = MAX_AGE_SECONDS) -> ProbeReport:
        """Ask each server for a sign of life, on a connection of its own.  Never raises; see `Prober`."""
        return self._prober.probe(max_age_seconds=max_age_seconds) if self._state == "open" else NOT_OPEN

    async def async_probe(self, *, max_age_seconds: float = MAX_AGE_SECONDS) -> ProbeReport:
        """Same as `probe`, on an event loop; the asynchronous engine is not used."""
        if self._state != "open":
            return NOT_OPEN
        return await self._prober.async_probe(max_age_seconds=max_age_seconds)

    def _begin_open(self) -> Opening:
        if not self._servers:
            raise ConfigurationError(
                "neither a database nor a Redis is configured; set LEDGER_DB_DATABASE_SECRET_ID or "
                "LEDGER_DB_REDIS_SECRET_ID, or LEDGER_DB_DATABASE_URL=sqlite:///dev.db to try things out"
            )
        with self._changing:
            if self._state not in {"not opened yet", "closed"}:
                raise ManagerClosed(
                    f"this manager is {self._state}; close it before it is opened again, or make another one"
                )
            self._state = "opening"
            self._opening = Opening(self._servers, self._settings.startup_timeout_seconds)
            for server in self._servers:
                server.revive()
            return self._opening

    def _end_open(self, opening: Opening) -> None:
        with self._changing:
            # Somebody may have closed it meanwhile, or begun to open it again: then nothing may start here.
            if self._opening is not opening:
                raise ManagerClosed("this manager was closed while it was being opened; open it again")
            for server in self._servers:
                server.watch()
            self._signals = signal_listener(self._settings, self._redis, self._servers)
            if self._signals is not None:
                self._signals.start()
            self._forgotten.arm(self._signals)
            self._state, self._opening = "open", None
        names = [server.name for server in self._servers]
        log.info("manager.opened", servers=names, seconds=round(opening.seconds, 3))

    def _begin_close(self) -> bool:
        with self._changing:
            if self._state in {"closed", "not opened yet"}:
                return False
            # "closing" may be met again: whoever began to close did not get to the end.
            self._state, self._opening = "closing", None
        return True

    def _end_close(self) -> None:
        with self._changing:
            if self._state != "closing":
                return  # another closer was quicker
            self._state = "closed"
            self._forgotten.disarm()
        log.info("manager.closed")

    def _known_database(self) -> "Database":
        if self._database is None:
            raise ConfigurationError("no database is configured; set LEDGER_DB_DATABASE_SECRET_ID")
        return self._database

    def _open_redis(self) -> "RedisServer":
        self._refuse_unless_open()
        if self._redis is None:
            raise ConfigurationError("no Redis is configured; set LEDGER_DB_REDIS_SECRET_ID")
        return self._redis

    def _refuse_unless_open(self) -> None:
        if self._state != "open":
            raise ManagerClosed(
                f"this manager is {self._state}; use it inside 'with ConnectionManager() as db'"
            )

    def _after_fork(self) -> None:
        self._changing = threading.Lock()
