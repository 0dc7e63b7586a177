"""
An engine whose every transaction is undone in the end.

All its connections share one connection of the real engine, and one transaction on it.  For the code that
uses it nothing is different: it begins, commits, rolls back, uses savepoints, and sees what it has committed.
"""

import copy
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import NullPool
from sqlalchemy.util import greenlet_spawn

from ledger_db.testing.savepoints import Savepoints
from ledger_db.transactions.meaning import is_lost

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry


class Undone:
    """
    The synchronous half.

    Args:
        real: Where the one connection comes from, when it is needed first.

    Attributes:
        engine: What the code under test uses.
    """

    def __init__(self, real: Engine) -> None:
        self._real = real
        self._outer: Connection | None = None
        self._savepoints = Savepoints(is_postgres=real.dialect.name == "postgresql")
        dialect = copy.copy(real.dialect)
        self._savepoints.replace_methods(dialect)
        self.engine: Engine = Engine(
            _OneConnection(self._connect, dialect=dialect, reset_on_return=None),
            dialect,
            real.url,
            echo=real.echo,
            hide_parameters=real.hide_parameters,
        )
        event.listen(self.engine, "begin", self._savepoints.prepare)

    def close(self) -> None:
        """Roll back, and give the connection back."""
        outer, self._outer = self._outer, None
        if outer is None:
            return
        with outer:
            try:
                outer.rollback()
            except Exception as error:
                # The test may have cut it: then the server has rolled back, and the pool gives it to no one.
                if not is_lost(error):
                    raise

    def _connect(self) -> Any:
        if self._outer is None:
            self._outer = self._real.connect()
            self._outer.begin()
            self._learn()
        return self._outer.connection.dbapi_connection

    def _learn(self) -> None:
        assert self._outer is not None
        # What a dialect knows of its server it learns at its first connection, which may have been this one.
        dialect = self.engine.dialect
        vars(dialect).update(vars(self._real.dialect))
        self._savepoints.replace_methods(dialect)
        self._savepoints.remember_settings(self._outer)


class AsyncUndone:
    """
    The same for an event loop.

    Args:
        real: Where the one connection comes from.
    """

    def __init__(self, real: "AsyncEngine") -> None:
        from sqlalchemy.ext.asyncio import AsyncEngine  # noqa: PLC0415 - memory for those who use it

        self._half = Undone(real.sync_engine)
        self.engine: AsyncEngine = AsyncEngine(self._half.engine)

    async def close(self) -> None:
        """See `Undone.close`."""
        await greenlet_spawn(self._half.close)


class _OneConnection(NullPool):
    """Gives the same connection to everybody, and closes it for nobody."""

    def _do_return_conn(self, record: "ConnectionPoolEntry") -> None:
        pass
