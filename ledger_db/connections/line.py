"""Which socket is a driver's connection on, and where does it lead?"""

import os
import socket
from typing import Any


def descriptor_of(driver: Any) -> int:
    """
    Return the descriptor of *driver*, a driver's own connection to PostgreSQL; it may be closed at any time.

    Raises:
        Exception: Each driver's own for "closed already".
    """
    # asyncpg's, and private; libpq's drivers say it themselves.
    transport = getattr(driver, "_transport", None)
    end = driver if transport is None else transport.get_extra_info("socket")
    number: int = end.fileno()
    return number


def address_of(descriptor: int) -> str | None:
    """Return the address of a socket's other end; None if that is no network address, or has gone already."""
    # A second descriptor, because closing the socket that is made of it closes that one.
    with socket.socket(fileno=os.dup(descriptor)) as end:
        try:
            name = end.getpeername()
        except OSError:
            return None
    return str(name[0]) if isinstance(name, tuple) else None


def second_end(connection: Any) -> socket.socket | None:
    """
    Return a second descriptor of a connection's socket; None if there is none any more.

    It stays open when the driver closes its own, and what is set on it counts for both.

    Args:
        connection: The driver's own, or SQLAlchemy's adapter of it.
    """
    driver = getattr(connection, "driver_connection", connection)
    try:
        return socket.socket(fileno=os.dup(descriptor_of(driver)))
    except Exception:  # noqa: BLE001 - each driver has its own error for "closed already"
        return None
