"""
What a login does when the server says no.

    try what is current
    refused -> somebody else has adopted newer credentials meanwhile?  try those
            -> read AWSCURRENT; other than what was refused?           try it
            -> read AWSPENDING; is there one?                          try it
            -> wait a little, and again
    what logs in is adopted and becomes current for everybody
    nothing logs in before patience ends -> LoginRefused; for a short while nobody asks the server

All refused logins share their reads.  Each tries a version once; only one of them, the scout, tries again
what was refused already, so that a crowd does not flood the server.

The procedure is a generator that decides and never acts: it yields an `Attempt`, a `Look` or a `Pause`, and
is sent what came of it.  `log_in` runs it with blocking calls, `async_log_in` on an event loop.
"""

import random
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from ledger_db.answers.login_errors import judge
from ledger_db.answers.reason import Verdict
from ledger_db.background import async_wait
from ledger_db.backoff import Backoff, equal_jitter
from ledger_db.connections.addresses import Addresses
from ledger_db.connections.login_steps import (
    Attempt,
    Look,
    Pause,
    Procedure,
    Reply,
    Step,
    async_pause,
    pause_here,
)
from ledger_db.connections.looking import Looked
from ledger_db.connections.scouting import CoolDown, Scouting
from ledger_db.credentials.model import Credentials, Stage
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.errors import LoginRefused, ManagerClosed
from ledger_db.event_log import EventLog
from ledger_db.forking import at_fork
from ledger_db.redaction import describe

log: EventLog = EventLog(__name__)

T = TypeVar("T")

