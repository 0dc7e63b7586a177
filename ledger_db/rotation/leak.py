"""
A password has leaked: how does it come to open nothing any more?

    rotate, announced urgently     one role: the leaked password is dead
    a grace                        services come over to the new one
    rotate once more               a pair, or two passwords at a time: dead from here on
    a grace                        only where both rotations are of the same user
    end what logged in before      sessions outlive their password

The promise that nobody is cut off is suspended for the sessions that are older than the new password, and for
no others.  Cut off anywhere it may begin anew: what is dead stays dead.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ledger_db.answers.secret import Secret
from ledger_db.event_log import EventLog
from ledger_db.rotation.agreement import logs_in
from ledger_db.rotation.case import Case
from ledger_db.rotation.failures import (
    CheckFailed,
    NothingPending,
    StepFailed,
    Stopped,
    TimeUsedUp,
    explained,
)
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.request import Request
from ledger_db.rotation.runner import Runner
from ledger_db.rotation.sessions import Ended, EndsSessions
from ledger_db.rotation.steps import STEPS

log: EventLog = EventLog(__name__)

# Two rotations on a slow network, with a cold start; ElastiCache takes longer, and says so when it does.
_LEAST_SECONDS: Final = 20.0
# ElastiCache's nodes may take a while to forget.
_LAG_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.5
_UNTOUCHED: Final = "nothing was changed"


@dataclass(frozen=True, slots=True)
class Answered:
    """
    What was done.

    Attributes:
        versions: That were made, the last of which is AWSCURRENT.

        dead_seconds: After how long the leaked password was refused.

        sessions: What became of those that had logged in before; None where nobody can end them.
    """

    versions: tuple[str, ...]
    dead_seconds: float
    sessions: Ended | None

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left of it, sessions included."""
        return self.sessions is not None and self.sessions.left == 0


