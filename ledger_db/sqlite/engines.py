"""
SQLAlchemy engines for SQLite that behave as those for PostgreSQL do, as far as SQLite can.

Transactions:  one that may write takes the only write lock at its start, and waits for it.  If it took the
               lock later, two that have both read would refuse each other with "database is locked".
Connections:   none is kept, but a pool still bounds them.  Opening one takes 0.1 ms, and what is open when a
               process forks (locks on the file, the driver's threads) would be half alive in the child.
"""

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import Pool, QueuePool

from ledger_db.connections.engine_arguments import EngineArguments
from ledger_db.connections.engines import EngineOptions, require
from ledger_db.connections.pool_events import log_pool_events
from ledger_db.sqlite.file import SqliteFile, connect_arguments
from ledger_db.sqlite.timeout import limit_statements

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry

_READS_ONLY = "ledger_db.reads_only"
# Each is answered with the strictest: a transaction of SQLite is serializable, whatever it asks for.
_ISOLATION_LEVELS = ("AUTOCOMMIT", "READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


def create_sqlite_engine(
    file: SqliteFile, options: EngineOptions, *, before_connect: Callable[[], None]
) -> Engine:
    """
    Return a new engine; nothing is opened yet.

    Args:
        file: Where the database is.

        options: Those that have a meaning without a server.

        before_connect: Called where a connection is about to be opened; may refuse it by raising.
    """
    engine = sqlalchemy.create_engine(file.url, **_arguments(options, options.given.sync, pool=QueuePool))
    _behave(engine, options, before_connect)
    return engine


def create_async_sqlite_engine(
    file: SqliteFile, options: EngineOptions, *, before_connect: Callable[[], None]
) -> "AsyncEngine":
    """
    Same as `create_sqlite_engine`, for an event loop.

    Raises:
        ConfigurationError: aiosqlite is not installed.
    """
    require("aiosqlite")
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - memory for those who use it
    from sqlalchemy.pool import AsyncAdaptedQueuePool  # noqa: PLC0415 - as above

    url = file.url.set(drivername="sqlite+aiosqlite")
    arguments = _arguments(options, options.given.on_loop, pool=AsyncAdaptedQueuePool)
    arguments["connect_args"]["factory"] = _ClosesItself
    engine = create_async_engine(url, **arguments)
    _behave(engine.sync_engine, options, before_connect)
    return engine


class _ClosesItself(sqlite3.Connection):
    """When a task is cancelled while aiosqlite opens one, it is forgotten; Python 3.13 warns of that."""

    def __del__(self) -> None:
        self.close()


def _arguments(options: EngineOptions, given: EngineArguments, *, pool: type[Pool]) -> dict[str, Any]:
    return {
        **given.engine,
        # The kind of pool that SQLAlchemy chooses depends on the URL, unless the options name one.
        "poolclass": pool,
        **options.engine_arguments(),
        # What is given for a driver is PostgreSQL's.
        "connect_args": connect_arguments(options.pool_timeout_seconds),
    }


def _behave(engine: Engine, options: EngineOptions, before_connect: Callable[[], None]) -> None:
    event.listen(engine, "do_connect", lambda *arguments: before_connect())
    event.listen(engine, "connect", _set_up)
    # First the limit of the transaction before is forgotten, then the next one begins.
    limit_statements(engine)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "checkin", _close)
    _accept_every_isolation_level(engine)
    if options.log_pool_events:
        log_pool_events(engine)


def _set_up(dbapi: Any, record: "ConnectionPoolEntry") -> None:
    cursor = dbapi.cursor()
    # SQLite knows foreign keys and does not look at them, unless it is told so on each connection.
    cursor.execute("PRAGMA foreign_keys = ON")
    # Safe with a write-ahead log: a crash of the machine may take the last commits, and nothing else.
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    reads_only = bool(options.get("postgresql_readonly", False))
    if reads_only != connection.info.get(_READS_ONLY, False):
        connection.info[_READS_ONLY] = reads_only
        connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if reads_only else 'OFF'}")
    # A test that leaves nothing behind has begun one, which this is a part of.
    driver: Any = connection.connection.driver_connection
    if options.get("isolation_level") != "AUTOCOMMIT" and not driver.in_transaction:
        # Readers do not wait for a writer, nor does a writer wait for them.
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _close(dbapi: object | None, record: "ConnectionPoolEntry") -> None:
    if dbapi is not None:
        record.invalidate()


def _accept_every_isolation_level(engine: Engine) -> None:
    # The dialect, which belongs to this one engine, knows two levels, and setting one would hand the
    # beginning of transactions back to the driver.  AUTOCOMMIT is what `_begin` makes of it.
    dialect: Any = engine.dialect
    dialect.get_isolation_level_values = lambda dbapi: list(_ISOLATION_LEVELS)
    dialect.set_isolation_level = lambda dbapi, level: None
