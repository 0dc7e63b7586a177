"""
How does a rotation that stopped half way come to a good end?

    AWSPENDING logs in                     forward: it becomes AWSCURRENT
    it does not, AWSCURRENT does           back: AWSPENDING is taken away, nobody ever used it
    neither does                           the server is given AWSCURRENT's password again, by whoever still
                                           can: AWSPREVIOUS, a version without a label, the administrator
    no clear answer                        nothing is touched

For a person at a terminal; the steps themselves never need it.  A rotation that still runs is no danger: it
notices that AWSPENDING is gone, and so does this.
"""

from contextlib import suppress
from enum import Enum
from itertools import islice

from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.event_log import EventLog
from ledger_db.rotation.agreement import forgotten, logs_in, restored
from ledger_db.rotation.failures import NothingPending, Stopped, explained
from ledger_db.rotation.labels import MADE, PENDING, Labels
from ledger_db.rotation.protocol import Deadline, Equalizes, Rotator
from ledger_db.rotation.versions import Versions

log: EventLog = EventLog(__name__)


_MOST_OTHERS = 20


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
        if pending is not None and not self._is_next(pending):
            pending = None
        if pending is not None and self._logs_in(pending):
            if isinstance(self._rotator, Equalizes):
                # It may have stopped long ago, and somebody have granted something since.
                self._rotator.equalize(self._current, pending, self._deadline)
            self._rotator.verify(pending, self._deadline)
            self._state = "AWSCURRENT may have moved to the version that had AWSPENDING, which logs in"
            self._versions.promote(pending.version, instead_of=current_version)
            self._versions.remove_pending(pending.version)
            return Repaired.FINISHED
        helpers = () if pending is None else (pending,)
        # Before its first rotation it has no password that the server could be given.
        if self._current.has("password") and not self._logs_in(self._current):
            self._state = "AWSCURRENT does not log in"
            if not self._rotator.keeps_current:
                helpers = (*helpers, *self._others())
        self._clear(labels)
        # After the labels, whatever was seen before: a rotation may have come in between.
        written = restored(self._versions, self._rotator, self._deadline, helpers=helpers)
        if pending is not None:
            written |= forgotten(self._versions, self._rotator, self._deadline, version=pending)
        if written:
            return Repaired.RESTORED
        return Repaired.NOTHING_TO_DO if labels.pending is None else Repaired.ABANDONED

    def _others(self) -> tuple[Secret, ...]:
        # Who may not list versions goes on without: there is the administrator.
        with suppress(Stopped):
            return tuple(islice(self._versions.others(), _MOST_OTHERS))
        return ()

    def _clear(self, labels: Labels) -> None:
        if PENDING in labels.holders:
            self._versions.remove_pending(labels.holders[PENDING])
        if MADE in labels.holders:
            self._versions.remove_mark(labels.holders[MADE])

    def _is_next(self, pending: Secret) -> bool:
        # One that contradicts AWSCURRENT (another host, another user) was never applied by a rotation.
        try:
            self._rotator.check(self._current, pending)
        except SecretProblem:
            return False
        return True

    def _logs_in(self, secret: Secret) -> bool:
        return logs_in(self._rotator, secret, self._deadline)
