"""
May the server have hung up on a connection that nobody has read from since?

A statement on such a connection fails, and nothing is lost by it.  A COMMIT fails in the same way and with
the same error as one whose answer got lost, which nobody may repeat.  So the line is looked at before, which
is one system call and no round trip: a server that waits for the next statement has nothing to say.
"""

import select
from typing import Any

from ledger_db.connections.line import descriptor_of

# What is there to read may also be a notice, so it is a reason to ask and no proof.  It is looked for because
# a goodbye over TLS is no end of the line yet.
_NOT_QUIET = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL


def may_have_hung_up(driver: Any) -> bool:
    """Whether *driver*, a driver's own connection to PostgreSQL, has to be asked before it is relied on."""
    try:
        number = descriptor_of(driver)
    except Exception:  # noqa: BLE001 - each driver has its own error for "closed already"
        return True
    return number < 0 or not _is_quiet(number)


def _is_quiet(number: int) -> bool:
    # poll and not select, which knows no descriptor above 1023.
    poll = select.poll()
    poll.register(number, _NOT_QUIET)
    return not poll.poll(0)
