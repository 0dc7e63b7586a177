"""
Reading a source on behalf of many at once.

When a password has changed, every login of a process is refused in the same moment.  All of them together
cause one read, and a further one only after a floor that grows while nothing new comes.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from ledger_db.credentials.model import Credentials, CredentialSource, Stage
from ledger_db.credentials.schedule import Schedule

Answer = Credentials | None


@dataclass(frozen=True, slots=True)
class _Read:
    """One read of one label: when it began, how many before it were in vain, what it brings."""

    began_at: float
    fruitless: int
    answer: "Future[Answer]"


class SharedReads:
    """
    Reads a source single-flight, with a floor between reads.

    Every read runs in a thread of its own, so that a caller with little patience can leave it while a slow
    Secrets Manager is still thinking, and the next caller finds the answer.
    """

    def __init__(
        self, source: CredentialSource, schedule: Schedule, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Share reads of *source*.

        Args:
            source: What is read.

            schedule: Gives the floor.

            now: Seconds on a clock that never goes back.
        """
        self._source = source
        self._schedule = schedule
        self._now = now

        # Guards _reads.  Held only to decide whether to read; never across a read.
        self._lock = threading.Lock()
        self._reads: dict[Stage, _Read] = {}

    def read(self, stage: Stage) -> "Future[Answer]":
        """
        Return what the source says about *stage*, possibly as of a moment ago, or will have said.

        A thread waits for the future as it is, an event loop through `asyncio.wrap_future`; neither needs
        a thread to wait in, which may not be free in the very moment when all logins are refused.
        """
        answer, begin = self._join(stage)
        if begin:
            threading.Thread(
                target=_fill, args=(answer, self._source, stage), name="ledger_db-read", daemon=True
            ).start()
        return answer

    def forget(self) -> None:
        """Something was adopted: the floor starts again, and no answer from before it counts."""
        with self._lock:
            self._reads = {}

    def _join(self, stage: Stage) -> tuple["Future[Answer]", bool]:
        """Decide whether the last read will do.  True: the caller must begin the one returned."""
        now = self._now()
        with self._lock:
            last = self._reads.get(stage)
            if last is not None and not last.answer.done():
                return last.answer, False
            fruitless = 0 if last is None else last.fruitless + 1
            if last is not None and now - last.began_at < self._schedule.floor(last.fruitless):
                return last.answer, False
            this = _Read(began_at=now, fruitless=fruitless, answer=Future())
            # Running from the start: a task that is cancelled while it waits must not cancel it for others.
            this.answer.set_running_or_notify_cancel()
            self._reads[stage] = this
            return this.answer, True


def _fill(answer: "Future[Answer]", source: CredentialSource, stage: Stage) -> None:
    try:
        answer.set_result(source.fetch(stage))
    except BaseException as error:  # noqa: BLE001 - raised again in every caller that waits for it
        answer.set_exception(error)
