"""
How does one AsyncEngine serve one event loop after another?

Its pool asks, wherever it lends a connection, whether the loop is still the same one.  On a new loop the
engine has a new pool, because nothing of the old one can be waited for.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool, PoolProxiedConnection
from sqlalchemy.util.concurrency import in_greenlet

from ledger_db.connections.closing import async_close_for_good
from ledger_db.connections.cutting import cut, drop_transport
from ledger_db.connections.loop import Loop
from ledger_db.forking import keep_for_good

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

Close = Callable[[Any], None]


class PoolOfOneLoop(AsyncAdaptedQueuePool):
    """Lends connections on the loop that they were opened on; on another one its successor does."""

    # SQLAlchemy would log its events under our name, where nobody looks for them.
    _sqla_logger_namespace = "sqlalchemy.pool.impl.AsyncAdaptedQueuePool"

    successor: Callable[[], Pool]

    def connect(self) -> PoolProxiedConnection:
        """Lend a connection to whoever runs on this loop."""
        pool = self.successor()
        return super().connect() if pool is self else pool.connect()

    def recreate(self) -> "PoolOfOneLoop":
        """Return an empty one."""
        empty = cast("PoolOfOneLoop", super().recreate())
        empty.successor = self.successor
        return empty


def keep_to_one_loop(engine: "AsyncEngine", loop: Loop) -> None:
    """Let *engine* lend connections on *loop* only, and let go of them when it has ended."""
    loop.let_to(_Connections(engine))

    def successor() -> Pool:
        loop.claim()
        return engine.pool

    if isinstance(engine.pool, PoolOfOneLoop):
        engine.pool.successor = successor
    else:
        # Nothing is kept, so nothing is refused: only where to try credentials has to be known.
        event.listen(engine.sync_engine, "connect", lambda dbapi, record: loop.claim())


class _Connections:
    """Those of one engine, and the loops that they were opened on."""

    def __init__(self, engine: "AsyncEngine") -> None:
        self._engine = engine
        self._homes: WeakKeyDictionary[object, asyncio.AbstractEventLoop] = WeakKeyDictionary()
        # What was opened before a fork, which nobody closes in the child.
        self._parents: set[object] = set()
        event.listen(engine.sync_engine, "connect", self._note)
        # A pool closes connections in many places, and the garbage collector too; all of them come to the
        # dialect, which belongs to this one engine.
        dialect: Any = engine.dialect
        dialect.do_close = self._at_home(dialect.do_close)
        if type(dialect).do_terminate is not DefaultDialect.do_terminate:
            dialect.do_terminate = self._at_home(dialect.do_terminate)

    async def leave(self) -> None:
        await async_close_for_good(self._engine)

    def abandon(self) -> None:
        for driver, home in list(self._homes.items()):
            # Borrowed ones too; but who has borrowed one on a loop that is still there may go on.
            if home.is_closed():
                _cut(driver, home)
        self._engine.sync_engine.dispose()

    def after_fork(self) -> None:
        # Borrowed ones too, which no pool knows.
        self._parents |= set(self._homes)
        keep_for_good(self._parents)
        self._homes = WeakKeyDictionary()

    def _note(self, dbapi: Any, record: object) -> None:
        self._homes[dbapi.driver_connection] = asyncio.get_running_loop()

    def _at_home(self, close: Close) -> Close:
        def close_at_home(connection: Any) -> None:
            driver = connection.driver_connection
            if driver in self._parents:
                return
            home = self._homes.get(driver)
            if home is None or (in_greenlet() and asyncio.get_running_loop() is home):
                close(connection)
            else:
                _cut(driver, home)

        return close_at_home


def _cut(driver: Any, home: asyncio.AbstractEventLoop) -> None:
    transport = getattr(driver, "_transport", None)  # asyncpg's

    def drop() -> None:
        if transport is None:
            driver.pgconn.finish()
            return
        try:
            driver.terminate()
        finally:
            if home.is_closed():
                drop_transport(transport)

    cut(driver if transport is None else transport.get_extra_info("socket"), home, drop)
