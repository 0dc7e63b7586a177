"""The thread that keeps one provider current, and does what a rotation asks for afterwards."""

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

            on_rotated: Called in the watching thread after each adoption.  Must not raise.

            now: Seconds on a clock that never goes back.
        """
        self._provider = provider
        self._on_rotated = on_rotated
        self._now = now
        # Flags, not a queue: ten hints while the thread is busy are one reason to look again.  They are set
        # before the event and cleared before the work, so none is lost.
        self._wake = threading.Event()
        self._look_due = False
        self._rotated = False
        self._stamp = ""
        self._stopping = False
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

    def look_now(self) -> None:
        """Read the source now instead of at the end of the interval; a hint, cheap to repeat."""
        self._look_due = True
        self._wake.set()

    def stop(self, *, timeout_seconds: float = 1.0) -> None:
        """Stop watching; work under way is waited for, but no longer than *timeout_seconds*."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds)

    def _after_fork(self) -> Callable[[], None] | None:
        # The event may have been locked by a thread that exists in the parent only.
        self._wake = threading.Event()
        return self.start if self._thread is not None and not self._stopping else None

    def _note_rotation(self, credentials: Credentials) -> None:
        # A new token of the same stamp leaves every connection in good standing.
        if credentials.stamp != self._stamp:
            self._stamp = credentials.stamp
            self._rotated = True
            self._wake.set()

    def _run(self) -> None:
        # The first read was the manager's: waiting comes first.
        due_at = self._now() + self._provider.next_wait()
        while True:
            self._wake.wait(max(0.0, due_at - self._now()))
            self._wake.clear()
            if self._stopping:
                return
            if self._rotated:
                self._rotated = False
                self._on_rotated()
            if self._look_due or self._now() >= due_at:
                self._look_due = False
                due_at = self._now() + self._provider.tick()
