"""
The four steps of a rotation, once, for every kind of server.

    createSecret   a version with a new password gets AWSPENDING        nothing has changed for anybody
    setSecret      the server learns it, after every login was tried    never after an unclear answer
    testSecret     somebody logs in with it                             a failure is undone where that helps
    finishSecret   AWSCURRENT moves to it, AWSPENDING goes              only if it logs in at this moment

Each may be cut off at any point and be called again with the same token, in any order, by several callers.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.event_log import EventLog
from ledger_db.rotation.agreement import forgotten, logs_in, restored
from ledger_db.rotation.failures import (
    ForeignRotation,
    LabelsMoved,
    NothingPending,
    SecretsManagerDenied,
    Stopped,
    explained,
    is_before_writing,
)
from ledger_db.rotation.labels import MADE, PENDING, Labels
from ledger_db.rotation.protocol import Deadline, Equalizes, OutOfTime, Probe, Rotator, ServerProblem
from ledger_db.rotation.versions import Versions

log: EventLog = EventLog(__name__)

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")

_NOTHING_WRITTEN = "nothing was written to the server; AWSCURRENT is unchanged"
_PUT = "AWSPENDING may hold a password that the server does not have; AWSCURRENT is unchanged"
_LOOK_AGAIN_AFTER = frozenset({Reason.REFUSED, Reason.NOT_READY})
# How a call may fail because another call of the same rotation was quicker.
_OVERTAKEN = frozenset({ForeignRotation, LabelsMoved, NothingPending})
# What a test of the new password may fail with that giving the old one back would mend.
_UNDO_AFTER = frozenset({Reason.REFUSED, Reason.NO_LOGIN, Reason.FAILED_CHECK, Reason.FORBIDDEN})


class Outcome(Enum):
    """What a step that did not fail has done."""

    DONE = "done"
    NOTHING_TO_DO = "nothing_to_do"
    """An earlier attempt did it."""

    TESTED_CURRENT = "tested_current"
    """There is no new version: the caller only wants to know whether a rotation could work."""


class Steps:
    """
    One rotation of one secret.

    Args:
        versions: Of the secret.

        rotator: For its kind of server.

        deadline: For the step.

        current: What AWSCURRENT holds.

        token: Names the rotation, and is the id of the version that it makes.
    """

    def __init__(
        self, versions: Versions, rotator: Rotator, deadline: Deadline, *, current: Secret, token: str
    ) -> None:
        self._versions = versions
        self._rotator = rotator
        self._deadline = deadline
        self._current = current
        self._token = token
        self._state = "nothing was changed"
        self._has_moved_current = False

    def run(self, step: str, labels: Labels) -> Outcome:
        """
        Do one *step*.

        Args:
            step: One of ``STEPS``.

            labels: As they are now.

        Raises:
            StepFailed: With the step, the secret, what is wrong, what is true now, what to do next.
        """
        todo = {
            "createSecret": self._create,
            "setSecret": self._set,
            "testSecret": self._test,
            "finishSecret": self._finish,
        }[step]
        with explained(f"{step} of {labels.name}", lambda: self._state):
            if labels.current == self._token:
                return self._tidy(labels)
            if labels.pending not in {None, self._token}:
                # Not ours to remove: its password may be on the server already.
                raise Stopped(
                    ForeignRotation, f"AWSPENDING is on version {labels.pending}, of another rotation"
                )
            try:
                return todo(labels)
            except (Stopped, ServerProblem, SecretProblem) as problem:
                if not self._was_overtaken(problem):
                    raise
                return Outcome.NOTHING_TO_DO

    def _was_overtaken(self, problem: Exception) -> bool:
        """Whether another call of this rotation has brought it to its end, after the labels were read."""
        if self._has_moved_current or (isinstance(problem, Stopped) and problem.kind not in _OVERTAKEN):
            return False
        # What this cannot find out is no news; the problem is.
        with suppress(Stopped, OutOfTime):
            return self._versions.labels().current == self._token
        return False

    def _tidy(self, labels: Labels) -> Outcome:
        """End what an earlier attempt began: the label is all that can be left."""
        if labels.holders.get(PENDING) == self._token:
            self._state = "the rotation is complete but for the label AWSPENDING"
            self._versions.remove_pending(self._token)
            return Outcome.DONE
        return Outcome.NOTHING_TO_DO

    def _create(self, labels: Labels) -> Outcome:
        # Not patient: where this is the first attempt there is nothing to wait for, and where it is not, the
        # put below finds out.
        if self._versions.pending(self._token, patient=False) is not None:
            if labels.holders.get(MADE) == self._token:
                self._versions.remove_mark(self._token)
            return Outcome.NOTHING_TO_DO
        fields = {**self._current.fields, **self._rotator.next_secret(self._current)}
        is_reserved = labels.holders.get(PENDING) == self._token
        # RotateSecret gives the version AWSPENDING before it calls; whoever begins otherwise must not take
        # the label from another rotation, whose password the server may have a moment later.
        label = PENDING if is_reserved else MADE
        with self._unless_denied(_PUT):
            done = self._versions.put(self._token, fields, label=label, is_binary=self._current.is_binary)
        if not done:
            labels = self._find_again()
        if labels.pending != self._token:
            self._claim(labels)
        return Outcome.DONE if done else Outcome.NOTHING_TO_DO

    def _find_again(self) -> Labels:
        """Find the value that the version had before this call, and that was not visible: one for ever."""
        labels = self._versions.labels()
        if labels.holders.get(MADE) != self._token and self._versions.pending(self._token) is None:
            raise Stopped(
                NothingPending, f"version {self._token} was given up; its AWSPENDING was taken away"
            )
        return labels

    def _claim(self, labels: Labels) -> None:
        has_it = self._versions.claim_pending(self._token, instead_of=labels.holders.get(PENDING))
        self._versions.remove_mark(self._token)
        if not has_it:
            raise Stopped(ForeignRotation, "another rotation took AWSPENDING at the same moment")
        current = self._versions.labels().current
        if current == labels.current:
            return
        self._versions.remove_pending(self._token)
        # Made from what another rotation has replaced since: the next step would refuse it for ever.
        if current != self._token:
            raise Stopped(
                LabelsMoved,
                "AWSCURRENT moved while the new version was made, which was given up",
                next_move="rotate again",
            )

    def _set(self, labels: Labels) -> Outcome:
        pending = self._require_pending()
        # Before any login: these checks are about who may be sent where.
        self._rotator.check(self._current, pending)
        self._state = _NOTHING_WRITTEN
        if self._logs_in(pending):
            if isinstance(self._rotator, Equalizes):
                # The password is that of an earlier attempt; the roles may have come apart since.
                self._rotator.equalize(self._current, pending, self._deadline)
            return Outcome.NOTHING_TO_DO
        try:
            self._apply(pending)
        except ServerProblem as problem:
            # Another call of this step may have been quicker, which is how AWSCURRENT came to be refused; or
            # the change was made and the answer lost.
            if problem.reason not in _LOOK_AGAIN_AFTER or not self._logs_in(pending):
                raise
            self._confirm(pending)
            return Outcome.NOTHING_TO_DO
        self._confirm(pending)
        return Outcome.DONE

    def _apply(self, pending: Secret) -> None:
        # Without one it is a first rotation, which comes this far only where AWS itself makes the change.
        accepted = self._accepted(self._current) if self._current.has("password") else self._current
        self._state = "the server may have the password in AWSPENDING; AWSCURRENT is unchanged"
        try:
            self._rotator.apply(accepted, pending, self._deadline)
        except Exception as error:
            if is_before_writing(error):
                self._state = _NOTHING_WRITTEN
            raise

    def _confirm(self, pending: Secret) -> None:
        """See that AWSPENDING is still there: a repair may have given this rotation up meanwhile."""
        if self._versions.pending(self._token, patient=False) is not None:
            return
        if self._versions.labels().current == self._token:
            return
        # The server has a password now that no label leads to.
        restored(self._versions, self._rotator, self._deadline, helpers=(pending,))
        forgotten(self._versions, self._rotator, self._deadline, version=pending)
        self._state = "AWSCURRENT logs in"
        raise Stopped(
            ForeignRotation,
            f"AWSPENDING was taken from version {self._token} while the server learnt its password",
            next_move="start a new rotation",
        )

    def _test(self, labels: Labels) -> Outcome:
        self._state = self._unmoved()
        pending = None if labels.pending is None else self._versions.pending(self._token)
        if pending is None or pending.fields == self._current.fields:
            # RotateImmediately=false: Secrets Manager calls this step alone, with an empty version or a copy.
            self._rotator.verify(self._current, self._deadline)
            return Outcome.TESTED_CURRENT
        try:
            self._rotator.verify(pending, self._deadline)
        except ServerProblem as problem:
            self._undo(self._current, pending, problem.probe)
            raise ServerProblem(self._explain(pending, problem.probe)) from problem
        return Outcome.DONE

    def _unmoved(self) -> str:
        """Say what is true after setSecret and before AWSCURRENT has moved."""
        if self._rotator.keeps_current:
            return "AWSCURRENT is unchanged"
        return "AWSCURRENT is unchanged, and logs in no more once setSecret is done"

    def _finish(self, labels: Labels) -> Outcome:
        self._state = self._unmoved()
        pending = self._require_pending()
        if labels.current is None:
            raise Stopped(NothingPending, "the secret has no AWSCURRENT")
        # Whatever was tested before: what everybody will use from the next line on logs in now.
        probe = self._rotator.probe(pending, self._deadline)
        if not probe.ok:
            raise ServerProblem(self._explain(pending, probe))
        with self._unless_denied("AWSCURRENT may have moved to the new version, which logs in"):
            self._versions.promote(self._token, instead_of=labels.current)
        self._has_moved_current = True
        self._state = "AWSCURRENT is the new version, which logs in; AWSPENDING may be left on it"
        if not self._versions.remove_pending(self._token):
            # Whoever took it may have given the server the password of before.
            restored(self._versions, self._rotator, self._deadline, helpers=(pending,))
        return Outcome.DONE

    @contextmanager
    def _unless_denied(self, state: str) -> Iterator[None]:
        """Hold *state* for true from here on, unless AWS has clearly refused what the block asks for."""
        before, self._state = self._state, state
        try:
            yield
        except Stopped as stopped:
            if stopped.kind is SecretsManagerDenied:
                self._state = before
            raise

    def _require_pending(self) -> Secret:
        pending = self._versions.pending(self._token)
        if pending is None:
            raise Stopped(NothingPending, f"version {self._token} with AWSPENDING holds no value")
        return pending

    def _logs_in(self, secret: Secret) -> bool:
        return logs_in(self._rotator, secret, self._deadline)

    def _accepted(self, current: Secret) -> Secret:
        """
        Return the version that the server accepts now: AWSCURRENT, or the one before it.

        An application that logs in proves that this is its own server; an administrator is sent nowhere else.
        """
        if self._logs_in(current):
            return current
        previous = None if self._rotator.keeps_current else self._versions.previous()
        if previous is not None and self._is_of_same_server(current, previous) and self._logs_in(previous):
            return previous
        what = f"the server accepts neither AWSPENDING nor AWSCURRENT of {current.name}"
        raise ServerProblem(self._explain(current, Probe(Reason.REFUSED, what)))

    def _is_of_same_server(self, current: Secret, previous: Secret) -> bool:
        # What AWSPREVIOUS says is as little trusted as AWSPENDING.
        try:
            self._rotator.check(current, previous)
        except SecretProblem:
            return False
        return True

    def _explain(self, secret: Secret, probe: Probe) -> Probe:
        return self._rotator.explain(secret, probe, self._deadline)

    def _undo(self, current: Secret, pending: Secret, probe: Probe) -> None:
        """
        Give the server the password in AWSCURRENT back, if *pending* is no good and nothing else works.

        Only where AWSCURRENT is proven dead: where it logs in, nobody is hurt by leaving things as they are.
        """
        if self._rotator.keeps_current or probe.reason not in _UNDO_AFTER:
            return
        # Nor what a later rotation has set: then this call is an old one.
        if self._versions.pending(self._token, patient=False) is None:
            return
        if self._rotator.probe(current, self._deadline).reason is not Reason.REFUSED:
            return
        previous = self._versions.previous()
        helpers = (pending,) if previous is None else (pending, previous)
        self._state = "neither AWSCURRENT nor AWSPENDING works"
        self._rotator.revert(current, helpers, self._deadline)
        self._state = "the server has the password in AWSCURRENT again"
        # Otherwise a retry would set the same password again, and applications would try it.
        if not self._versions.remove_pending(self._token):
            restored(self._versions, self._rotator, self._deadline, helpers=(pending,))
        log.warning("rotation.undone", secret=current.name, version=self._token)
