"""
How does RotateSecret run a rotation function?

    RotateSecret      AWSPENDING is put on a version without a value; the call returns
    in the background createSecret, setSecret, testSecret, finishSecret, each a call of the rotator
    a step fails      the four steps again with the same token, after a wait that grows
    it gives up       AWSPENDING stays where it is; the next RotateSecret is refused, and tries this one again
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ledger_db.backoff import Backoff
from ledger_db.event_log import EventLog
from ledger_db.stand_in import labels as secret_labels
from ledger_db.stand_in.model import CURRENT, PENDING, Secret, ServiceError, Version
from ledger_db.stand_in.requests import Request, Response, token_of
from ledger_db.stand_in.store import SecretStore
from ledger_db.stand_in.values import usable

log: EventLog = EventLog(__name__)

Rotator = Callable[[dict[str, str]], None]
"""A rotation function: gets AWS's event with ``Step``, ``SecretId`` (an ARN) and ``ClientRequestToken``."""

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")

_IN_PROGRESS = "A previous rotation isn't complete. That rotation will be reattempted."
_NO_FUNCTION = "No Lambda rotation function ARN is associated with this secret."
_UNKNOWN_FUNCTION = "Lambda does not exist or could not be accessed"


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """
    How long a failing rotation is tried.  All times in seconds.

    Attributes:
        attempts: How often the four steps are begun, the first time included.

        first_wait_seconds: The wait after the first failure; it doubles with each.

        longest_wait_seconds: It never gets longer than this.
    """

    attempts: int = 5
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0

    def wait_seconds(self, failures: int) -> float:
        """The wait after so many *failures* (1 or more)."""
        return Backoff(self.first_wait_seconds, self.longest_wait_seconds).after(failures)


