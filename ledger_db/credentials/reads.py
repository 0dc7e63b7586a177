"""
Reading a source on behalf of many at once.

When a password has changed, every login of a process is refused in the same moment.  All of them together
cause one read, and a further one only after a floor that grows while nothing new comes.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ledger_db.background import NoThreadLeft, in_thread
from ledger_db.credentials.model import Credentials, CredentialSource, Stage
from ledger_db.credentials.schedule import Schedule
from ledger_db.errors import ConfigurationError

if TYPE_CHECKING:
    from concurrent.futures import Future

Answer = Credentials | None


def ask(source: CredentialSource, stage: Stage) -> Answer:
    """
    Return what *source*, which may be the application's own, has for *stage*.

    Raises:
        ConfigurationError: It has no AWSCURRENT, or has answered with something else than credentials.

        Exception: Whatever else it raises.
    """
    fresh: object = source.fetch(stage)
    if isinstance(fresh, Credentials) or (fresh is None and stage != "AWSCURRENT"):
        return fresh
    if fresh is None:
        raise ConfigurationError(f"{source.name} has no version labelled AWSCURRENT; give it one")
    raise ConfigurationError(
        f"{source.name} has answered with a {type(fresh).__name__}; fetch() returns Credentials, or None for "
        "a label that nothing carries"
    )


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
        self,
        fetch: Callable[[Stage], Answer],
        schedule: Schedule,
        *,
        on_unread: Callable[[Stage, BaseException], object] = lambda stage, error: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Share what *fetch* says.

        Args:
            fetch: Reads the source, and keeps the books of it: however many wait, it is one read.

            schedule: Gives the floor.

            on_unread: Told of a read that could not begin, because no thread could be started.

            now: Seconds on a clock that never goes back.
        """
        self._fetch = fetch
        self._schedule = schedule
        self._on_unread = on_unread
        self._now = now

        # Guards _reads.  Held to decide whether to read and to start the thread that does; never across a
        # read.
        self._lock = threading.Lock()
        self._reads: dict[Stage, _Read] = {}

    def read(self, stage: Stage) -> "Future[Answer]":
        """
        Return what the source says about *stage*, possibly as of a moment ago, or will have said.

        A thread waits for the future as it is, an event loop with `async_wait`; neither needs a thread to
        wait in, which may not be free in the very moment when all logins are refused.
        """
        answer, is_new = self._join_or_begin(stage)
        refusal = answer.exception() if is_new and answer.done() else None
        if isinstance(refusal, NoThreadLeft):
            self._on_unread(stage, refusal)
        return answer

    def _join_or_begin(self, stage: Stage) -> "tuple[Future[Answer], bool]":
        now = self._now()
        with self._lock:
            last = self._reads.get(stage)
            if last is not None and not last.answer.done():
                return last.answer, False
            if last is not None and now - last.began_at < self._schedule.floor(last.fruitless):
                return last.answer, False
            fruitless = 0 if last is None else last.fruitless + 1
            answer = in_thread(partial(self._fetch, stage), name="ledger_db-read")
            self._reads[stage] = _Read(began_at=now, fruitless=fruitless, answer=answer)
            return answer, True

    def why_unread(self, stage: Stage) -> BaseException | None:
        """Return why the last read of *stage* brought nothing, without reading; None if it did not fail."""
        with self._lock:
            last = self._reads.get(stage)
        if last is None:
            return None
        return last.answer.exception() if last.answer.done() else TimeoutError("no answer yet")

    def forget(self) -> None:
        """Something was adopted: the floor starts again, and no answer from before it counts."""
        with self._lock:
            self._reads = {}
