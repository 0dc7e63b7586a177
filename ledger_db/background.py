"""
One call in a thread of its own, and a future that says what became of it.

A future always gets an answer: whoever waits for one may have no other end to its waiting.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ledger_db.errors import Retryable

T = TypeVar("T")


def in_thread(call: Callable[[], T], *, name: str) -> "Future[T]":
    """
    Begin *call*, and return what it will have returned or raised.

    The thread is a daemon: a call that never returns does not keep the process from ending.

    Args:
        call: What to do.

        name: The thread's.

    Returns:
        A future that nobody who stops waiting can cancel for the others.  Where no thread can be started it
        has a `Retryable` at once.
    """
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()
    try:
        threading.Thread(target=fill, args=(answer, call), name=name, daemon=True).start()
    except Exception as error:  # noqa: BLE001 - RuntimeError or MemoryError; the waiting ends either way
        refusal = Retryable(
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


def fill(answer: "Future[T]", call: Callable[[], T]) -> None:
    """Do *call* here, and tell *answer* what came of it, whatever that is."""
    try:
        answer.set_result(call())
    except BaseException as error:  # noqa: BLE001 - raised again in everybody who waits for it
        answer.set_exception(error)
