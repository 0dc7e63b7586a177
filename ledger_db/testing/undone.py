"""
An engine whose every transaction is undone in the end.

All its connections share one connection of the real engine, and one transaction on it.  For the code that
uses it nothing is different: it begins, commits, rolls back, uses savepoints, and sees what it has committed.
What somebody listens for on the real engine is heard here too.
"""

import copy
import threading
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.util import greenlet_spawn

from ledger_db.testing.autocommit import has_autocommit, leave_isolation
from ledger_db.testing.home import Home
from ledger_db.testing.listeners import pass_on
from ledger_db.testing.one_connection import PoolOfOneConnection
from ledger_db.testing.savepoints import Savepoints
from ledger_db.testing.written_out import ended_past
from ledger_db.transactions.meaning import is_lost

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine


class Undone:
    """
    The synchronous half.

    Args:
        real: Where the one connection comes from, when it is needed first.

        home: The event loop that it belongs to.

    Attributes:
        engine: What the code under test uses.
    """

    def __init__(self, real: Engine, home: Home) -> None:
        self._real = real
        self._home = home
        self._outer: Connection | None = None
        # Never held while the server is asked: an event loop has one thread.
        self._borrowing = threading.Lock()
        self._restore_isolation: Callable[[], None] = lambda: None
        self._savepoints = Savepoints(real.dialect, home)
        dialect = copy.copy(real.dialect)
        self.engine: Engine = Engine(
            PoolOfOneConnection(self._borrow, dialect=dialect),
            dialect,
            real.url,
            echo=real.echo,
            hide_parameters=real.hide_parameters,
            execution_options=dict(real.get_execution_options()),
        )
        pass_on(self.engine, to=real)
        self._savepoints.take_over(self.engine)

    def close(self) -> None:
        """Roll back, and give the connection back."""
        outer, self._outer = self._outer, None
        if outer is None:
            return
        self._restore_isolation()
        with outer:
            is_over = self._savepoints.is_over(outer)
            try:
                outer.rollback()
            except Exception as error:
                # The test may have cut it: then the server has rolled back, and the pool gives it to no one.
                if not is_lost(error):
                    raise
        if is_over:
            raise ended_past()

    def _borrow(self) -> "tuple[DBAPIConnection, dict[Any, Any]]":
        self._home.refuse_elsewhere()
        borrowed = (self._outer or self._begun()).connection
        return cast("DBAPIConnection", borrowed.dbapi_connection), borrowed.info

    def _begun(self) -> Connection:
        """Return the connection, in its transaction, from whoever is the first to have one."""
        outer = _connected(self._real)
        outer.begin()
        self._savepoints.remember_settings(outer)
        # Requests at once each come to here: of a second transaction nobody would know, nor undo it.
        with self._borrowing:
            first = self._outer
            if first is None:
                self._learn(outer)
                self._outer = outer
        if first is None:
            return outer
        outer.close()
        return first

    def _learn(self, outer: Connection) -> None:
        # What a dialect knows of its server it learns at its first connection, which may have been this one.
        vars(self.engine.dialect).update(vars(self._real.dialect))
        self._savepoints.replace_methods(self.engine.dialect)
        # An isolation level of the whole engine is set by a listener of the real one, which is heard here.
        connection = outer.connection.dbapi_connection
        self._restore_isolation = leave_isolation(self._real.dialect, connection)


class AsyncUndone:
    """
    The same for an event loop.

    Args:
        real: Where the one connection comes from.

        loop: Where it is used.
    """

    def __init__(self, real: "AsyncEngine", loop: "asyncio.AbstractEventLoop") -> None:
        from sqlalchemy.ext.asyncio import AsyncEngine  # noqa: PLC0415 - memory for those who use it

        # SQLite's driver asks a thread, and serves whichever loop asks.
        on_any_loop = real.dialect.name == "sqlite"
        self._half = Undone(real.sync_engine, Home(None if on_any_loop else loop))
        self.engine: AsyncEngine = AsyncEngine(self._half.engine)

    async def close(self) -> None:
        """See `Undone.close`."""
        await greenlet_spawn(self._half.close)


def _connected(real: Engine) -> Connection:
    """Return a connection that can have a transaction, whatever is set for all of *real*."""
    outer = real.connect()
    if has_autocommit(outer, real.dialect):
        outer.execution_options(isolation_level=outer.default_isolation_level or "READ COMMITTED")
    return outer
