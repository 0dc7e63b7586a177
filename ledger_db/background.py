"""
What happens beside those who wait for it: one call in a thread of its own, and news for everybody.

A future always gets an answer: whoever waits for one may have no other end to its waiting.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from ledger_db.errors import Retryable

T = TypeVar("T")


class NoThreadLeft(Retryable):
    """No thread could be started; what should be done in it was not begun."""


class News:
    """
    Wakes everybody who waits, in threads and on event loops, when something has happened.

    Nobody misses anything who takes `next` before looking, and waits for it after having seen nothing new.
    """

    def __init__(self) -> None:
        # Guards the exchange: of two who tell at once, both would answer the same future.
        self._telling = threading.Lock()
        self._next: Future[None] = Future()

    @property
    def next(self) -> "Future[None]":
        """Done when something has happened after now."""
        return self._next

    def tell(self) -> None:
        """Say that something has happened."""
        with self._telling:
            told, self._next = self._next, Future()
        told.set_result(None)


def in_thread(call: Callable[[], T], *, name: str) -> "Future[T]":
    """
    Begin *call*, and return what it will have returned or raised.

    The thread is a daemon: a call that never returns does not keep the process from ending.

    Args:
        call: What to do.

        name: The thread's.

    Returns:
        A future that nobody who stops waiting can cancel for the others.  Where no thread can be started it
        has a `NoThreadLeft` at once.
    """
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()
    try:
        threading.Thread(target=fill, args=(answer, call), name=name, daemon=True).start()
    except Exception as error:  # noqa: BLE001 - RuntimeError or MemoryError; the waiting ends either way
        refusal = NoThreadLeft(
            f"no thread is left for {name} ({error}); look at the process's limits of threads and memory"
        )
        refusal.__cause__ = error
        answer.set_exception(refusal)
    return answer


async def async_in_thread(call: Callable[[], T], *, name: str) -> T:
    """
    Same as `in_thread`, and return what *call* returned; a task that is cancelled stops waiting.

    Not in the event loop's own threads: all of them may be busy, and the loop waits for them when it ends.
    """
    return await asyncio.wrap_future(in_thread(call, name=name))


async def async_wait(answer: "Future[Any]", *, timeout_seconds: float) -> None:
    """
    Wait on an event loop until *answer* is done, or the time has passed.

    Not through `asyncio.wrap_future`: of a copy that nobody waits for any more asyncio complains that its
    exception was never retrieved.
    """
    loop, woken = asyncio.get_running_loop(), asyncio.Event()

    def wake(answer: "Future[Any]") -> None:
        # The loop may have ended meanwhile, and nobody waits there any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(woken.set)

    answer.add_done_callback(wake)
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            await woken.wait()


def fill(answer: "Future[T]", call: Callable[[], T]) -> None:
    """Do *call* here, and tell *answer* what came of it, whatever that is."""
    try:
        answer.set_result(call())
    except BaseException as error:  # noqa: BLE001 - raised again in everybody who waits for it
        answer.set_exception(error)
