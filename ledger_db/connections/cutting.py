"""
How is a connection ended whose event loop has ended before it, or does something else?

Nothing can be awaited then, and asyncio refuses most of what it is asked.  The line is cut below both: the
server hears an end of the line, and ends the session.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def cut(line: Any, home: asyncio.AbstractEventLoop, drop: Callable[[], object]) -> None:
    """
    End a connection, from any thread.

    Args:
        line: What has its descriptor.

        home: The loop that it was opened on.

        drop: Makes its driver let go; called on the loop if that is still there.
    """
    # A second descriptor is shut down: should the first be closed meanwhile, its number may be another's.
    with suppress(Exception), socket.socket(fileno=os.dup(line.fileno())) as second:
        second.shutdown(socket.SHUT_RDWR)
    if home.is_closed():
        with suppress(Exception):
            drop()
    else:
        with suppress(RuntimeError):
            home.call_soon_threadsafe(drop)


def drop_transport(transport: asyncio.BaseTransport) -> None:
    """Close the descriptor of a transport that was aborted, if its loop is not there any more to do so."""
    inner: Any = getattr(getattr(transport, "_ssl_protocol", None), "_transport", transport)
    if getattr(inner, "_sock", None) is not None:
        # asyncio's own last step, which it would take in the loop's next turn; without it the garbage
        # collector complains of a connection that nobody closed.
        with suppress(Exception):
            inner._call_connection_lost(None)  # noqa: SLF001 - there is no other way to it
