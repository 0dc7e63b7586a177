"""
May the server have hung up on a connection that nobody has read from since?

A statement on such a connection fails, so the line is looked at before a connection is lent.  A COMMIT fails
in the same way and with the same error as one whose answer got lost, which nobody may repeat, so the line is
looked at before that too.  A look is one system call and no round trip: a server that waits for the next
statement has nothing to say.
"""

import select
from collections.abc import Callable
from typing import Any, Final

from ledger_db.connections.line import address_of, descriptor_of

LINE: Final = "ledger_db.line"
"""Key of a connection's info: the `Line` that it was opened on."""

# What is there to read may also be a notice, so it is a reason to ask and no proof.  It is looked for because
# a goodbye over TLS is no end of the line yet.
_NOT_QUIET = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL


class Line:
    """
    What a driver's own connection to PostgreSQL is connected by.

    Not safe for use by several threads: whoever has borrowed the connection looks.

    Args:
        driver: The connection, just opened.

    Attributes:
        may_have_hung_up: Says, by its truth, whether the server has to be asked before the connection is
            relied on.

        address: Of the other end; None if it is no network address.
    """

    __slots__ = ("address", "may_have_hung_up")

    def __init__(self, driver: Any) -> None:
        descriptor = descriptor_of(driver)
        self.may_have_hung_up: Callable[[], object] = _look_of(driver, descriptor)
        self.address = address_of(descriptor)


def may_have_hung_up(end: Any) -> bool:
    """Same as of a `Line`, for a socket that has none; true if it is closed already."""
    try:
        descriptor: int = end.fileno()
    except Exception:  # noqa: BLE001 - a loop's transport that was closed has no socket
        return True
    return descriptor < 0 or bool(_poll_of(descriptor)(0))


def _look_of(driver: Any, descriptor: int) -> Callable[[], object]:
    # Made once, and of nothing but what has to be asked: each checkout and each COMMIT calls it.
    speaks = _poll_of(descriptor)
    is_closed = getattr(driver, "is_closed", None)
    # The driver first: the descriptor of what it has closed may be another's by now.
    if is_closed is not None:
        return lambda: is_closed() or speaks(0)  # asyncpg's, which closes by itself
    return lambda: driver.closed or speaks(0)


def _poll_of(descriptor: int) -> Callable[[int], object]:
    # poll and not select, which knows no descriptor above 1023.
    poll = select.poll()
    poll.register(descriptor, _NOT_QUIET)
    return poll.poll
