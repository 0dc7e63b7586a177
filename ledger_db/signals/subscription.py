"""How is a Redis channel read by a thread that somebody else may have to wake up?"""

import socket
from contextlib import suppress
from typing import Any

from redis.exceptions import NoPermissionError

from ledger_db.errors import ServerUnreachable


class Subscription:
    """
    One connection of its own that only listens.

    It logs in like every other connection, so it comes back after a rotation of the very password that it
    uses.  redis-py's own ``PubSub`` is not used: it reconnects silently, and what was announced meanwhile
    would be lost without anybody knowing.

    Everything but `hang_up` belongs to one thread.

    Args:
        connection: As `RedisServer.new_connection` makes it.

        channel: Which one.
    """

    def __init__(self, connection: Any, channel: str) -> None:
        self._connection = connection
        self._channel = channel

    def open(self) -> None:
        """
        Connect and subscribe; return when the server has confirmed it.

        Raises:
            Exception: Whatever a login may raise, or redis-py if the user may not subscribe.
        """
        self._connection.connect()
        self._connection.send_command("SUBSCRIBE", self._channel)
        self._connection.read_response()

    def read(self, timeout_seconds: float) -> list[Any] | None:
        """
        Return the next frame, as ``[kind, ...]``; None if none came in time.

        Raises:
            Exception: The connection is lost.
        """
        if not self._connection.can_read(timeout=timeout_seconds):
            return None
        try:
            frame = self._connection.read_response()
        except NoPermissionError:
            return [b"pong", b""]  # the user may not ask for a sign of life; that it was said is one
        if not isinstance(frame, list) or not frame:
            raise ServerUnreachable("Redis sent what a subscriber never gets; subscribing again")
        return frame

    def ping(self) -> None:
        """Ask for a sign of life, which `read` will return as ``[b"pong", ...]``."""
        self._connection.send_command("PING", check_health=False)

    def close(self) -> None:
        """Disconnect.  In a forked child the parent's connection stays as it is."""
        self._connection.disconnect()

    def hang_up(self) -> None:
        """
        Make a `read` that is waiting in another thread fail at once.

        The socket is shut down, not closed: a closed one's number may be somebody else's by the time the
        other thread uses it.
        """
        connected = self._connection._sock  # noqa: SLF001 - redis-py has no other way to reach it
        if connected is not None:
            # The plain method, also for TLS: SSLSocket's own would pull its state from under the reader.
            with suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)
