"""A manager for one test: what it writes to the database is undone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from ledger_db.connections.loop import Loop
from ledger_db.errors import ConfigurationError
from ledger_db.manager.view import ManagerView
from ledger_db.testing.home import Home
from ledger_db.testing.undone import AsyncUndone, Undone

if TYPE_CHECKING:
    from redis.asyncio import Redis as AsyncRedis
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from ledger_db.manager.connection_manager import ConnectionManager

_NO_TEST_CLIENT = (
    ", or ask the application with httpx.AsyncClient in an 'async def' test: a TestClient runs it on a loop "
    "of its own"
)


class IsolatedManager(ManagerView):
    """
    An open manager, seen through one transaction for each of its engines.

    The two halves do not see what the other has written.  Everything else is the other manager's; what is
    written to Redis stays.

    Args:
        manager: An open one; who opened it closes it.
    """

    __module__ = "ledger_db.testing"

    __slots__ = ("_async_redis", "_async_undone", "_redis_loop", "_undone")

    def __init__(self, manager: "ConnectionManager") -> None:
        super().__init__(manager)
        self._undone: Undone | None = None
        self._async_undone: AsyncUndone | None = None
        self._async_redis: AsyncRedis | None = None
        self._redis_loop = Loop(or_else=_NO_TEST_CLIENT)

    @property
    def engine(self) -> "Engine":
        """An ordinary Engine, except that its transactions are undone when the test is over."""
        if self._undone is None:
            raise ConfigurationError(
                "the test that this manager was isolated for is over; make one for each test"
            )
        return self._undone.engine

    @property
    def async_engine(self) -> "AsyncEngine":
        """An ordinary AsyncEngine, except that its transactions are undone when the test is over."""
        if self._async_undone is None:
            raise ConfigurationError(
                "only the synchronous half of this manager is isolated; ask for the fixture "
                "ledger_db_async_isolated as well, or use async_isolated()"
            )
        return self._async_undone.engine

    @property
    def async_redis(self) -> "AsyncRedis":
        """A client of this test's own: one lives on one event loop, and each test may have another."""
        if self._async_redis is None:
            self._async_redis = self.new_async_redis(self._redis_loop)
        return self._async_redis

    def isolate(self) -> None:
        """Begin to undo what `engine` does."""
        self._undone = Undone(super().engine, Home())

    def undo(self) -> None:
        """Undo what `engine` did."""
        undone, self._undone = self._undone, None
        try:
            # Of a loop that is not this one: an application's, in a client's thread.
            self._redis_loop.close()
        finally:
            if undone is not None:
                undone.close()

    def async_isolate(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to undo what `async_engine` does, on *loop* and on no other."""
        self._async_undone = AsyncUndone(super().async_engine, loop)

    async def async_undo(self) -> None:
        """Undo what `async_engine` did, on the event loop that used it."""
        undone, self._async_undone = self._async_undone, None
        try:
            await self._redis_loop.async_close()
        finally:
            if undone is not None:
                await undone.close()


@contextmanager
def isolated(manager: "ConnectionManager") -> Iterator[IsolatedManager]:
    """
    Give a manager for ``with``, whose `engine` leaves nothing behind.

    Args:
        manager: An open one.
    """
    one = IsolatedManager(manager)
    one.isolate()
    try:
        yield one
    finally:
        one.undo()


@asynccontextmanager
async def async_isolated(manager: "ConnectionManager") -> AsyncIterator[IsolatedManager]:
    """Same as `isolated`, for `async_engine` too."""
    with isolated(manager) as one:
        one.async_isolate(asyncio.get_running_loop())
        try:
            yield one
        finally:
            await one.async_undo()
