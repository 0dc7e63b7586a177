"""Does a closed connection end on the server before the next one begins?"""

import socket
import threading
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from ledger_db.connections.closing import wait_for_goodbye


class Driver:
    """A driver's connection that hangs up at once, as they do."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self.closed = False

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._line.fileno()

    def close(self) -> None:
        """Hang up."""
        self._line.close()
        self.closed = True


def closing_of(driver: Any) -> threading.Thread:
    """Close *driver* as a pool would, in a thread."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    wait_for_goodbye(engine)
    thread = threading.Thread(target=engine.dialect.do_close, args=(driver,))
    thread.start()
    return thread


def test_closing_ends_when_the_server_has_hung_up() -> None:
    """The next connection cannot be opened while the server still counts the last one."""
    ours, theirs = socket.socketpair()
    driver = Driver(ours)
    closing = closing_of(driver)

    assert theirs.recv(1) == b""  # the server hears that we left, at once
    assert closing.is_alive()
    theirs.close()
    closing.join(60)
    assert not closing.is_alive()
    assert driver.closed


def test_a_server_that_never_hangs_up_is_not_waited_for() -> None:
    """Patience is short: connections to a dead server are replaced quickly."""
    ours, theirs = socket.socketpair()
    with theirs:
        closing = closing_of(Driver(ours))
        closing.join(60)

        assert not closing.is_alive()


def test_what_is_closed_already_is_closed_once_more() -> None:
    """A connection without a socket costs no wait and no error."""
    ours, theirs = socket.socketpair()
    theirs.close()
    ours.close()
    driver = Driver(ours)
    closing_of(driver).join(60)

    assert driver.closed