@dataclass(frozen=True, slots=True)
class _Running:
    """A rotation in the background; set *cancelled* and it stops after the step that it is in."""

    token: str
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class Rotations:
    """
    The rotations of all secrets of a store.

    Args:
        store: Where the secrets are.

        rotators: Rotation functions by ARN.

        schedule: How long a failing one is tried.
    """

    def __init__(
        self,
        store: SecretStore,
        rotators: Mapping[str, Rotator] | None = None,
        *,
        schedule: RetrySchedule | None = None,
    ) -> None:
        self._store = store
        self._schedule = schedule or RetrySchedule()
        # Guards _rotators and _running, and makes "does one run?" and "start one" a single decision.  The
        # store may be changed under it (it never calls back); a rotator must not be called under it.
        self._deciding = threading.Lock()
        self._rotators = dict(rotators or {})
        self._running: dict[str, _Running] = {}

    def register(self, arn: str, rotator: Rotator) -> None:
        """Make *rotator* what RotateSecret calls for the function *arn*."""
        with self._deciding:
            self._rotators[arn] = rotator

    def rotate(self, request: Request) -> Response:
        """
        RotateSecret: writes down the configuration, and starts a rotation (or a mere test) in the background.

        Raises:
            ServiceError: No function, an unknown one, or the previous rotation is not complete.
        """
        token = token_of(request)
        with self._deciding:
            secret = usable(self._store.find(request["SecretId"]))
            rotator = self._rotator_for(secret, request)
            if self._is_repeated(secret, token):
                return _identity(secret, token)
            self._refuse_second(secret)
            now = self._store.now()
            self._store.change(secret.arn, lambda before: _prepared(before, request, token=token, now=now))
            steps = STEPS if request.get("RotateImmediately", True) else ("testSecret",)
            self._start(secret.arn, token, rotator, steps)
        return _identity(secret, token)

    def cancel(self, request: Request) -> Response:
        """
        CancelRotateSecret: no rotation from now on; labels stay where the cancelled one has put them.

        Raises:
            ServiceError: Rotation was never configured.
        """
        with self._deciding:
            secret = self._store.change(request["SecretId"], _disabled)
            running = self._running.get(secret.arn)
            if running is not None:
                running.cancelled.set()
        pending = secret_labels.holder(secret, PENDING)
        # AWSPENDING beside AWSCURRENT is what a finished rotation leaves, not one in progress.
        unfinished = pending is not None and CURRENT not in pending.labels
        return _identity(secret, pending.id if pending is not None and unfinished else None)

    def wait_until_idle(self, timeout_seconds: float) -> bool:
        """Wait until no rotation is in the background; False if one still is after *timeout_seconds*."""
        deadline = time.monotonic() + timeout_seconds
        with self._deciding:
            waiting = list(self._running.values())
        return all(running.ended.wait(max(0.0, deadline - time.monotonic())) for running in waiting)

    def stop(self, timeout_seconds: float) -> bool:
        """Tell all rotations to stop, wait for the steps they are in; False if one did not end in time."""
        with self._deciding:
            for running in self._running.values():
                running.cancelled.set()
        return self.wait_until_idle(timeout_seconds)

    def _rotator_for(self, secret: Secret, request: Request) -> Rotator:
        arn = request.get("RotationLambdaARN") or secret.rotation_function_arn
        if not arn:
            raise ServiceError("InvalidRequestException", _NO_FUNCTION)
        if arn not in self._rotators:
            raise ServiceError("ResourceNotFoundException", _UNKNOWN_FUNCTION)
        return self._rotators[arn]

    def _is_repeated(self, secret: Secret, token: str) -> bool:
        """Whether this was carried out before: the answer was lost, and the SDK sent the request again."""
        running = self._running.get(secret.arn)
        return token in secret.versions or (running is not None and running.token == token)

    def _refuse_second(self, secret: Secret) -> None:
        if secret.arn in self._running:
            raise ServiceError("InvalidRequestException", _IN_PROGRESS)
        pending = secret_labels.holder(secret, PENDING)
        if pending is None or CURRENT in pending.labels:
            return
        stored = self._rotators.get(secret.rotation_function_arn or "")
        if stored is not None:
            self._start(secret.arn, pending.id, stored, STEPS)
        raise ServiceError("InvalidRequestException", _IN_PROGRESS)

    def _start(self, arn: str, token: str, rotator: Rotator, steps: tuple[str, ...]) -> None:
        running = _Running(token)
        self._running[arn] = running
        # A daemon: a rotator that hangs must not keep the process from ending.
        threading.Thread(
            target=self._run, args=(arn, running, rotator, steps), name=f"rotation-{token[:8]}", daemon=True
        ).start()

    def _run(self, arn: str, running: _Running, rotator: Rotator, steps: tuple[str, ...]) -> None:
        try:
            if steps == STEPS:
                self._rotate(arn, running, rotator)
            else:
                self._test(arn, running, rotator)
        except ServiceError as error:
            # The secret was deleted meanwhile, or the state could not be written.
            log.warning("rotation.abandoned", secret=arn, error=error.code)
        finally:
            with self._deciding:
                del self._running[arn]
            # After the removal: whoever waited may start the next rotation at once.
            running.ended.set()

    def _rotate(self, arn: str, running: _Running, rotator: Rotator) -> None:
        for attempt in range(1, self._schedule.attempts + 1):
            if self._steps_succeed(arn, running, rotator, STEPS):
                if not running.cancelled.is_set():
                    self._note_success(arn, running.token)
                return
            last = attempt == self._schedule.attempts
            if last or running.cancelled.wait(self._schedule.wait_seconds(attempt)):
                break
        log.error("rotation.abandoned", secret=arn, version=running.token)

    def _note_success(self, arn: str, token: str) -> None:
        now = self._store.now()
        self._store.change(arn, lambda before: replace(before, last_rotated_at=now))
        log.info("rotation.finished", secret=arn, version=token)

    def _test(self, arn: str, running: _Running, rotator: Rotator) -> None:
        try:
            self._steps_succeed(arn, running, rotator, ("testSecret",))
        finally:
            self._store.change(arn, lambda before: before.without_version(running.token))

    def _steps_succeed(self, arn: str, running: _Running, rotator: Rotator, steps: tuple[str, ...]) -> bool:
        for step in steps:
            if running.cancelled.is_set():
                return True
            try:
                rotator({"Step": step, "SecretId": arn, "ClientRequestToken": running.token})
            except Exception as error:  # noqa: BLE001 - a rotation function may raise anything, as a Lambda may
                # The type only: the text may hold what the function was working with.
                log.warning("rotation.step_failed", secret=arn, step=step, error=type(error).__name__)
                return False
        return True


def _prepared(secret: Secret, request: Request, *, token: str, now: float) -> Secret:
    configured = replace(
        usable(secret),
        rotation_enabled=True,
        rotation_function_arn=request.get("RotationLambdaARN") or secret.rotation_function_arn,
        rotation_rules=request.get("RotationRules") or secret.rotation_rules,
        changed_at=now,
    )
    # Without a value: createSecret has to put one.  Until then reading AWSPENDING finds nothing.
    empty = configured.with_version(Version(id=token, created_at=now))
    return secret_labels.attach(empty, PENDING, version_id=token)


def _disabled(secret: Secret) -> Secret:
    if not usable(secret).rotation_function_arn:
        raise ServiceError("InvalidRequestException", _NO_FUNCTION)
    return replace(secret, rotation_enabled=False)


def _identity(secret: Secret, version_id: str | None) -> Response:
    named = {} if version_id is None else {"VersionId": version_id}
    return {"ARN": secret.arn, "Name": secret.name, **named}
