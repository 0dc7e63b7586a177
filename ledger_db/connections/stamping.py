"""
Ties the life of a pooled connection to the credentials that opened it.

Born:      the stamp of the credentials that logged in is written on the connection's record.
Borrowed:  an idle connection with another stamp is replaced before it is handed out.
Returned:  a connection with another stamp is closed instead of kept.

Nothing is ever closed under somebody who is using it, and the Engine and its pool stay the same objects for
ever: swapping the pool leaks sessions.  SQLAlchemy runs these listeners as synchronous code for an
``AsyncEngine`` too, so there is only this one implementation.
"""

import asyncio
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.util import await_

from ledger_db.connections.login import Logins, Look
from ledger_db.credentials.model import Credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
    from sqlalchemy.pool import ConnectionPoolEntry

_STAMP = "ledger_db.stamp"
_UNUSED = "ledger_db.unused"

# Set while somebody tries credentials that are not current yet.  A context variable, because the same task or
# thread goes through checkout and login; others never see it.
_trial: ContextVar[Credentials | None] = ContextVar("ledger_db_trial", default=None)


@contextmanager
def on_trial(credentials: Credentials) -> "Iterator[None]":
    """
    Make the next checkout of this thread or task log in with *credentials*, whatever is current.

    The idle connection that it gets is closed first and replaced in place, so that a trial needs no
    connection beyond the pool's own.  A refusal is raised as the driver's error, at once.
    """
    token = _trial.set(credentials)
    try:
        yield
    finally:
        _trial.reset(token)


def stamp_connections(engine: "Engine", logins: Logins) -> None:
    """
    Open the connections of *engine* through *logins*; for an ``AsyncEngine`` pass its ``sync_engine``.

    Args:
        engine: Its URL need not name a user, a password or an address.

        logins: Decides what to log in with, and what to do when that is refused.
    """
    provider = logins.provider

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: "Dialect", record: "ConnectionPoolEntry", cargs: list[Any], cparams: dict[str, Any]
    ) -> "DBAPIConnection":
        used: Credentials | None = None

        def log_in(credentials: Credentials) -> "DBAPIConnection":
            nonlocal used
            used = credentials
            return _open(dialect, cargs, cparams, credentials)

        trial = _trial.get()
        connection = log_in(trial) if trial is not None else _run(logins, log_in, dialect)
        # Write down what logged in, not what is current by now: a rotation may have landed meanwhile.
        record.info[_STAMP] = cast("Credentials", used).stamp
        record.info[_UNUSED] = True
        return connection

    @event.listens_for(engine, "checkout")
    def replace_if_stale(dbapi: object, record: "ConnectionPoolEntry", fairy: object) -> None:
        # One that was opened for this very checkout is good even if a rotation has landed since: it did
        # log in.  SQLAlchemy allows two attempts a checkout; a storm of rotations would use up both.
        if record.info.pop(_UNUSED, False):
            return
        wanted = _trial.get() or provider.current
        if record.info.get(_STAMP) != wanted.stamp:
            raise DisconnectionError("opened with credentials that have since rotated")

    @event.listens_for(engine, "checkin")
    def close_if_stale(dbapi: object | None, record: "ConnectionPoolEntry") -> None:
        if dbapi is None or record.info.get(_STAMP) == provider.current.stamp:
            return
        # Just logged in on trial, not adopted yet: the adoption follows, and this connection with it.
        if _trial.get() is None:
            record.invalidate()


def _run(logins: Logins, log_in: Any, dialect: "Dialect") -> "DBAPIConnection":
    if not dialect.is_async:
        return cast("DBAPIConnection", logins.log_in(log_in))

    # Steps off the loop for what blocks.  These run inside SQLAlchemy's greenlet, on the loop's thread.
    def look(step: Look) -> Credentials | None:
        return await_(asyncio.to_thread(logins.look, step))

    def pause(seconds: float) -> None:
        await_(asyncio.sleep(seconds))

    return cast("DBAPIConnection", logins.run(log_in, look=look, pause=pause))


def _open(
    dialect: "Dialect", cargs: list[Any], cparams: dict[str, Any], credentials: Credentials
) -> "DBAPIConnection":
    is_asyncpg = dialect.driver == "asyncpg"
    return dialect.connect(
        *cargs,
        **cparams,
        host=credentials.host,
        port=credentials.port,
        user=credentials.username,
        # asyncpg takes nothing but str itself; libpq's drivers take the one that does not show itself.
        password=str(credentials.password) if is_asyncpg else credentials.password,
        **{"database" if is_asyncpg else "dbname": credentials.database},
    )
