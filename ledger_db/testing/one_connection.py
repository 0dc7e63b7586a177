"""
How do all sessions of a test get the same connection, and each of them as if it were one of a pool's?

A ``connect`` listener has met it when the real engine opened it, in no transaction: it is not told again.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import NullPool
from sqlalchemy.pool.base import _ConnectionRecord

from ledger_db.errors import ConfigurationError
from ledger_db.testing.written_out import Lent

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

Borrow = Callable[[], "tuple[DBAPIConnection, dict[Any, Any]]"]


class PoolOfOneConnection(NullPool):
    """
    Lends the same connection to everybody, and closes it for nobody.

    Args:
        borrow: Returns the connection, and what is noted of it.

        dialect: Of the engine that this is the pool of.
    """

    def __init__(self, borrow: Borrow, *, dialect: "Dialect") -> None:
        super().__init__(lambda: borrow()[0], dialect=dialect, reset_on_return=None)
        self._borrow = borrow

    def recreate(self) -> "PoolOfOneConnection":
        """Stay: code that disposes of its engine goes on with the same connection."""
        return self

    def connect(self) -> "PoolProxiedConnection":
        """Lend it, for work and not to end the transaction that it is in."""
        lent = super().connect()
        # SQLAlchemy makes them by itself, of a class that nobody can choose.
        lent.__class__ = Lent
        return lent

    def _do_get(self) -> "ConnectionPoolEntry":
        # Made without connecting, so that no listener for new connections hears of it.
        record = _ConnectionRecord(self, connect=False)
        connection, vars(record)["info"] = self._borrow()
        if _is_closed(connection):
            raise ConfigurationError(
                "the one connection of this test is closed: a statement of it was cancelled, or the server "
                "has ended it; what the test wrote is gone.  Cancel nothing there, or use ledger_db_manager"
            )
        record.dbapi_connection = connection
        # Else it would be older than anything that the pool was ever told to forget.
        record.starttime = time.time()
        return record

    def _do_return_conn(self, record: "ConnectionPoolEntry") -> None:
        pass


def _is_closed(connection: Any) -> bool:
    # asyncpg has a method for it, libpq's drivers an attribute; SQLite's never closes by itself.
    driver = getattr(connection, "driver_connection", connection)
    is_closed = getattr(driver, "is_closed", None)
    return bool(is_closed() if is_closed else getattr(driver, "closed", False))
