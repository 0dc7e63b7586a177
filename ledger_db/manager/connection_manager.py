"""
Puts it all together: the only object that an application needs.

It decides nothing about credentials or connections itself.  It opens and closes the two servers together, and
hands out what belongs to them.
"""

import asyncio
import logging
import threading
import time
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Self, TypeVar

from sqlalchemy import Engine

from ledger_db.connections.probe import MAX_AGE_SECONDS, NOT_OPEN, Prober, ProbeReport
from ledger_db.credentials.model import CredentialSource
from ledger_db.errors import ConfigurationError, ManagerClosed
from ledger_db.forking import at_fork
from ledger_db.manager.assembly import database_server, redis_server, signal_listener
from ledger_db.manager.health import HealthReport, server_health
from ledger_db.manager.opening import Server, open_all
from ledger_db.manager.sessions import Sessions
from ledger_db.settings import Settings
from ledger_db.transactions.run import TransactionTally

if TYPE_CHECKING:
    # Imported where they are needed: a script without Redis or an event loop does not pay for them.
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis
    from sqlalchemy.ext.asyncio import AsyncEngine

    from ledger_db.connections.redis_server import RedisServer
    from ledger_db.connections.server import Database

log: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")


class ConnectionManager(Sessions):
    """
    PostgreSQL and Redis, with whatever credentials are valid now.

    Use it as a context manager, ``with`` in a synchronous program and ``async with`` on an event loop; the
    latter offers everything.  One manager a process is enough; several do not disturb each other.  After a
    fork a child has the same manager with connections and threads of its own.
    """

    __module__ = "ledger_db"

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        database_source: CredentialSource | None = None,
        redis_source: CredentialSource | None = None,
    ) -> None:
        """
        Prepare a manager; nothing is read or connected before it is opened.

        Args:
            settings: From the environment if None.

            database_source: Where PostgreSQL's credentials come from, instead of what the settings say.

            redis_source: The same for Redis.

        Raises:
            ConfigurationError: Names the setting that is wrong.
        """
        self._settings = settings or Settings()
        self._database = database_server(self._settings, database_source)
        self._redis = redis_server(self._settings, redis_source)
        self._servers: tuple[Server, ...] = tuple(s for s in (self._database, self._redis) if s is not None)
        self._prober = Prober({server.name: server.probe for server in self._servers})
        self._signals = signal_listener(self._settings, self._redis, self._servers)
        self._tally = TransactionTally()
        self._state = "not opened yet"
        # Known while open only, so that a request reads one attribute.
        self._engine: Engine | None = None
        self._async_engine: AsyncEngine | None = None

        # Guards the change of _state in open and close, so that two closers close once.
        self._changing = threading.Lock()
        at_fork(in_child=self._after_fork)

    def __repr__(self) -> str:
        named = ", ".join(f"{s.name}={s.provider.status.version}" for s in self._servers)
        return f"<ConnectionManager {self._state}: {named}>"

    def open(self) -> Self:
        """
        Fetch the secrets, check both servers, and follow rotations from then on.

        Raises:
            LedgerDBError: Within ``startup_timeout_seconds``, or at once if trying again will not help.
                Nothing is left open then.
        """
        self._begin_open()
        began = time.monotonic()
        try:
            open_all(self._servers, self._settings.startup_timeout_seconds, connect=True)
            self._end_open(began)
        except BaseException:
            self.close()
            raise
        return self

    async def async_open(self) -> Self:
        """Same as `open`, on an event loop; the asynchronous engine and client are the ones checked."""
        self._begin_open()
        began = time.monotonic()
        timeout = self._settings.startup_timeout_seconds
        try:
            await asyncio.to_thread(open_all, self._servers, timeout, connect=False)
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    left = max(0.1, timeout - (time.monotonic() - began))
                    group.create_task(server.async_check(timeout_seconds=left))
            self._end_open(began)
        except BaseExceptionGroup as failed:
            await self.async_close()
            # One is enough to say, and the caller expects a LedgerDBError.
            raise failed.exceptions[0] from None
        except BaseException:
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
        with ExitStack() as closing:
            # Each is closed whatever becomes of the others.
            for server in self._servers:
                closing.callback(server.close)
            if self._signals is not None:
                closing.callback(self._signals.stop)
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
                closing.push_async_callback(asyncio.to_thread, self._signals.stop)
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
        """An ordinary Engine; the same object for ever."""
        engine = self._engine
        return self._first_engine() if engine is None else engine

    @property
    def async_engine(self) -> "AsyncEngine":
        """An ordinary AsyncEngine; the same object for ever."""
        engine = self._async_engine
        return self._first_async_engine() if engine is None else engine

    @property
    def redis(self) -> "Redis":
        """An ordinary redis-py client."""
        return self._open_redis().client

    @property
    def async_redis(self) -> "AsyncRedis":
        """An ordinary asynchronous redis-py client."""
        return self._open_redis().async_client

    def look_now(self) -> None:
        """Read the secrets now instead of at the end of the interval: somebody says that one changed."""
        for server in self._servers:
            server.look_now()

    def health(self) -> HealthReport:
        """Say how things are, in microseconds: no server is asked."""
        state, servers = self._state, tuple(server_health(server) for server in self._servers)
        ok = state == "open" and all(server.ok for server in servers)
        return HealthReport(ok=ok, state=state, servers=servers, transactions=self._tally.counters)

    def probe(self, *, max_age_seconds: float = MAX_AGE_SECONDS) -> ProbeReport:
        """Ask each server for a sign of life, on a connection of its own.  Never raises; see `Prober`."""
        return self._prober.probe(max_age_seconds=max_age_seconds) if self._state == "open" else NOT_OPEN

    async def async_probe(self, *, max_age_seconds: float = MAX_AGE_SECONDS) -> ProbeReport:
        """Same as `probe`, on an event loop; the asynchronous engine is not used."""
        if self._state != "open":
            return NOT_OPEN
        return await self._prober.async_probe(max_age_seconds=max_age_seconds)

    def _begin_open(self) -> None:
        if not self._servers:
            raise ConfigurationError(
                "neither a database nor a Redis is configured; set LEDGER_DB_DATABASE_SECRET_ID or "
                "LEDGER_DB_REDIS_SECRET_ID, or LEDGER_DB_DATABASE_URL=sqlite:///dev.db to try things out"
            )
        with self._changing:
            if self._state != "not opened yet":
                raise ManagerClosed(f"this manager is {self._state}; make a new one")
            self._state = "opening"

    def _end_open(self, began: float) -> None:
        with self._changing:
            # Somebody may have closed it meanwhile: then nothing may start any more.
            if self._state != "opening":
                raise ManagerClosed("this manager was closed while it was being opened; make a new one")
            for server in self._servers:
                server.watch()
            if self._signals is not None:
                self._signals.start()
            self._state = "open"
        log.info(
            "manager.opened",
            extra={
                "servers": [server.name for server in self._servers],
                "seconds": round(time.monotonic() - began, 3),
            },
        )

    def _begin_close(self) -> bool:
        with self._changing:
            if self._state in {"closed", "not opened yet"}:
                return False
            # "closing" may be met again: whoever began to close did not get to the end.
            self._state, self._engine, self._async_engine = "closing", None, None
        return True

    def _end_close(self) -> None:
        with self._changing:
            self._state = "closed"
        log.info("manager.closed")

    def _first_engine(self) -> Engine:
        # Made at first use, not before: a service that has only the other one needs no second pool.
        engine = self._open_database().engine
        with self._changing:
            self._refuse_unless_open()
            self._engine = engine
        return engine

    def _first_async_engine(self) -> "AsyncEngine":
        engine = self._open_database().async_engine
        with self._changing:
            self._refuse_unless_open()
            self._async_engine = engine
        return engine

    def _open_database(self) -> "Database":
        self._refuse_unless_open()
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
