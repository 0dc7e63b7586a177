"""
Which event loop do asynchronous connections belong to: one loop after another, never two at once?

Lent:      the first who asks on a loop takes it; what an ended loop has left is let go of then.
Refused:   another loop has not ended, and still needs what it has.
Ends:      a loop that is shut down in good order says goodbye to the server before.
Bridged:   this is the one place where a thread asks for something to be done on a loop.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import CancelledError, TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from ledger_db.errors import ConfigurationError, ServerUnreachable
from ledger_db.event_log import EventLog
from ledger_db.redaction import describe

log: EventLog = EventLog(__name__)

T = TypeVar("T")

_GOODBYE_SECONDS = 5.0


class Tenant(Protocol):
    """What keeps connections on a loop."""

    async def leave(self) -> None:
        """Close what is idle, on the loop where it was opened."""
        ...

    def abandon(self) -> None:
        """Let go, on no loop, of what is idle, and of all that loops have left that are no more."""
        ...

    def after_fork(self) -> None:
        """Begin anew in a child, and never touch again what was opened before: it is the parent's."""
        ...


class Loop:
    """
    Remembers an event loop and runs coroutines on it from another thread.

    Connections may be touched only by the loop that they were opened on.  One that has ended is no reason to
    refuse the next; nothing of it is awaited or used again.
    """

    def __init__(self, *, keeps_connections: bool = True, or_else: str = "") -> None:
        """
        Know no loop yet.

        Args:
            keeps_connections: Whether connections outlive the work that they were opened for.  If they do
                not, a second loop takes nothing over from the first, and may come next.

            or_else: What else somebody can do who is refused.
        """
        self._keeps_connections = keeps_connections
        self._or_else = or_else
        self._tenant: Tenant | None = None
        # Guards the move from one loop to the next: two may come at once.
        self._moving = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_left = False
        self._at_its_end: AsyncGenerator[None] | None = None

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

    def let_to(self, tenant: Tenant) -> None:
        """Tell *tenant* when a loop ends, or has ended."""
        self._tenant = tenant

    def claim(self) -> None:
        """
        Take the loop that runs here; called wherever a connection is lent.

        Raises:
            ConfigurationError: There is another one, which has not ended, where connections are kept.
        """
        running = asyncio.get_running_loop()
        if running is not self._loop:
            self._move_to(running)

    def forget(self) -> None:
        """Run nothing any more."""
        self._loop, self._has_left = None, False
        at_its_end, self._at_its_end = self._at_its_end, None
        if at_its_end is not None:
            # It has nothing to await any more, so it needs no loop to end on.
            with suppress(StopIteration, RuntimeError):
                at_its_end.aclose().send(None)

    def after_fork(self) -> None:
        """Forget the parent's loop in a child, and what is connected there."""
        self._moving = threading.Lock()
        self.forget()
        if self._tenant is not None:
            self._tenant.after_fork()

    def close(self) -> None:
        """Let go of all that is idle, from a thread that is not the loop's; may be called again."""
        if self._tenant is not None:
            if self.is_running:
                try:
                    self.run(self._tenant.leave(), timeout_seconds=_GOODBYE_SECONDS)
                except Exception as error:  # noqa: BLE001 - what follows needs no loop
                    log.debug("loop.not_left", cause=describe(error))
            self._tenant.abandon()
        self.forget()

    async def async_close(self) -> None:
        """Same as `close`, if the loop is the one that runs here; does nothing if it is not."""
        if self.is_here:
            await self._leave()
            self.forget()

    def run(self, coroutine: Coroutine[Any, Any, T], *, timeout_seconds: float) -> T:
        """
        Run *coroutine* over there, and wait for it here.

        Raises:
            ServerUnreachable: There is no loop any more, or it did not finish in time.
        """
        return run_on(self._loop, coroutine, timeout_seconds=timeout_seconds)

    def _move_to(self, running: asyncio.AbstractEventLoop) -> None:
        with self._moving:
            before = self._loop
            if self._keeps_connections and before not in {None, running}:
                self._refuse_unless_over()
                if self._tenant is not None:
                    self._tenant.abandon()
                self.forget()
            if self._keeps_connections and self._loop is None:
                self._at_its_end = self._leave_at_the_end_of(running)
                # Begun by hand, because nothing in here may wait: asyncio then knows it, and closes it when
                # the loop is shut down.
                with suppress(StopIteration):
                    self._at_its_end.__anext__().send(None)
            self._loop = running

    def _refuse_unless_over(self) -> None:
        # One that is not running now may run again: it is over when it is closed.
        if self._loop is None or self._loop.is_closed() or self._has_left:
            return
        raise ConfigurationError(
            "this manager's asynchronous half belongs to another event loop, where its connections are, and "
            "which has not ended; close that one first, as asyncio.run does, or open a manager of its own "
            f"in each loop, with 'async with'{self._or_else}"
        )

    async def _leave_at_the_end_of(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            if self._loop is loop:
                await self._leave()

    async def _leave(self) -> None:
        self._has_left = True
        if self._tenant is None:
            return
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._tenant.leave()
        except Exception as error:  # noqa: BLE001 - a server that is away must not stop a loop from ending
            log.debug("loop.not_left", cause=describe(error))
            self._tenant.abandon()


def run_on(
    loop: asyncio.AbstractEventLoop | None, coroutine: Coroutine[Any, Any, T], *, timeout_seconds: float
) -> T:
    """
    Run *coroutine* on *loop*, which is another thread's, and wait for it here.

    Raises:
        ServerUnreachable: There is no loop any more, or it did not finish in time.
    """
    if loop is None or not loop.is_running():
        coroutine.close()
        raise ServerUnreachable(
            "the event loop of the async engine is not running; nothing can be done on it"
        )
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError as error:
        coroutine.close()
        raise ServerUnreachable("the event loop of the async engine has just ended") from error
    try:
        return future.result(timeout_seconds)
    except CancelledError as error:
        raise ServerUnreachable("the event loop of the async engine has just ended") from error
    except FutureTimeoutError as error:
        if future.done():
            raise  # a timeout of the coroutine's own, which has the same class
        future.cancel()
        raise ServerUnreachable(
            f"the event loop of the async engine did not finish within {timeout_seconds:.1f} s; "
            "it may be blocked by synchronous work"
        ) from error