class Leak:
    """
    Answers the leak of a password of one secret.

    Args:
        runner: Rotates, and announces urgently.

        secret_id: Name or ARN.

        grace_seconds: How long services have to come over.

        deadline: For all of it.

        extend: Whether the graces come on top of that.

        tell: Gets a line for each thing that is done.

        sleep: Waits.
    """

    def __init__(
        self,
        runner: Runner,
        secret_id: str,
        *,
        grace_seconds: float,
        deadline: Deadline,
        extend: bool = False,
        tell: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._runner = runner
        self._secret_id = secret_id
        self._grace_seconds = grace_seconds
        self._deadline = deadline
        self._extend = extend
        self._tell = tell
        self._sleep = sleep
        self._state = _UNTOUCHED

    @property
    def state(self) -> str:
        """What is true now, and how to go on."""
        if self._state == _UNTOUCHED:
            return _UNTOUCHED
        return (
            f"{self._state}; to go on: ledger-db rotate {self._secret_id} --compromised, which begins anew: "
            "what is dead stays dead"
        )

    def run(self) -> Answered:
        """
        Do all of it.

        Raises:
            StepFailed: With what is true now; it may be begun anew.
        """
        with explained(f"leak of {self._secret_id}", lambda: self.state):
            return self._run()

    def _run(self) -> Answered:
        began = time.monotonic()
        case = self._opened()
        graces = self._graces(case)
        self._take_time(graces)
        self._state = "a rotation has begun; the leaked password may log in"
        # Whoever has a role's password may have changed it.
        if case.labels.pending is not None or not logs_in(case.rotator, case.current, self._deadline):
            with self._told():
                repaired = self._runner.repair(self._secret_id, self._deadline)
            self._tell(f"repair: {repaired.value}")
        # Once more: with the time that there is, and after a repair.
        case = self._opened()
        leaked = self._leaked(case)
        rotations = [self._rotate(case)]
        if case.rotator.keeps_current:
            self._state = "AWSCURRENT is new; the leaked password may log in"
            self._wait()
            rotations.append(self._rotate(case))
        dead_seconds = rotations[-1].since - began
        self._state = "the leaked password is dead; sessions that logged in with it may be open"
        if len(rotations) < graces + 1:
            self._wait()
        sessions = self._end(case, rotations)
        self._prove(case, leaked)
        # Above info: somebody who did not ask for it should see that it happened.
        log.warning("rotation.leak_answered", secret=case.labels.name, outcome=sessions and sessions.ended)
        versions = tuple(rotation.secret.version for rotation in rotations)
        return Answered(versions, dead_seconds, sessions)

    def _opened(self) -> Case:
        return self._runner.open(self._secret_id, self._deadline, f"leak of {self._secret_id}")

    def _graces(self, case: Case) -> int:
        """Return how often services are waited for."""
        user = case.current.fields.get("username")
        is_pair = case.rotator.next_secret(case.current).get("username", user) != user
        if case.rotator.keeps_current and not is_pair and isinstance(case.rotator, EndsSessions):
            # The services' sessions after the first rotation are of the user whose older ones are ended.
            return 2
        return 1

    def _take_time(self, graces: int) -> None:
        waits_seconds = graces * self._grace_seconds
        if self._extend:
            self._deadline = Deadline(self._deadline.ends_at + waits_seconds)
        elif self._deadline.remaining_seconds < waits_seconds + _LEAST_SECONDS:
            raise Stopped(
                TimeUsedUp,
                f"{graces} x {self._grace_seconds:g} s of grace and {_LEAST_SECONDS:g} s beside are needed, "
                f"and there are {self._deadline.remaining_seconds:.0f} s",
                next_move="give the function more time, or a smaller GraceSeconds",
            )

    def _leaked(self, case: Case) -> tuple[Secret, ...]:
        """Return what may have leaked: whoever read the secret may have read both."""
        previous = case.versions.previous()
        if previous is None or previous.fields.get("host") != case.current.fields.get("host"):
            return (case.current,)
        return (case.current, previous)

    def _rotate(self, case: Case) -> "_Rotation":
        token = str(uuid.uuid4())
        self._tell(f"rotation: version {token}")
        since = 0.0
        for step in STEPS:
            with self._told():
                self._runner.step(Request(step, self._secret_id, token), self._deadline)
            if step == "setSecret":
                since = time.monotonic()
                if isinstance(case.rotator, EndsSessions):
                    self._sleep(case.rotator.session_clock_seconds)
        secret = case.versions.value_of(token)
        if secret is None:
            raise Stopped(NothingPending, f"version {token} is gone")
        return _Rotation(secret, since)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Add to what failed in the block what it means for the leak: nobody may see another message."""
        try:
            yield
        except StepFailed as error:
            raise type(error)(f"{error}; of the leak: {self.state}") from error

    def _wait(self) -> None:
        self._tell(f"grace: {self._grace_seconds:g} s for services to come over")
        self._sleep(self._deadline.wait_seconds(self._grace_seconds, what="the services to come over"))

    def _end(self, case: Case, rotations: list["_Rotation"]) -> Ended | None:
        if not isinstance(case.rotator, EndsSessions):
            return None
        # The last of each user: before that, what logged in may have done so with what has leaked.
        last = {rotation.secret.fields.get("username"): rotation for rotation in rotations}
        return Ended.together(
            case.rotator.end_sessions(rotation.secret, rotation.since, self._deadline)
            for rotation in last.values()
        )

    def _prove(self, case: Case, leaked: tuple[Secret, ...]) -> None:
        lag_seconds = 0.0 if isinstance(case.rotator, EndsSessions) else _LAG_SECONDS
        give_up = Deadline(min(self._deadline.ends_at, Deadline.after(lag_seconds).ends_at))
        for secret in leaked:
            while logs_in(case.rotator, secret, self._deadline):
                if give_up.remaining_seconds == 0.0:
                    what = f"the server still accepts the password of version {secret.version}"
                    raise Stopped(CheckFailed, what, next_move="give that user another password by hand")
                self._sleep(_POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class _Rotation:
    """One of those that were made: what it holds, and since when the server knows it."""

    secret: Secret
    since: float
