"""
Puts it all together: the only object that an application needs.

It decides nothing about credentials or connections itself.  It opens and closes the two servers together, and
hands out what belongs to them.
"""

import asyncio
import logging
import os
import threading
import time
import weakref
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Self

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from ledger_db._assembly import postgres_server, redis_server
from ledger_db.connections import sessions
from ledger_db.connections.postgres_server import PostgresServer
from ledger_db.connections.redis_server import RedisServer
from ledger_db.connections.sessions import IsolationLevel, SessionOptions
from ledger_db.connections.startup import all_within, check
from ledger_db.credentials.model import CredentialSource
from ledger_db.errors import ConfigurationError, ManagerClosed
from ledger_db.health import HealthReport, PoolHealth, pool_health, server_health
from ledger_db.settings import Settings

log = logging.getLogger(__name__)

Server = PostgresServer | RedisServer


class ConnectionManager:
    """
    PostgreSQL and Redis, with whatever credentials are valid now.

    Use it as a context manager, ``with`` in a synchronous program and ``async with`` on an event loop; the
    latter offers everything.  One manager a process is enough; several do not disturb each other.  After a
    fork a child has the same manager with connections and threads of its own.
    """

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
        self._postgres = postgres_server(self._settings, database_source)
        self._redis = redis_server(self._settings, redis_source)
        self._servers: tuple[Server, ...] = tuple(s for s in (self._postgres, self._redis) if s is not None)
        self._state = "not opened yet"

        # Guards the change of _state in open and close, so that two closers close once.
        self._changing = threading.Lock()

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
            all_within(
                self._settings.startup_timeout_seconds, *(self._opener(server) for server in self._servers)
            )
        except BaseException:
            self.close()
            raise
        self._end_open(began)
        return self

    async def open_async(self) -> Self:
        """Same as `open`, on an event loop; the asynchronous engine and client are the ones checked."""
        self._begin_open()
        began = time.monotonic()
        timeout = self._settings.startup_timeout_seconds
        try:
            await asyncio.to_thread(all_within, timeout, *(self._loader(server) for server in self._servers))
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    left = max(0.1, timeout - (time.monotonic() - began))
                    group.create_task(server.check_async(timeout_seconds=left))
        except BaseExceptionGroup as failed:
            await self.close_async()
            # One is enough to say, and the caller expects a LedgerDBError.
            raise failed.exceptions[0] from None
        except BaseException:
            await self.close_async()
            raise
        self._end_open(began)
        return self

    def close(self) -> None:
        """Close everything that is open.  Closing twice is fine; what is borrowed is closed on return."""
        if self._begin_close():
            for server in self._servers:
                server.close()
            log.info("manager.closed")

    async def close_async(self) -> None:
        """Same as `close`, on an event loop."""
        if self._begin_close():
            for server in self._servers:
                await server.close_async()
            log.info("manager.closed")

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await self.open_async()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close_async()

    @property
    def engine(self) -> Engine:
        """An ordinary Engine; the same object for ever."""
        return self._open_postgres().engine

    @property
    def async_engine(self) -> AsyncEngine:
        """An ordinary AsyncEngine; the same object for ever."""
        return self._open_postgres().async_engine

    @property
    def redis(self) -> Redis:
        """An ordinary redis-py client."""
        return self._open_redis().client

    @property
    def async_redis(self) -> AsyncRedis:
        """An ordinary asynchronous redis-py client."""
        return self._open_redis().async_client

    def session(
        self,
        *,
        read_only: bool = False,
        isolation_level: IsolationLevel | None = None,
        statement_timeout_seconds: float | None = None,
    ) -> Session:
        """
        Return a session for ``with``; nothing is committed unless you do.

        Args:
            read_only: Whether PostgreSQL refuses writes.

            isolation_level: As PostgreSQL names it; None for the server's default.

            statement_timeout_seconds: When PostgreSQL cancels a statement; None for the server's default.
        """
        return sessions.open_session(
            self.engine,
            SessionOptions(
                read_only=read_only,
                isolation_level=isolation_level,
                statement_timeout_seconds=statement_timeout_seconds,
            ),
        )

    def begin(
        self,
        *,
        read_only: bool = False,
        isolation_level: IsolationLevel | None = None,
        statement_timeout_seconds: float | None = None,
    ) -> AbstractContextManager[Session]:
        """Return a transaction for ``with``: commits at its end, rolls back on an error."""
        return sessions.begin(
            self.engine,
            SessionOptions(
                read_only=read_only,
                isolation_level=isolation_level,
                statement_timeout_seconds=statement_timeout_seconds,
            ),
        )

    def async_session(
        self,
        *,
        read_only: bool = False,
        isolation_level: IsolationLevel | None = None,
        statement_timeout_seconds: float | None = None,
    ) -> AsyncSession:
        """Same as `session`, for ``async with``."""
        return sessions.open_async_session(
            self.async_engine,
            SessionOptions(
                read_only=read_only,
                isolation_level=isolation_level,
                statement_timeout_seconds=statement_timeout_seconds,
            ),
        )

    def async_begin(
        self,
        *,
        read_only: bool = False,
        isolation_level: IsolationLevel | None = None,
        statement_timeout_seconds: float | None = None,
    ) -> AbstractAsyncContextManager[AsyncSession]:
        """Same as `begin`, for ``async with``."""
        return sessions.begin_async(
            self.async_engine,
            SessionOptions(
                read_only=read_only,
                isolation_level=isolation_level,
                statement_timeout_seconds=statement_timeout_seconds,
            ),
        )

    def look_now(self) -> None:
        """Read the secrets now instead of at the end of the interval: somebody says that one changed."""
        for server in self._servers:
            server.look_now()

    def health(self) -> HealthReport:
        """Say how things are, in microseconds: no server is asked."""
        reports = []
        for server in self._servers:
            pools: tuple[PoolHealth | None, ...] = ()
            if isinstance(server, PostgresServer):
                pools = tuple(pool_health(engine.pool, server.options.capacity) for engine in server.made)
            reports.append(server_health(server.name, server.provider.status, pools))
        ok = self._state == "open" and all(report.ok for report in reports)
        return HealthReport(ok=ok, servers=tuple(reports))

    def _opener(self, server: Server) -> "_Opener":
        return _Opener(server, self._settings.startup_timeout_seconds)

    def _loader(self, server: Server) -> "_Opener":
        return _Opener(server, self._settings.startup_timeout_seconds, connect=False)

    def _begin_open(self) -> None:
        if not self._servers:
            raise ConfigurationError(
                "neither a database nor a Redis is configured; set LEDGER_DB_DATABASE_SECRET_ID or "
                "LEDGER_DB_REDIS_SECRET_ID"
            )
        with self._changing:
            if self._state != "not opened yet":
                raise ManagerClosed(f"this manager is {self._state}; make a new one")
            self._state = "opening"

    def _end_open(self, began: float) -> None:
        for server in self._servers:
            server.watch()
        self._state = "open"
        _managers.add(self)
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
            self._state = "closed"
        _managers.discard(self)
        return True

    def _open_postgres(self) -> PostgresServer:
        self._refuse_unless_open()
        if self._postgres is None:
            raise ConfigurationError("no database is configured; set LEDGER_DB_DATABASE_SECRET_ID")
        return self._postgres

    def _open_redis(self) -> RedisServer:
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
        for server in self._servers:
            server.after_fork()


class _Opener:
    """Opens one server within what is left of the time."""

    def __init__(self, server: Server, timeout_seconds: float, *, connect: bool = True) -> None:
        self._server = server
        self._deadline = time.monotonic() + timeout_seconds
        self._connect = connect

    def __call__(self) -> None:
        provider = self._server.provider
        check(provider.status.source, provider.load, timeout_seconds=self._left())
        if self._connect:
            self._server.check(timeout_seconds=self._left())

    def _left(self) -> float:
        return max(0.1, self._deadline - time.monotonic())


# Open managers only, and weakly: being known here must not keep one alive.
_managers: "weakref.WeakSet[ConnectionManager]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for manager in list(_managers):
        manager._after_fork()  # noqa: SLF001 - the other half of this file


# Once, at import: such a hook can never be taken back.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
