"""The border between the watching threads and the event loop that an async engine belongs to."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from ledger_db.errors import ConfigurationError, ServerUnreachable

T = TypeVar("T")


class Loop:
    """
    Remembers an event loop and runs coroutines on it from another thread.

    An async engine may be touched only by the loop that its connections belong to.  This is the one place
    where a thread asks for that.
    """

    def __init__(self, *, keeps_connections: bool = True) -> None:
        """
        Know no loop yet.

        Args:
            keeps_connections: Whether connections outlive the work that they were opened for.  If they do
                not, a second loop takes nothing over from the first, and may come next.
        """
        self._keeps_connections = keeps_connections
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a loop to run something on."""
        return self._loop is not None and self._loop.is_running()

    @property
    def is_here(self) -> bool:
        """Whether the loop is the one that runs in this thread."""
        try:
            return self._loop is not None and asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def claim(self) -> None:
        """
        Take the loop that runs here, the first time; called where a connection is about to be opened.

        Raises:
            ConfigurationError: It is another one than before, where connections are kept.
        """
        running = asyncio.get_running_loop()
        if self._loop is None or not self._keeps_connections:
            self._loop = running
        elif self._loop is not running:
            raise ConfigurationError(
                "this manager's asynchronous half belongs to another event loop, where its connections are; "
                "open a manager of its own in each loop, with 'async with', or set LEDGER_DB_POOL=none"
            )

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
            if future.done():
                raise  # a timeout of the coroutine's own, which has the same class
            future.cancel()
            raise ServerUnreachable(
                f"the event loop of the async engine did not finish within {timeout_seconds:.1f} s; "
                "it may be blocked by synchronous work"
            ) from error