_PAUSE = Backoff(first_seconds=0.05, most_seconds=1.0)
# A follower is woken by whatever is new.  It looks by itself as well: a scout on an event loop that is
# blocked would keep everybody from a password that is long valid.
_FOLLOWER_PAUSE_SECONDS = 1.0
# A server that has just come back does some hundred logins a second, for all who have lost it.
_JITTER_SECONDS = 0.25
_LAST_WORD_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long, by which clock, with which jitter."""

    seconds: float
    cool_down_seconds: float
    now: Callable[[], float]
    spread: Callable[[], float]
    # At a start, when that has to end; by the same clock.
    until: float | None = None


class Logins:
    """
    All logins to one server with the credentials of one provider.

    Shared by the engines or clients of one manager, so that threads, event loops and pools that are refused
    in the same moment send one scout, not a crowd.
    """

    def __init__(
        self,
        provider: CredentialProvider,
        *,
        patience_seconds: float = 10.0,
        cool_down_seconds: float = 1.0,
        now: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
    ) -> None:
        """
        Log in with what *provider* has.

        Args:
            provider: Where credentials come from, and where those that work are reported.

            patience_seconds: How long a login keeps looking for credentials that work.

            cool_down_seconds: How long logins fail at once after that.

            now: Seconds on a clock that never goes back.

            spread: Draws the jitter, in [0, 1).
        """
        self.provider = provider
        #: Where logins have led to; what is connected to an address that the name has left is stale.
        self.addresses: Addresses = Addresses()
        self._patience = _Patience(patience_seconds, cool_down_seconds, now, spread)
        self._scouting = Scouting()
        self.closed: bool = False
        at_fork(in_child=self._after_fork)

    def log_in(
        self, connect: Callable[[Credentials], T], *, pause: Callable[[Pause], object] = pause_here
    ) -> T:
        """
        Return what *connect* makes of credentials that the server accepts.

        Raises:
            LoginRefused: Nothing was accepted in time; the driver's error is its cause.

            Exception: Whatever else *connect* raises.
        """
        return self.run(connect, look=self._look, pause=pause)

    def run(
        self,
        connect: Callable[[Credentials], T],
        *,
        look: Callable[[Look], Credentials | None],
        pause: Callable[[Pause], object],
    ) -> T:
        """Same as `log_in`, for a caller that must not block in *look* and *pause* its own way."""
        procedure, handled_already = self.procedure(), sys.exception()
        connection: T
        try:
            step = next(procedure)
            while True:
                reply: Reply = None
                if isinstance(step, Attempt):
                    try:
                        connection = connect(step.credentials)
                    except Exception as error:
                        if judge(error, but=handled_already) is not Verdict.REFUSED:
                            raise
                        reply = error
                elif isinstance(step, Look):
                    reply = look(step)
                else:
                    pause(step)
                step = procedure.send(reply)
        except StopIteration:
            return connection
        finally:
            # Also when something else is raised in here: a scout must always stand down.
            procedure.close()

    async def async_log_in(self, connect: Callable[[Credentials], Awaitable[T]]) -> T:
        """Same as `log_in`, on an event loop; reads of the source run in a thread."""
        procedure, handled_already = self.procedure(), sys.exception()
        connection: T
        try:
            step = next(procedure)
            while True:
                reply: Reply = None
                if isinstance(step, Attempt):
                    try:
                        connection = await connect(step.credentials)
                    except Exception as error:
                        if judge(error, but=handled_already) is not Verdict.REFUSED:
                            raise
                        reply = error
                elif isinstance(step, Look):
                    reply = await self.async_look(step)
                else:
                    await async_pause(step)
                step = procedure.send(reply)
        except StopIteration:
            return connection
        finally:
            procedure.close()

    async def async_look(self, step: Look) -> Credentials | None:
        """Carry out *step* on an event loop, without a thread of the loop's executor: all may be busy."""
        answer = self.provider.read(step.stage)
        await async_wait(answer, timeout_seconds=step.timeout_seconds)
        return self.provider.found_in(answer, after=step.after)

    def _look(self, step: Look) -> Credentials | None:
        return self.provider.look(step.stage, step.after, step.timeout_seconds)

    def procedure(self) -> Procedure:
        """
        Decide, step by step, how to log in; ends when an attempt has worked.

        Raises:
            LoginRefused: Patience has ended, or a cool-down is on.

            ManagerClosed: The manager was closed.
        """
        if self.closed:
            raise ManagerClosed("this manager is closed, and opens no connection until it is opened again")
        return _Login(self.provider, self._scouting, self._patience).steps()

    @contextmanager
    def starting(self, *, timeout_seconds: float) -> Iterator[None]:
        """
        Let logins look for what works as long as a start may take, and not as long as a request waits.

        They end a little before *timeout_seconds*: what they have to say is more than that the time is up.
        """
        seconds = timeout_seconds - min(_LAST_WORD_SECONDS, timeout_seconds / 10)
        self._patience = replace(self._patience, until=self._patience.now() + seconds)
        try:
            yield
        finally:
            self._patience = replace(self._patience, until=None)

    def note_loss(self) -> None:
        """Say that a connection was lost, so that those that follow it are not made up for all at once."""
        self._scouting.note_loss(self._patience.now())

    def close(self) -> None:
        """Open no connection any more, and let those that are borrowed be closed when they are returned."""
        self.closed = True
        self.provider.retire()

    def revive(self) -> None:
        """Undo `close`; the provider has to be loaded again."""
        self.provider.revive()
        self.closed = False

    def _after_fork(self) -> None:
        # A scout lives in the parent process only, and may have held the lock.
        self._scouting = Scouting()


