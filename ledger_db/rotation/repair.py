"""
How does a rotation that stopped half way come to a good end?

    AWSPENDING logs in                     forward: it becomes AWSCURRENT
    it does not, AWSCURRENT does           back: AWSPENDING is taken away, nobody ever used it
    neither does                           the server is given AWSCURRENT's password again, by whoever still
                                           can: AWSPREVIOUS, or the administrator
    no clear answer                        nothing is touched

For a person at a terminal; the steps themselves never need it.
"""

from enum import Enum

from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.event_log import EventLog
from ledger_db.rotation.failures import NothingPending, Stopped, explained
from ledger_db.rotation.labels import PENDING, Labels
from ledger_db.rotation.protocol import Deadline, Rotator
from ledger_db.rotation.steps import logs_in
from ledger_db.rotation.versions import Versions

log: EventLog = EventLog(__name__)


class Repaired(Enum):
    """What it took."""

    NOTHING_TO_DO = "nothing_to_do"
    FINISHED = "finished"
    """The half-done rotation was carried to its end."""

    ABANDONED = "abandoned"
    """The half-done rotation was given up; AWSCURRENT logs in."""

    RESTORED = "restored"
    """The server was given the password in AWSCURRENT again."""


class Repair:
    """
    Brings one secret and its server together.

    Args:
        versions: Of the secret.

        rotator: For its kind of server.

        deadline: For all of it.

        current: What AWSCURRENT holds.
    """

    def __init__(self, versions: Versions, rotator: Rotator, deadline: Deadline, *, current: Secret) -> None:
        self._versions = versions
        self._rotator = rotator
        self._deadline = deadline
        self._current = current
        self._state = "nothing was changed"

    def run(self, labels: Labels) -> Repaired:
        """
        Do it.

        Raises:
            StepFailed: With what is true now; it may be tried again.
        """
        with explained(f"repair of {labels.name}", lambda: self._state):
            if labels.current is None:
                raise Stopped(NothingPending, "the secret has no AWSCURRENT")
            done = self._run(labels, labels.current)
        log.info("rotation.repaired", secret=labels.name, outcome=done.value)
        return done

    def _run(self, labels: Labels, current_version: str) -> Repaired:
        pending = None if labels.pending is None else self._versions.pending(labels.pending)
        if pending is not None and self._is_next(pending) and self._logs_in(pending):
            self._rotator.verify(pending, self._deadline)
            self._state = "AWSCURRENT may have moved to the version that had AWSPENDING, which logs in"
            self._versions.promote(pending.version, instead_of=current_version)
            self._versions.remove_pending(pending.version)
            return Repaired.FINISHED
        done = self._restored(self._current)
        if PENDING not in labels.holders:
            return done
        self._versions.remove_pending(labels.holders[PENDING])
        return Repaired.ABANDONED if done is Repaired.NOTHING_TO_DO and labels.pending is not None else done

    def _is_next(self, pending: Secret) -> bool:
        # One that contradicts AWSCURRENT (another host, another user) was never applied by a rotation.
        try:
            self._rotator.check(self._current, pending)
        except SecretProblem:
            return False
        return True

    def _restored(self, current: Secret) -> Repaired:
        # Before its first rotation it has no password that the server could be given.
        if not current.has("password") or self._logs_in(current):
            return Repaired.NOTHING_TO_DO
        previous = self._versions.previous()
        self._state = "AWSCURRENT does not log in"
        self._rotator.revert(current, () if previous is None else (previous,), self._deadline)
        self._rotator.verify(current, self._deadline)
        return Repaired.RESTORED

    def _logs_in(self, secret: Secret) -> bool:
        return logs_in(self._rotator, secret, self._deadline)
