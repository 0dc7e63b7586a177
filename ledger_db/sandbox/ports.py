"""Which TCP port of this machine is free for a server that has to be told its port?"""

import secrets
import socket
from pathlib import Path

HOST = "127.0.0.1"
"""The only address on which a sandbox listens."""

_LOWEST = 15_000
_EPHEMERAL_LOWEST = 32_768
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ATTEMPTS = 200


def free_port() -> int:
    """
    Find a port on which nobody listens now.

    It may be taken a moment later, so whoever uses it tries another one if the server cannot bind.

    Raises:
        OSError: Nothing is free; the machine is out of ports.
    """
    # Below the ephemeral range on purpose, unlike what bind(0) returns: a client that keeps trying to reach a
    # stopped server on an ephemeral port is one day given that very port as its own, and is connected to
    # itself; the server can then not come back.
    highest = max(_LOWEST + 1_000, min(_EPHEMERAL_LOWEST, _ephemeral_lowest()))
    for _ in range(_ATTEMPTS):
        port = _LOWEST + secrets.randbelow(highest - _LOWEST)
        if is_free(port):
            return port
    raise OSError(f"no free port between {_LOWEST} and {highest} on {HOST}; end some servers and try again")


def is_free(port: int) -> bool:
    """Whether a server could listen on *port* now."""
    with socket.socket() as probe:
        # As servers do: what lingers from a server that has ended is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _ephemeral_lowest() -> int:
    try:
        return int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _EPHEMERAL_LOWEST
