"""
Holds the current credentials and keeps them current.

Known:     `current` is one frozen snapshot; reading it takes no lock and never touches the network.
Doubted:   a login was refused: `look` says what else the source has to offer.
Adopted:   only what has logged in becomes current, by compare-and-swap.
Watched:   `tick` polls the source, so that a rotation is followed without any login being refused.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import cast

from ledger_db.background import News
from ledger_db.credentials.model import Credentials, CredentialSource, Stage
from ledger_db.credentials.once_a_minute import OnceAMinute
from ledger_db.credentials.reads import SharedReads, ask
from ledger_db.credentials.reliance import Reliance
from ledger_db.credentials.schedule import Schedule
from ledger_db.credentials.staleness import Staleness
from ledger_db.credentials.trials import Doubt, Probe, Trials
from ledger_db.errors import ManagerClosed, Retryable
from ledger_db.event_log import EventLog
from ledger_db.forking import at_fork
from ledger_db.redaction import describe

log: EventLog = EventLog(__name__)

Subscriber = Callable[[Credentials], None]

_place = attrgetter("host", "port", "database")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderStatus:
    """
    What a health check may say about a provider.  Nothing in it is secret.

    Attributes:
        source: Name of the source.

        version: Version of the current credentials; None before the first read.

        generation: 1 after the first read, one more with each adoption.

        adopted_at: POSIX seconds of the last adoption; None before the first read.

        confirmed_at: POSIX seconds at which the source last answered; None before the first read.

        failures: Reads that failed since then.

        problem: What the last failed read said, or why what was read is not in use; None if all is well.

        permanent: Whether only a person can mend *problem*.
    """

    source: str
    version: str | None = None
    generation: int = 0
    adopted_at: float | None = None
    confirmed_at: float | None = None
    failures: int = 0
    problem: str | None = None
    permanent: bool = False


class CredentialProvider:
    """
    One source, one snapshot, any number of readers in threads and event loops.

    It never logs in: whoever connects does, and says so with `adopt`.
    """

    __module__ = "ledger_db"

    def __init__(
        self,
        source: CredentialSource,
        schedule: Schedule | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        posix_now: Callable[[], float] = time.time,
        spread: Callable[[], float] = random.random,
    ) -> None:
        """
        Provide the credentials of *source*; nothing is read before `load`.

        Args:
            source: Where credentials come from.

            schedule: When to ask again.

            now: Seconds on a clock that never goes back.

            posix_now: POSIX seconds, for what expires.

            spread: Draws the jitter, in [0, 1).
        """
        self._source = source
        self._schedule = schedule or Schedule()
        self._now = now
        self._posix_now = posix_now
        self._spread = spread
        self._subscribers: tuple[Subscriber, ...] = ()
        self._trials = Trials(self._schedule, now=now, spread=spread)
        self._told = OnceAMinute(now=now)
        self._reads = self._new_reads()
        #: Told of each read that has ended, and of each adoption.
        self.news: News = News()
        self._staleness = Staleness(self._schedule.renewal_spread_seconds, now=now)
        #: What is known about announcements; whoever hears them writes it.
        self.reliance: Reliance = Reliance()

        # Guards the swap of _current, _status and _staleness.  Never held across a read of the source, a
        # login or a subscriber: an event loop may be waiting for it.
        self._swap = threading.Lock()
        # Read without a lock.  Replacing one reference is atomic, and what it refers to is frozen.
        self._current: Credentials | None = None
        self._retired = False
        #: The current credentials' stamp: all that a checkout compares, hence a plain attribute.
        self.stamp: str = ""
        self._status = ProviderStatus(source=source.name)
        at_fork(in_child=self.after_fork)

    @property
    def current(self) -> Credentials:
        """The latest snapshot.  Never blocks."""
        current = self._current
        if current is None:
            raise ManagerClosed(f"not opened yet, {self._source.name} is not read; open the manager first")
        return current

    @property
    def status(self) -> ProviderStatus:
        """A snapshot for health checks."""
        return self._status

    @property
    def rotates(self) -> bool:
        """Whether waiting for other credentials makes sense at all."""
        return self._source.rotates

    def load(self) -> Credentials:
        """
        Read the source for the first time, or the first after `revive`; other calls return what is current.

        Raises:
            LedgerDBError: Whatever the source raises.
        """
        if not self.stamp:
            fresh, known = ask(self._source, "AWSCURRENT"), self._current
            self._replace(cast("Credentials", fresh), instead_of=None if known is None else known.version)
        return self.current

    def subscribe(self, subscriber: Subscriber) -> None:
        """
        Call *subscriber* with each new snapshot, after `current` returns it.

        It is called by whoever adopted, possibly on an event loop: it must not block.  What it raises is
        logged and ends nothing.  Two adoptions in quick succession may be told in either order; look at
        `current`.
        """
        self._subscribers = (*self._subscribers, subscriber)

    def probe_with(self, probe: Probe) -> None:
        """Let *probe* log in with what polling found before it is adopted; it raises if that fails."""
        self._trials.probe = probe

    def look(self, stage: Stage, after: str, timeout_seconds: float | None) -> Credentials | None:
        """
        Ask for *stage* and wait; return what it has beyond version *after*, None if nothing in time.

        Says which version disappointed the caller, so that a hundred callers refused at the same moment
        cause one read, not a hundred.  What is returned is not current yet: log in, then `adopt`.
        """
        answer = self.read(stage)
        wait([answer], timeout_seconds)
        return self.found_in(answer, after=after)

    def read(self, stage: Stage) -> "Future[Credentials | None]":
        """Begin to ask for *stage*, or join who asks already; `found_in` says what came of it."""
        return self._reads.read(stage)

    def found_in(self, answer: "Future[Credentials | None]", *, after: str) -> Credentials | None:
        """
        Return what *answer* has beyond version *after*.

        Returns:
            None if that is nothing, if the source refused to say, or if it has not answered yet.
        """
        fresh = answer.result() if answer.done() and not answer.exception() else None
        return fresh if fresh is not None and fresh.version != after else None

    def why_unread(self, stage: Stage) -> BaseException | None:
        """Return why *stage* could not be read the last time, for who has looked; None if it could."""
        return self._reads.why_unread(stage)

    def adopt(self, credentials: Credentials, *, instead_of: str) -> bool:
        """
        Make *credentials*, which have just logged in, the current ones.

        Compare-and-swap: nothing happens, and False is returned, unless *instead_of* is still the current
        version.  Without it a slow login with older credentials could undo a newer adoption.
        """
        adopted = self._replace(credentials, instead_of=instead_of)
        if adopted:
            self.reliance.note_adoption(announced=False)
            # It was refused a moment ago, and may still be AWSCURRENT: polling must not hurry back to it.
            self._trials.note_failure(instead_of, "the server refused it")
        return adopted

    def tick(self, *, announced: bool = False) -> float:
        """
        Do one round of watching and return the seconds to wait before the next.  Never raises.

        Args:
            announced: Whether the round is due to an announcement.
        """
        try:
            fresh = self._fetch("AWSCURRENT")
        except BaseException:  # noqa: BLE001 - a source of the user's own may raise anything; noted already
            return self._schedule.after_failure(self._status.failures, self._spread())
        try:
            return self._consider(cast("Credentials", fresh), announced=announced)
        except BaseException as error:  # noqa: BLE001 - this thread has to go on, whatever it was
            self._note_failed("AWSCURRENT", error)
            return self._schedule.after_failure(self._status.failures, self._spread())

    def next_wait(self) -> float:
        """Return the seconds until the source should be read again, all being well."""
        expires_at = self.current.expires_at
        lifetime = None if expires_at is None else expires_at - self._posix_now()
        return self._schedule.after_success(lifetime, self._spread(), doublings=self.reliance.doublings)

    def draw_share(self) -> float:
        """Return the share of a connection that logs in now; see `Staleness`."""
        return self._spread()

    def is_stale(self, stamp: str, share: float) -> bool:
        """Return whether a connection with *stamp* and *share* is to be replaced when nobody uses it."""
        return stamp != self.stamp and self._staleness.has_begun(stamp, share)

    def hurry(self) -> None:
        """Make every connection stale whose stamp is not the current one, without any spread."""
        with self._swap:
            self._staleness.hurry()

    def renewal_pause(self) -> float | None:
        """Return the seconds until idle connections should be looked through again; None for never."""
        return self._staleness.pause_seconds(self._spread())

    def retire(self) -> None:
        """Make every connection stale for good: what is borrowed is closed when it is returned."""
        with self._swap:
            self._retired, self.stamp = True, ""
            self._staleness.hurry()

    def revive(self) -> None:
        """Undo `retire`; no connection is in good standing before `load` has said what is current now."""
        with self._swap:
            self._retired, self._trials.doubt = False, None
        self._reads.forget()

    def after_fork(self) -> None:
        """Forget what must not be shared with the parent process: locks, reads under way, sockets."""
        self._swap = threading.Lock()
        self._reads = self._new_reads()
        self.news = News()
        self.reliance = Reliance()
        getattr(self._source, "forget_client", lambda: None)()

    def _new_reads(self) -> SharedReads:
        return SharedReads(self._fetch, self._schedule, on_unread=self._note_failed, now=self._now)

    def _fetch(self, stage: Stage) -> Credentials | None:
        """Read the source, and keep the books of it here, where it is one read for however many wait."""
        try:
            fresh = ask(self._source, stage)
        except BaseException as error:
            self._note_failed(stage, error)
            raise
        if stage == "AWSCURRENT":
            self._note_answered()
        self.news.tell()
        return fresh

    def _consider(self, fresh: Credentials, *, announced: bool) -> float:
        """Adopt what polling found, if the server takes it, and return when to ask again."""
        current, before = self.current, self._trials.doubt
        # A new token for the same sessions opens no connection, so there is nothing to try it on.
        if fresh.stamp != current.stamp and self._trials.fails(fresh):
            # Of what it is too early to try again, everything was told.
            if self._trials.doubt is not before:
                self._tell_doubt()
            return self._trials.wait_seconds
        self._trials.doubt = None
        self._note_problem(None)
        if fresh.version == current.version:
            if not announced:
                self.reliance.note_nothing_new()
        elif self._replace(fresh, instead_of=current.version):
            self.reliance.note_adoption(announced=announced)
        return self.next_wait()

    def _replace(self, credentials: Credentials, *, instead_of: str | None) -> bool:
        with self._swap:
            before = self._current
            if self._retired or (before.version if before else None) != instead_of:
                return False
            self._current = credentials
            self._note_stamp(before, credentials)
            now = self._posix_now()
            self._status = ProviderStatus(
                source=self._source.name,
                version=credentials.version,
                generation=self._status.generation + 1,
                adopted_at=now,
                confirmed_at=now,
            )
        self._reads.forget()
        self.news.tell()
        has_rotated = before is not None and before.version != credentials.version
        event = "credentials.rotated" if has_rotated else "credentials.loaded"
        log.info(event, source=self._source.name, version=credentials.version)
        if has_rotated:
            for subscriber in self._subscribers:
                self._tell(subscriber, credentials)
        return True

    def _tell(self, subscriber: Subscriber, credentials: Credentials) -> None:
        try:
            subscriber(credentials)
        except KeyboardInterrupt:
            raise  # a person's, who has pressed Ctrl-C meanwhile
        except BaseException as error:
            log.error("credentials.subscriber_failed", exc_info=error, source=self._source.name)

    def _note_stamp(self, before: Credentials | None, credentials: Credentials) -> None:
        # First, or a checkout in between would find a stamp that is not current and was never: stale at once.
        if before is not None and before.stamp != credentials.stamp:
            self._staleness.follow(before.stamp, credentials.stamp)
            # A secret that leads elsewhere moves the service: what is written to the old place may be lost.
            if _place(before) != _place(credentials):
                self._staleness.hurry()
        self.stamp = credentials.stamp

    def _note_problem(self, problem: str | None, *, permanent: bool = False) -> None:
        with self._swap:
            self._status = replace(self._status, problem=problem, permanent=permanent)

    def _tell_doubt(self) -> None:
        doubt = cast("Doubt", self._trials.doubt)
        self._note_problem(doubt.problem, permanent=doubt.permanent)
        # Once a version: the same news at every trial is none.
        log.log(
            logging.WARNING if doubt.failures == 1 else logging.DEBUG,
            "credentials.not_adopted",
            source=self._source.name,
            version=doubt.version,
            cause=doubt.cause,
        )

    def _note_answered(self) -> None:
        doubt = self._trials.doubt
        with self._swap:
            self._status = replace(
                self._status,
                confirmed_at=self._posix_now(),
                failures=0,
                # What is in doubt stays a problem until it was tried again, or is AWSCURRENT no more.
                problem=None if doubt is None else doubt.problem,
                permanent=doubt is not None and doubt.permanent,
            )

    def _note_failed(self, stage: Stage, error: BaseException) -> None:
        cause, name = describe(error), self._source.name
        if stage == "AWSCURRENT":
            permanent = not isinstance(error, Retryable)
            with self._swap:
                failures = self._status.failures + 1
                self._status = replace(self._status, failures=failures, problem=cause, permanent=permanent)
            # What is known stays in use either way.  A permanent problem needs a person, and says so.
            is_news = self._told.is_news(cause)
            log.log(
                (logging.ERROR if permanent else logging.WARNING) if is_news else logging.DEBUG,
                "credentials.unreadable" if permanent else "credentials.stale",
                source=name,
                failures=failures,
                cause=cause,
            )
        else:
            # A policy may allow AWSCURRENT only: not a fault, the rotation is then waited out.
            log.debug("credentials.pending_unreadable", source=name, cause=cause)
        self.news.tell()
