"""When is a connection to Redis lent, and when is it kept?"""

from typing import Any

import redis
import redis.asyncio


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
    """Same as `Pool`, on an event loop."""

    async def ensure_connection(self, connection: Any) -> None:
        """Let *connection*, which is about to be lent, be logged in with what is current."""
        await super().ensure_connection(connection)
        await connection.lend()

    async def release(self, connection: Any) -> None:
        """Take a connection back."""
        await super().release(connection)
        if self.connection_kwargs["logins"].closed:
            await connection.disconnect()
