"""
May the server have hung up on a connection that nobody has read from since?

A statement on such a connection fails, so the line is looked at before a connection is lent.  A COMMIT fails
in the same way and with the same error as one whose answer got lost, which nobody may repeat, so the line is
looked at before that too.  A look is one system call and no round trip: a server that waits for the next
statement has nothing to say.
"""

import select
from collections.abc import Callable
from functools import partial
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
        address: Of the other end; None if it is no network address.
    """

    __slots__ = ("_is_closed", "_look", "address")

    def __init__(self, driver: Any) -> None:
        # Asked first: the descriptor of what a driver has closed may be another's by now.  asyncpg, which
        # closes by itself, has a method.
        self._is_closed = getattr(driver, "is_closed", None) or partial(getattr, driver, "closed")
        descriptor = descriptor_of(driver)
        # Made once: each checkout asks it.
        self._look = _poll_of(descriptor)
        self.address = address_of(descriptor)

    def may_have_hung_up(self) -> bool:
        """Whether the server has to be asked before the connection is relied on."""
        return bool(self._is_closed() or self._look(0))


def may_have_hung_up(end: Any) -> bool:
    """Same as of a `Line`, for a socket that has none; true if it is closed already."""
    try:
        descriptor: int = end.fileno()
    except Exception:  # noqa: BLE001 - a loop's transport that was closed has no socket
        return True
    return descriptor < 0 or bool(_poll_of(descriptor)(0))


def _poll_of(descriptor: int) -> Callable[[int], object]:
    # poll and not select, which knows no descriptor above 1023.
    poll = select.poll()
    poll.register(descriptor, _NOT_QUIET)
    return poll.poll
