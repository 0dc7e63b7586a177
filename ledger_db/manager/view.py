"""How is an open manager seen by somebody who is to be handed other engines?  `ledger_db.testing` asks."""

from typing import TYPE_CHECKING

from ledger_db.manager.connection_manager import ConnectionManager

if TYPE_CHECKING:
    from redis.asyncio import Redis as AsyncRedis

    from ledger_db.connections.loop import Loop


class ManagerView(ConnectionManager):
    """
    The same open manager, in a class that may override what it hands out.

    Everything else is shared: its state, its servers, its counters.  Sessions are on the engines that a
    subclass hands out.  What belongs to a subclass alone stands in ``__slots__``: ``__dict__`` is the
    manager's.

    Args:
        manager: An open one; who opened it closes it.
    """

    __slots__ = ()

    def __init__(self, manager: ConnectionManager) -> None:
        self.__dict__ = manager.__dict__

    def close(self) -> None:
        """Do nothing: who opened the manager closes it."""

    async def async_close(self) -> None:
        """Do nothing: who opened the manager closes it."""

    def new_async_redis(self, loop: "Loop") -> "AsyncRedis":
        """Return a client beside the manager's, which is closed by who closes *loop*."""
        return self._open_redis().new_async_client(loop)
