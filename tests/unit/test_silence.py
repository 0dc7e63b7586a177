"""Is the kernel told how long a network may be silent?"""

import socket
from contextlib import closing

import pytest

from ledger_db.connections.silence import break_in_silence, libpq_silence


@pytest.mark.parametrize("seconds", [1, 2, 2.5, 15, 60, 3600])
def test_the_kernel_has_asked_in_vain_by_the_deadline(seconds: float) -> None:
    """Three questions fit in, but for the shortest time: a kernel counts whole seconds."""
    told = libpq_silence(seconds)
    asked = told["keepalives_idle"] + told["keepalives_count"] * told["keepalives_interval"]

    assert told["tcp_user_timeout"] == seconds * 1000
    assert asked <= max(seconds, 4)


def test_the_default_is_what_was_measured() -> None:
    """After 5 s of silence every 3 s, three times."""
    assert libpq_silence(15.0) == {
        "keepalives": 1,
        "keepalives_idle": 5,
        "keepalives_interval": 3,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
    }


def test_a_socket_without_a_network_is_let_be() -> None:
    """A Unix socket knows no keepalives, and a login through one must not fail."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        break_in_silence(ours, 15.0)


def test_a_connection_that_is_closed_already_is_let_be() -> None:
    """The login's own error is what counts."""
    with closing(socket.socket()) as gone:
        gone.close()
        break_in_silence(gone, 15.0)