class _Login:
    """One login: what it has tried, since when, and whether it is the scout."""

    def __init__(self, provider: CredentialProvider, scouting: Scouting, patience: _Patience) -> None:
        self._provider = provider
        self._scouting = scouting
        self._patience = patience
        self._is_scout = False
        self._tried: set[str] = set()
        self._looked = Looked()
        self._refusal: BaseException = LoginRefused("not tried yet")
        self._refused_at = 0.0
        self._deadline: float | None = None
        self._rounds = 0
        self._accepted_before = scouting.accepted

    def steps(self) -> Procedure:
        is_one_of_many = self._scouting.begin(self._patience.now())
        try:
            if is_one_of_many:
                yield Pause(_JITTER_SECONDS * self._patience.spread())
            yield from self._until_accepted()
        finally:
            self._scouting.end()

    def _until_accepted(self) -> Procedure:
        current = self._provider.current
        self._fail_while_cooling_down(current)
        if (yield from self._try(current, seen=current)):
            return
        # Patience starts at the first refusal, not before: a slow handshake is not a refusal.
        self._refused_at = self._patience.now()
        self._deadline = self._patience.until or self._refused_at + self._patience.seconds
        try:
            while self._provider.rotates:
                # Taken before the round: what happens while it looks ends the pause after it.
                news = self._provider.news.next
                if (yield from self._one_round()):
                    return
                if not self._remaining():
                    break
                # The scout keeps its pace: what it has read itself is no news to it.
                yield Pause(min(self._next_pause(), self._remaining()), None if self._is_scout else news)
            raise self._given_up()
        finally:
            if self._is_scout:
                self._scouting.stand_down()
                self._provider.news.tell()

    def _one_round(self) -> Generator[Step, Reply, bool]:
        """Try everything that is worth trying now; True if something was accepted."""
        if self._somebody_was_accepted():
            self._tried.clear()
        stage: Stage
        for stage in ("AWSCURRENT", "AWSPENDING"):
            seen = self._provider.current
            if (yield from self._try_if_new(seen, seen=seen)):
                return True
            found = yield Look(stage, seen.version, self._remaining())
            self._looked.note(stage, found or self._provider.why_unread(stage))
            if (yield from self._try_if_new(found, seen=seen)):
                return True
        self._is_scout = self._is_scout or self._scouting.volunteer()
        if self._is_scout:
            # The same credentials may be accepted soon: AWSPENDING is applied, or a rotation is rolled back.
            self._tried.clear()
        return False

    def _try_if_new(self, candidate: Reply, *, seen: Credentials) -> Generator[Step, Reply, bool]:
        if not isinstance(candidate, Credentials) or candidate.version in self._tried:
            return False
        return (yield from self._try(candidate, seen=seen))

    def _try(self, credentials: Credentials, *, seen: Credentials) -> Generator[Step, Reply, bool]:
        """
        Attempt *credentials*, and adopt them if they work and are not *seen*.

        *seen* was current before they were asked for, not when they are tried: if something newer has been
        adopted in between, they must not undo it.
        """
        refusal = yield Attempt(credentials)
        if isinstance(refusal, BaseException):
            log.debug("login.refused", version=credentials.version, cause=describe(refusal))
            self._tried.add(credentials.version)
            self._refusal = refusal
            return False
        if credentials.version != seen.version:
            self._provider.adopt(credentials, instead_of=seen.version)
        if self._deadline is not None:
            self._scouting.report_acceptance()
            self._provider.news.tell()
        return True

    def _remaining(self) -> float:
        return max(0.0, (self._deadline or 0.0) - self._patience.now())

    def _next_pause(self) -> float:
        pause = _FOLLOWER_PAUSE_SECONDS
        if self._is_scout:
            self._rounds += 1
            pause = _PAUSE.after(self._rounds)
        return equal_jitter(pause, self._patience.spread())

    def _somebody_was_accepted(self) -> bool:
        before, self._accepted_before = self._accepted_before, self._scouting.accepted
        return before != self._accepted_before

    def _fail_while_cooling_down(self, current: Credentials) -> None:
        # A start has time, and nobody else logs in: it asks.
        cool_down = None if self._patience.until else self._scouting.cool_down
        if cool_down and cool_down.version == current.version and self._patience.now() < cool_down.until:
            raise LoginRefused(
                f"{_who(current)} was refused a moment ago ({cool_down.cause}); the server is not asked "
                "again yet, so that it is not flooded; compare the secret with the server's user"
            )

    def _given_up(self) -> LoginRefused:
        current, source = self._provider.current, self._provider.status.source
        cause = describe(self._refusal)
        if self._is_scout or not self._provider.rotates:
            until = self._patience.now() + self._patience.cool_down_seconds
            self._scouting.start_cool_down(CoolDown(current.version, until, cause))
            # Once a cool-down, not once a request: the scout speaks for all.
            log.error("login.given_up", source=source, version=current.version, cause=cause)
        others = self._looked.told(self._patience.now() - self._refused_at)
        error = LoginRefused(
            f"{_who(current)} was refused: {cause} (version {current.version} of {source}; "
            f"{others if self._provider.rotates else 'it has no other version'}); "
            f"{_advice(current)}"
        )
        error.__cause__ = self._refusal
        return error


def _advice(credentials: Credentials) -> str:
    if credentials.password != credentials.password.strip():
        return "its password has white space around it; remove that from the secret, unless it is meant"
    return "compare the secret with the server's user, and look for a rotation that is stuck"


def _who(credentials: Credentials) -> str:
    return f"user {credentials.username!r} at {credentials.host}:{credentials.port}"
