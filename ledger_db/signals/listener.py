"""
How does a service hear of a rotation before it would have polled?

    announced  ->  the secret is one of ours?  ->  its server looks soon, and reads Secrets Manager itself
    lost       ->  subscribe again, jittered   ->  every server looks: something may have been missed

An announcement is a hint.  Nothing depends on it: without it, or without Redis, polling finds the rotation.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ledger_db.answers.announcement import parse
from ledger_db.answers.login_errors import judge
from ledger_db.answers.reason import Verdict
from ledger_db.backoff import Backoff, equal_jitter
from ledger_db.connections.server import Follower
from ledger_db.errors import Retryable
from ledger_db.event_log import EventLog
from ledger_db.forking import at_fork
from ledger_db.redaction import describe
from ledger_db.signals.hints import Distrusted, Hints

log: EventLog = EventLog(__name__)

# An idle connection is asked for a sign of life this often: a firewall that forgets it says nothing.
_PING_SECONDS = 20.0
_RETRY = Backoff(first_seconds=0.2, most_seconds=30.0)
# A user that may not subscribe will not be allowed to in a second either.
_FORBIDDEN_RETRY_SECONDS = 300.0
# Long enough for a look to be allowed again.
_DISTRUST_SECONDS = 600.0
# A connection that lasted this long was a good one: its loss starts a new series of attempts.
_STEADY_SECONDS = 10.0


class Channel(Protocol):
    """One subscription; `Subscription` has the words."""

    def open(self) -> None:
        """Connect and subscribe."""
        ...

    def read(self, timeout_seconds: float) -> list[Any] | None:
        """Return the next frame, None if none came in time."""
        ...

    def ping(self) -> None:
        """Ask for a frame."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...

    def hang_up(self) -> None:
        """Make a `read` in another thread fail."""
        ...


class SignalListener:
    """
    A thread that listens, for synchronous and asynchronous managers alike.

    It never raises and never keeps a process from ending.
    """

    def __init__(
        self,
        subscribe: Callable[[], Channel],
        servers: Sequence[Follower],
        *,
        spread_seconds: float = 0.0,
        now: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
    ) -> None:
        """
        Listen, from `start` on.

        Args:
            subscribe: Makes a subscription that is not open yet.

            servers: Who may be meant.

            spread_seconds: The most that is waited before a look; see `Hints`.

            now: Seconds on a clock that never goes back.

            spread: Draws the jitter, in [0, 1).
        """
        self._subscribe = subscribe
        self._servers = tuple(servers)
        # For good: what was announced falsely is remembered, whoever cuts the connection off.
        self._hints = Hints(self._servers, spread_seconds=spread_seconds, spread=spread)
        self._now = now
        self._spread = spread
        self._stopping = threading.Event()
        self._channel: Channel | None = None
        # When the present or the last subscription began; None before the first.
        self._listening_since: float | None = None
        self._thread: threading.Thread | None = None
        at_fork(in_child=self.after_fork)

    def start(self) -> None:
        """Listen from now on."""
        self._thread = threading.Thread(target=self._run, name="ledger_db-signals", daemon=True)
        self._thread.start()

    def stop(self, *, timeout_seconds: float = 1.0) -> None:
        """Stop listening; a login under way is waited for, but no longer than *timeout_seconds*."""
        # In this order: a thread that connects just after the hang-up then sees that it is to stop.
        self._stopping.set()
        channel = self._channel
        if channel is not None:
            channel.hang_up()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds)

    def after_fork(self) -> Callable[[], None] | None:
        """Forget the connection in a child process; return what listens again, on one of its own."""
        goes_on = self._thread is not None and not self._stopping.is_set()
        # None of the parent's threads is here, and who was stopped stays so, in a child of this child too.
        self._thread = None
        # The event may have been locked by a thread that exists in the parent only.
        self._stopping = threading.Event()
        inherited, self._channel = self._channel, None
        self._listening_since = None
        if inherited is not None:
            inherited.close()
        return self.start if goes_on else None

    def _run(self) -> None:
        for pause_seconds in self._rounds():
            if self._stopping.wait(pause_seconds):
                return

    def _rounds(self) -> Iterator[float]:
        """Listen until the connection is lost, and yield how long to pause before the next attempt."""
        failures = 0
        while not self._stopping.is_set():
            before = self._listening_since
            try:
                self._listen()
            except Distrusted as error:
                yield self._note_distrust(error)
            except Exception as error:  # noqa: BLE001 - nothing in here may ever reach the application
                if self._stopping.is_set():
                    return
                since = self._listening_since
                was_steady = since is not None and since != before and self._now() - since >= _STEADY_SECONDS
                failures = 1 if was_steady else failures + 1
                yield self._note_loss(error, failures)

    def _listen(self) -> None:
        """Subscribe, and hear what is announced until somebody hangs up."""
        hints = self._hints
        hints.forget()
        channel = self._channel = self._subscribe()
        try:
            channel.open()
            is_first, self._listening_since = self._listening_since is None, self._now()
            log.info("signals.listening")
            if not is_first:
                # Redis keeps nothing for a subscriber that is away.
                hints.look_everywhere(self._now())
            with self._subscribed():
                self._read(channel)
        finally:
            channel.close()

    @contextmanager
    def _subscribed(self) -> Iterator[None]:
        for server in self._servers:
            server.note_subscription(is_open=True)
        try:
            yield
        finally:
            for server in self._servers:
                server.note_subscription(is_open=False)

    def _read(self, channel: Channel) -> None:
        hints = self._hints
        ping_at, is_asked = self._now() + _PING_SECONDS, False
        while not self._stopping.is_set():
            due_at = hints.next_at()
            until = ping_at if due_at is None else min(ping_at, due_at)
            frame = channel.read(max(0.0, until - self._now()))
            if frame is not None:
                # Whatever it says, the server is alive.
                ping_at, is_asked = self._now() + _PING_SECONDS, False
                self._hear(frame)
            elif self._now() >= ping_at:
                if is_asked:
                    raise TimeoutError(f"no sign of life for {2 * _PING_SECONDS:.0f} s")
                channel.ping()
                ping_at, is_asked = self._now() + _PING_SECONDS, True
            hints.act(self._now())

    def _hear(self, frame: list[Any]) -> None:
        if frame[0] != b"message":
            return
        now = self._now()
        self._hints.count(now)
        announcement = parse(frame[2])
        if announcement is None or not self._hints.take(announcement, now):
            # The channel is anybody's who may publish: none of what it says is worth a log line.
            log.debug("signals.ignored", bytes=len(frame[2]))
            return
        log.debug(
            "signals.heard",
            secret=announcement.secret_id,
            version=announcement.version_id,
            strategy=announcement.strategy,
        )

    def _note_distrust(self, error: Distrusted) -> float:
        # Not listening at all: a flood is then nobody's work, and polling is as frequent as without Redis.
        log.warning("signals.distrusted", cause=str(error), pause_seconds=_DISTRUST_SECONDS)
        return equal_jitter(_DISTRUST_SECONDS, self._spread())

    def _note_loss(self, error: Exception, failures: int) -> float:
        # Once a series: polling goes on, so the tenth attempt is no news.
        log.log(
            logging.WARNING if failures == 1 else logging.DEBUG,
            "signals.lost",
            failures=failures,
            cause=describe(error),
        )
        if judge(error) is Verdict.PERMANENT and not isinstance(error, Retryable):
            return equal_jitter(_FORBIDDEN_RETRY_SECONDS, self._spread())
        # Full jitter, but never nothing: a server that hangs up at once must not be called in a circle.
        return 0.05 + _RETRY.after(failures) * self._spread()
