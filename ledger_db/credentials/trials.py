"""
May what AWSCURRENT has be adopted?

It is tried first: what worked until now is in use for as long as it does not.  A trial that fails, for
whatever reason, is repeated ever more rarely: a version that nobody can use costs a login an interval, and
not one a second.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ledger_db.answers.login_errors import judge
from ledger_db.answers.reason import Verdict
from ledger_db.credentials.model import Credentials
from ledger_db.credentials.schedule import Schedule
from ledger_db.errors import LedgerDBError, LoginRefused, Retryable
from ledger_db.redaction import describe

Probe = Callable[[Credentials], None]


@dataclass(frozen=True, slots=True)
class Doubt:
    """
    A version that failed.

    Attributes:
        version: Which one.

        failures: How often.

        not_before: When it may be tried again; seconds on the clock of the trials.

        cause: What the last failure said.

        permanent: Whether only a person can mend that.
    """

    version: str
    failures: int
    not_before: float
    cause: str
    permanent: bool = False

    @property
    def problem(self) -> str:
        """What a health check may say of it."""
        return f"version {self.version} is not in use: {self.cause}"


class Trials:
    """
    Tries versions that are not current yet, for one provider and one thread.

    Attributes:
        doubt: What is in doubt now; None if nothing is.  Replaced, never changed: others read it.
    """

    def __init__(
        self, schedule: Schedule, *, now: Callable[[], float] = time.monotonic, spread: Callable[[], float]
    ) -> None:
        """
        Try nothing yet.

        Args:
            schedule: How long to wait after a failure.

            now: Seconds on a clock that never goes back.

            spread: Draws the jitter, in [0, 1).
        """
        self._schedule = schedule
        self._now = now
        self._spread = spread
        #: Logs in; raises if that fails.  None if there is nothing to try credentials on.
        self.probe: Probe | None = None
        self.doubt: Doubt | None = None

    def fails(self, fresh: Credentials) -> bool:
        """Whether *fresh* cannot be adopted now: its trial fails, or it is too early for another one."""
        if self._doubt_of(fresh.version) and self.wait_seconds > 0:
            return True
        try:
            if self.probe is not None:
                self.probe(fresh)
        except Exception as error:  # noqa: BLE001 - a driver may raise anything; the old ones stay in use
            self.note_failure(fresh.version, describe(error), permanent=_needs_a_person(error))
            return True
        self.doubt = None
        return False

    def note_failure(self, version: str, cause: str, *, permanent: bool = False) -> None:
        """Put *version* in doubt, or in more of it."""
        before = self._doubt_of(version)
        failures = 1 if before is None else before.failures + 1
        wait = self._schedule.after_trial(failures, self._spread())
        self.doubt = Doubt(version, failures, self._now() + wait, cause, permanent)

    @property
    def wait_seconds(self) -> float:
        """How long until what is in doubt may be tried again; 0 if it may be now."""
        return 0.0 if self.doubt is None else max(0.0, self.doubt.not_before - self._now())

    def _doubt_of(self, version: str) -> Doubt | None:
        return self.doubt if self.doubt is not None and self.doubt.version == version else None


def _needs_a_person(error: Exception) -> bool:
    # A refusal is none of these: the server may be told the password in a moment.
    if isinstance(error, LoginRefused):
        return False
    if isinstance(error, LedgerDBError):
        return not isinstance(error, Retryable)
    return judge(error) is Verdict.PERMANENT
