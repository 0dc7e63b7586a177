"""
How does a connection end, and has the server noticed that we left?

Nothing here waits for a server that has stalled.  Who hangs up says so and goes, on every driver: asyncpg
would wait for the answer, for ever.

A closed connection lives on in the server for some milliseconds, on a busy one for longer than a new login
takes.  A pool that opens the next one at once has, for that moment, one session more than it may have: enough
to meet a role's CONNECTION LIMIT or a server's max_connections, and then a request fails.  So a connection is
half-closed, and closing ends when the server has closed its side too.  When all is closed for good, nothing
is opened next, and nobody is waited for.
"""

import asyncio
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from ledger_db.connections.line import second_end

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

# A session ends within milliseconds.  A server that is gone for good does not answer at all, and a pool full
# of connections to it must still be replaced quickly.
_PATIENCE_SECONDS = 0.25
_TELLING_SECONDS = 2.0

Close = Callable[[Any], None]

# Set while an engine is closed.  A context variable, because its pool closes one connection after the other
# in the same task or thread.
_for_good: ContextVar[bool] = ContextVar("ledger_db_for_good", default=False)


def close_for_good(engine: Engine) -> None:
    """Close what is idle in *engine*, and wait for no goodbye."""
    with _closing_for_good():
        engine.dispose()


async def async_close_for_good(engine: "AsyncEngine") -> None:
    """Same as `close_for_good`, on the event loop that the engine belongs to."""
    with _closing_for_good():
        await engine.dispose()


@contextmanager
def _closing_for_good() -> Iterator[None]:
    token = _for_good.set(True)
    try:
        yield
    finally:
        _for_good.reset(token)


def wait_for_goodbye(engine: Engine) -> None:
    """
    Let *engine* close connections completely.

    Args:
        engine: The synchronous core, for an ``AsyncEngine``.
    """
    # SQLAlchemy has an event before a connection is closed and none after it; the dialect, which belongs to
    # this one engine, is where its pools close connections.
    dialect: Any = engine.dialect
    if dialect.driver == "asyncpg":
        dialect.do_close, dialect.do_terminate = _terminate, _terminate_in_time
    dialect.do_close = _completely(dialect.do_close, on_loop=dialect.is_async)
    # Where a dialect has no way of its own to terminate, it closes, and that waits already.
    if type(dialect).do_terminate is not DefaultDialect.do_terminate:
        dialect.do_terminate = _completely(dialect.do_terminate, on_loop=dialect.is_async)


def _completely(close: Close, *, on_loop: bool) -> Close:
    def close_completely(connection: Any) -> None:
        # Outside of SQLAlchemy's greenlet (the garbage collector closes) nothing can be awaited.
        waits = not _for_good.get() and (in_greenlet() or not on_loop)
        line = second_end(connection) if waits else None
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


def _terminate(connection: Any) -> None:
    """Say that we leave, and hang up; a connection that is closed and not cut off has nothing on its way."""
    connection.driver_connection.terminate()


def _terminate_in_time(connection: Any) -> None:
    """Let asyncpg tell the server what was cancelled; before 0.32 it has a minute for that, and here 2 s."""
    driver = connection.driver_connection
    try:
        if in_greenlet() and not driver.is_closed():
            await_only(_async_close_in_time(driver))
    finally:
        driver.terminate()


async def _async_close_in_time(driver: Any) -> None:
    closing = asyncio.ensure_future(driver.close(timeout=_TELLING_SECONDS))
    # Whatever it is, hanging up comes next.
    closing.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        await asyncio.wait([closing], timeout=_TELLING_SECONDS)
    finally:
        closing.cancel()


def _end_of_line(line: socket.socket) -> None:
    """Wait until the other side has hung up."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    line.setblocking(False)
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
    line.setblocking(False)
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
