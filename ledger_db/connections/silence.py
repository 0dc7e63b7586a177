"""
When does a connection on which nothing is heard count as broken?

A server that vanishes, or a firewall that forgets, says nothing: no driver notices, and a request waits for
minutes, with asyncpg for ever.  The kernel notices, if it is told to:

    nothing on its way      it asks after a third of the time, three times, and gives up when that is over
    something on its way    it gives up when that is not acknowledged in time; asking does not help there

It asks the other kernel, not the server: a statement may take as long as it takes.  Only Linux breaks too
what cannot be sent because the server reads nothing for as long: a COPY, or very many rows, that wait for a
lock.  A Unix socket has no network to be silent.  macOS has no limit for what is on its way, and keeps to its
own, of minutes.
"""

import socket
from typing import Any, Final

from sqlalchemy import Engine, event

from ledger_db.connections.line import second_end

_COUNT: Final = 3


def tcp_options(seconds: float) -> dict[int, int]:
    """Return what lets a socket break after *seconds* of silence, beside SO_KEEPALIVE."""
    idle, interval = _keepalives(seconds)
    # macOS has another name for the first one, and nothing for the last.
    asking_begins = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE")  # noqa: B009
    options = {asking_begins: idle, socket.TCP_KEEPINTVL: interval, socket.TCP_KEEPCNT: _COUNT}
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        options[socket.TCP_USER_TIMEOUT] = round(seconds * 1000)
    return options


def libpq_silence(seconds: float) -> dict[str, int]:
    """Return libpq's arguments for connections that break after *seconds* of silence."""
    idle, interval = _keepalives(seconds)
    return {
        "keepalives": 1,
        "keepalives_idle": idle,
        "keepalives_interval": interval,
        "keepalives_count": _COUNT,
        "tcp_user_timeout": round(seconds * 1000),
    }


def notice_silence(engine: Engine, seconds: float) -> None:
    """
    Let each new connection of *engine* break after *seconds* of silence; for drivers that take no arguments.

    Args:
        engine: The synchronous core of an ``AsyncEngine``.

        seconds: As the setting says.
    """
    # Before what SQLAlchemy itself does with a new connection: that may already be answered by nobody.
    event.listen(engine, "connect", lambda new, record: break_in_silence(new, seconds), insert=True)
    event.listen(engine, "connect", lambda new, record: _let_writers_go(new.driver_connection))


def break_in_silence(connection: Any, seconds: float) -> None:
    """Let *connection* break after *seconds* of silence; one that is closed, or has no network, is let be."""
    line = second_end(connection)
    if line is None:
        return
    with line:
        if line.family in {socket.AF_INET, socket.AF_INET6}:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in tcp_options(seconds).items():
                line.setsockopt(socket.IPPROTO_TCP, name, value)


def _let_writers_go(driver: Any) -> None:
    # asyncpg's COPY waits until it may write on, and would do so for ever once the connection is lost.
    protocol = driver._protocol  # noqa: SLF001 - there is no other way to it
    driver.add_termination_listener(lambda _: protocol.resume_writing())


def _keepalives(seconds: float) -> tuple[int, int]:
    """Return after how many seconds the kernel asks first, and how many lie between; both are whole."""
    return max(1, round(seconds / 3)), max(1, round(seconds / (_COUNT + 2)))
