"""The border between the watching threads and the event loop that an async engine belongs to."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from ledger_db.errors import ServerUnreachable

T = TypeVar("T")


class Loop:
    """
    Remembers an event loop and runs coroutines on it from another thread.

    An async engine may be touched only by the loop that its connections belong to.  This is the one place
    where a thread asks for that.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def remember(self) -> None:
        """Take the loop that is running here, if one is."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def forget(self) -> None:
        """Run nothing any more."""
        self._loop = None

    def run(self, coroutine: Coroutine[Any, Any, T], *, timeout_seconds: float) -> T:
        """
        Run *coroutine* over there, and wait for it here.

        Raises:
            ServerUnreachable: There is no loop any more, or it did not finish in time.
        """
        loop = self._loop
        if loop is None or not loop.is_running():
            coroutine.close()
            raise ServerUnreachable(
                "the event loop of the async engine is not running; nothing can be done on it"
            )
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result(timeout_seconds)
        except FutureTimeoutError as error:
            future.cancel()
            raise ServerUnreachable(
                f"the event loop of the async engine did not finish within {timeout_seconds:.1f} s; "
                "it may be blocked by synchronous work"
            ) from error
