"""When is a connection to Redis lent, and when is it kept?"""

import asyncio
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import redis
import redis.asyncio

from ledger_db.connections.cutting import cut, drop_transport
from ledger_db.connections.loop import Loop
from ledger_db.forking import keep_for_good


class Pool(redis.BlockingConnectionPool):
    """Lends what is fit, and keeps no connection that is returned after the manager was closed."""

    def get_connection(self, *arguments: Any, **named: Any) -> Any:
        """Lend a connection that is logged in with what is current."""
        connection = super().get_connection(*arguments, **named)  # type: ignore[no-untyped-call] # as below
        try:
            connection.lend()
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        super().release(connection)  # type: ignore[no-untyped-call] # untyped in redis-py
        if self.connection_kwargs["logins"].closed:
            connection.disconnect()


class AsyncPool(redis.asyncio.BlockingConnectionPool):
    """
    Same as `Pool`, on one event loop after another.

    It begins anew with each, in place: clients and pipelines refer to it.

    Args:
        loop: Knows which loop that is; None where there is only one.

        arguments: As redis-py's own.
    """

    def __init__(self, *, loop: Loop | None, **arguments: Any) -> None:
        self._loop = loop
        self._arguments = arguments
        self._begin()

    async def get_connection(self, *arguments: Any, **named: Any) -> Any:
        """Lend a connection to whoever runs on this loop."""
        if self._loop is not None:
            self._loop.claim()
        return await super().get_connection(*arguments, **named)  # type: ignore[no-untyped-call] # as below

    async def ensure_connection(self, connection: Any) -> None:
        """Let *connection*, which is about to be lent, be logged in with what is current."""
        await super().ensure_connection(connection)
        await connection.lend()

    def make_connection(self) -> Any:
        """Return a new connection, which belongs to this loop."""
        connection = super().make_connection()  # type: ignore[no-untyped-call] # untyped in redis-py
        self._homes[connection] = asyncio.get_running_loop()
        return connection

    async def release(self, connection: Any) -> None:
        """Take a connection back."""
        if connection in self._homes:
            await super().release(connection)
        if connection not in self._homes or self.connection_kwargs["logins"].closed:
            await connection.disconnect()

    async def leave(self) -> None:
        """Close what is idle."""
        await self.disconnect(inuse_connections=False)

    def abandon(self) -> None:
        """Cut off what is idle, and all of loops that have ended."""
        for connection, home in list(self._homes.items()):
            # One that is in use on a loop that is still there may go on.
            if home.is_closed() or connection in self._available_connections:
                _cut(connection, home)
        self._begin()

    def after_fork(self) -> None:
        """Begin anew in a child, whoever holds the client."""
        keep_for_good(list(self._homes))
        self._begin()

    def _begin(self) -> None:
        # What is lent out now belongs here no more, and is closed when it is returned.
        self._homes: WeakKeyDictionary[Any, asyncio.AbstractEventLoop] = WeakKeyDictionary()
        super().__init__(**self._arguments)


def _cut(connection: Any, home: asyncio.AbstractEventLoop) -> None:
    writer = connection._writer  # noqa: SLF001 - redis-py has no other way to reach it
    if writer is None:
        return

    def drop() -> None:
        with suppress(RuntimeError):
            writer.transport.abort()
        if home.is_closed():
            drop_transport(writer.transport)
        connection._close()  # noqa: SLF001 - as above

    cut(writer.get_extra_info("socket"), home, drop)
