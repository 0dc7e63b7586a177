"""
Where do synchronous sessions end, so that nobody can interrupt them?

A request can be cancelled at every ``await``, by a server that shuts down or by a timeout in a middleware.
The end of a session must not be: half of it is a connection that never comes back.  So it is a task of its
own, which nobody cancels, and the request only waits for it.
"""

import asyncio
import logging
from collections.abc import Callable

from anyio import CapacityLimiter, to_thread
from sqlalchemy.orm import Session

from ledger_db.fastapi.busy import Place
from ledger_db.redaction import describe

log: logging.Logger = logging.getLogger(__name__)


class Finishers:
    """
    The threads in which sessions end, and the tasks that wait for them.

    Args:
        threads: How many sessions may be ending at the same time; the others wait.
    """

    def __init__(self, threads: int) -> None:
        self._limiter = CapacityLimiter(threads)
        # An event loop keeps only weak references.
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """How many sessions are ending now."""
        return len(self._tasks)

    async def run(self, work: Callable[[Session], None], session: Session, place: Place) -> None:
        """
        Do *work* with *session* in a thread, even if the caller is cancelled meanwhile.

        Args:
            work: Gives the connection back, whatever happens.

            session: Whose connection it is.

            place: Given back when *work* is done: not before there is a connection for the next one.

        Raises:
            Exception: What *work* raises.
        """
        task = asyncio.create_task(to_thread.run_sync(work, session, limiter=self._limiter))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        place.keep_until(task)
        try:
            await asyncio.wait((task,))
            task.result()
        except asyncio.CancelledError:
            task.add_done_callback(_note_unheard)
            raise
        finally:
            # Else an error and its traceback hold each other, and the session with them.
            del task

    async def drain(self, timeout_seconds: float) -> None:
        """Wait until no session is ending any more, but not longer than that."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_seconds)


def _note_unheard(task: "asyncio.Task[None]") -> None:
    # Also takes note of the error as asyncio sees it, which would report it as never retrieved.
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.debug("session.end_unheard", extra={"cause": describe(error)})
