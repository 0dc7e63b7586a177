"""
Has the server noticed that we left?

A closed connection lives on in the server for some milliseconds, on a busy one for longer than a new login
takes.  A pool that opens the next one at once has, for that moment, one session more than it may have: enough
to meet a role's CONNECTION LIMIT or a server's max_connections, and then a request fails.  So a connection is
half-closed, and closing ends when the server has closed its side too.
"""

import asyncio
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

# A session ends within milliseconds.  A server that is gone for good does not answer at all, and a pool full
# of connections to it must still be replaced quickly.
_PATIENCE_SECONDS = 0.25

Close = Callable[[Any], None]


def wait_for_goodbye(engine: Engine) -> None:
    """
    Let *engine* close connections completely.

    Args:
        engine: The synchronous core, for an ``AsyncEngine``.
    """
    # SQLAlchemy has an event before a connection is closed and none after it; the dialect, which belongs to
    # this one engine, is where its pools close connections.
    dialect: Any = engine.dialect
    dialect.do_close = _completely(dialect.do_close, on_loop=dialect.is_async)
    # Where a dialect has no way of its own to terminate, it closes, and that waits already.
    if type(dialect).do_terminate is not DefaultDialect.do_terminate:
        dialect.do_terminate = _completely(dialect.do_terminate, on_loop=dialect.is_async)


def _completely(close: Close, *, on_loop: bool) -> Close:
    def close_completely(connection: Any) -> None:
        # Outside of SQLAlchemy's greenlet (the garbage collector closes) nothing can be awaited.
        line = None if on_loop and not in_greenlet() else _second_end(connection)
        try:
            close(connection)
            if line is not None and on_loop:
                await_only(_async_end_of_line(line))
            elif line is not None:
                _end_of_line(line)
        finally:
            if line is not None:
                line.close()

    return close_completely


def _second_end(connection: Any) -> socket.socket | None:
    """
    Return a second descriptor of the connection's socket; None if there is none any more.

    It stays open when the driver closes its own, so that the server's goodbye can be heard.
    """
    driver = getattr(connection, "driver_connection", connection)
    try:
        transport = getattr(driver, "_transport", None)  # asyncpg's
        end = driver if transport is None else transport.get_extra_info("socket")
        line = socket.socket(fileno=os.dup(end.fileno()))
    except Exception:  # noqa: BLE001 - each driver has its own error for "closed already"
        return None
    line.setblocking(False)
    return line


def _end_of_line(line: socket.socket) -> None:
    """Wait until the other side has hung up."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    try:
        # A driver that hangs up without a word has closed its descriptor; the line is still open by ours.
        line.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            # poll and not select, which knows no descriptor above 1023.
            poll = select.poll()
            poll.register(line, select.POLLIN)
            poll.poll(left * 1000)
            if not line.recv(4096):
                return
    except OSError:
        return  # reset by the other side, or silent: it has ended as well as it can


async def _async_end_of_line(line: socket.socket) -> None:
    """Same as `_end_of_line`, on an event loop."""
    loop = asyncio.get_running_loop()
    try:
        line.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while await loop.sock_recv(line, 4096):
                pass
    except (OSError, TimeoutError):
        return
    except asyncio.CancelledError:
        # The connection is closed, so there is nothing left to cancel here; what comes next is cancelled.
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
            task.cancel()
