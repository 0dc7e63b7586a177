"""The thread that keeps one provider current, and does what a rotation asks for afterwards."""

import math
import threading
import time
from collections.abc import Callable

from ledger_db.credentials.model import Credentials
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.forking import at_fork


class CredentialWatcher:
    """
    Polls a provider; calls back after each adoption, whoever adopted.

    An adoption may happen on an event loop or within a request.  What follows it (renewing connections) takes
    time, so it happens here.
    """

    def __init__(
        self,
        provider: CredentialProvider,
        on_rotated: Callable[[], None],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Watch *provider*, from `start` on.

        Args:
            provider: What is kept current.

            on_rotated: Called in the watching thread after each adoption, and again while connections go
                on becoming stale.  Must not raise.

            now: Seconds on a clock that never goes back.
        """
        self._provider = provider
        self._on_rotated = on_rotated
        self._now = now
        # Flags, not a queue: ten hints while the thread is busy are one reason to look again.  They are set
        # before the event and cleared before the work, so none is lost.
        self._wake = threading.Event()
        self._look_due = False
        self._announced = False
        self._rotated = False
        # The stamp that was current when somebody was in a hurry; None if nobody is.
        self._urgent_from: str | None = None
        self._stamp = ""
        # Who is not this thread any more has been stopped: it may still be reading when the next one starts.
        self._thread: threading.Thread | None = None
        provider.subscribe(self._note_rotation)
        at_fork(in_child=self._after_fork)

    def start(self) -> None:
        """Watch from now on; the provider has been loaded."""
        self._stamp = self._provider.stamp
        # Daemon: a watcher waiting for a slow Secrets Manager must not keep a process from ending.
        self._thread = threading.Thread(
            target=self._run, name=f"ledger_db-watch:{self._provider.status.source}", daemon=True
        )
        self._thread.start()

    def look_now(self, *, urgent: bool = False, announced: bool = False) -> None:
        """
        Read the source now instead of at the end of the interval; a hint, cheap to repeat.

        Args:
            urgent: Whether what is found makes every older connection stale at once.

            announced: Whether the subscription said so.
        """
        if urgent:
            self._urgent_from = self._provider.stamp
            # Somebody may have let everything be stale just now.
            self._rotated = True
        self._announced = self._announced or announced
        self._look_due = True
        self._wake.set()

    def note_subscription(self, *, is_open: bool) -> None:
        """Say whether announcements are heard; if they are no longer, polling is as frequent as before."""
        self._provider.reliance.note_subscription(is_open=is_open)
        self._wake.set()

    def stop(self, *, timeout_seconds: float = 1.0) -> None:
        """Stop watching; work under way is waited for, but no longer than *timeout_seconds*."""
        thread, self._thread = self._thread, None
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_seconds)

    def _after_fork(self) -> Callable[[], None] | None:
        # The event may have been locked by a thread that exists in the parent only.
        self._wake = threading.Event()
        return self.start if self._thread is not None else None

    def _note_rotation(self, credentials: Credentials) -> None:
        # A new token of the same stamp leaves every connection in good standing.
        if credentials.stamp != self._stamp:
            self._stamp = credentials.stamp
            self._rotated = True
            self._wake.set()

    def _run(self) -> None:
        # The first read was the manager's: waiting comes first.
        due_at, renew_at = self._now() + self._provider.next_wait(), math.inf
        while True:
            is_woken = self._wake.wait(max(0.0, min(due_at, renew_at) - self._now()))
            if self._thread is not threading.current_thread():
                return
            self._wake.clear()
            if self._rotated or self._now() >= renew_at:
                self._rotated = False
                renew_at = self._renew()
            if is_woken:
                # Whatever it is: what a long interval relied on may be over.
                due_at = min(due_at, self._now() + self._provider.next_wait())
            if self._look_due or self._now() >= due_at:
                # In this order: a look that tries what it has found takes time of its own.
                wait = self._look()
                due_at = self._now() + wait

    def _renew(self) -> float:
        """Do what an adoption asks for, and return when to do it again."""
        # Asked before: what becomes stale meanwhile is found the next time.
        pause = self._provider.renewal_pause()
        self._on_rotated()
        return math.inf if pause is None else self._now() + pause

    def _look(self) -> float:
        announced, urgent_from = self._announced, self._urgent_from
        self._look_due, self._announced, self._urgent_from = False, False, None
        wait = self._provider.tick(announced=announced)
        # Only what is new is believed to be urgent, whoever says so.
        if urgent_from is not None and urgent_from != self._provider.stamp:
            self._provider.hurry()
            self._rotated = True
            self._wake.set()
        elif self._provider.status.problem is not None:
            # It could not be read or tried: the next look will be as urgent.
            self._urgent_from = urgent_from
        return wait
