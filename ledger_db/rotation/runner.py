"""
How is one call carried out, wherever it comes from: Lambda, a terminal, a sandbox?

The runner reads the labels, checks that the secret is allowed, picks the strategy, runs the step, measures
and announces.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ledger_db.answers.announcement import Announcement
from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret
from ledger_db.answers.tls import TLS
from ledger_db.errors import LedgerDBError
from ledger_db.event_log import EventLog
from ledger_db.rotation import journal
from ledger_db.rotation.case import Case
from ledger_db.rotation.failures import EventInvalid, SecretNotAllowed, Stopped, explained
from ledger_db.rotation.labels import CURRENT, PENDING, PREVIOUS
from ledger_db.rotation.passwords import PasswordRules
from ledger_db.rotation.protocol import Deadline, Probe, Tools
from ledger_db.rotation.repair import Repair, Repaired
from ledger_db.rotation.request import Request, is_allowed
from ledger_db.rotation.retiring import Retired, retire
from ledger_db.rotation.steps import Outcome, Steps
from ledger_db.rotation.strategies import STRATEGIES, check, strategy_of
from ledger_db.rotation.versions import VISIBLE_SECONDS, Versions

log: EventLog = EventLog(__name__)


class Announces(Protocol):
    """Tells services that a rotation has ended; never raises."""

    def announce(self, announcement: Announcement, deadline: Deadline) -> object:
        """Say that AWSCURRENT of a secret is another version now; no value is told."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """
    What this installation allows and wants.

    Attributes:
        allowed: Names, ARNs or patterns of the secrets that may be rotated.

        strategy: For secrets that do not name one; None to go by the engine.

        tls: How servers are connected to.

        passwords: What new passwords are made of.

        only_if_enabled: Refuse a secret whose rotation was cancelled.

        visible_seconds: How long a value that was put just now may take to be seen.

        urgent: Whether services are asked to end older sessions at once, whatever it costs the servers.
    """

    allowed: tuple[str, ...]
    strategy: str | None = None
    tls: TLS = field(default_factory=TLS)
    passwords: PasswordRules = field(default_factory=PasswordRules)
    only_if_enabled: bool = False
    visible_seconds: float = VISIBLE_SECONDS
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """
    What a dry run sees.

    Attributes:
        strategy: Which one a rotation would use.

        versions: Label to version id.

        probes: Label to what came of a login with it.

        drift: What is not as it should be around the users.
    """

    strategy: str
    versions: Mapping[str, str]
    probes: Mapping[str, Probe]
    drift: tuple[str, ...]


class Runner:
    """
    Carries out steps, repairs and dry runs.

    Args:
        rules: What is allowed.

        client: Makes boto3 clients by the name of the service; asked again each time, so it may cache.

        announcer: Makes who is told of every rotation that ended; nobody if None.

        emit: Gets lines of metrics; nobody if None.
    """

    def __init__(
        self,
        rules: Rules,
        client: Callable[[str], Any],
        *,
        announcer: Callable[[Tools], Announces] | None = None,
        emit: Callable[[str], None] | None = None,
    ) -> None:
        self._rules = rules
        self._client = client
        self._announcer = announcer
        self._emit = emit
        # Since when only AWSPENDING logs in, by token; on the clock of time.monotonic.  In memory only: the
        # four calls of a rotation nearly always meet the same warm process, and a metric is worth no more.
        self._gaps: dict[str, float] = {}

    def step(self, request: Request, deadline: Deadline) -> Outcome:
        """
        Do one step.

        Raises:
            StepFailed: See its message.
        """
        began = time.monotonic()
        strategy, outcome = "unknown", "failed"
        try:
            where = f"{request.step} of {request.secret_id}"
            case = self.open(request.secret_id, deadline, where, rotation_token=request.rotation_token)
            strategy = case.rotator.strategy
            steps = Steps(case.versions, case.rotator, deadline, current=case.current, token=request.token)
            done = steps.run(request.step, case.labels)
            outcome = done.value
            if done is Outcome.DONE:
                self._after(request, case, deadline)
        except Exception as error:
            # The class and no traceback: whoever called gets that; a log gets chosen fields only.
            fields = {"step": request.step, "secret": request.secret_id, "error": type(error).__name__}
            log.error("step.failed", **fields)
            raise
        finally:
            self._measure(request, deadline, strategy=strategy, outcome=outcome, began=began)
        return done

    def repair(self, secret_id: str, deadline: Deadline) -> Repaired:
        """
        Bring a rotation that stopped half way to a consistent end.

        Raises:
            StepFailed: See its message.
        """
        case = self.open(secret_id, deadline, f"repair of {secret_id}")
        done = Repair(case.versions, case.rotator, deadline, current=case.current).run(case.labels)
        if done is Repaired.FINISHED and case.labels.pending is not None:
            self._announce(case, case.labels.pending, deadline)
        return done

    def retire(self, secret_id: str, deadline: Deadline) -> Retired:
        """
        End the overlap in which the password before AWSCURRENT logs in too, or say what ends it.

        Raises:
            StepFailed: AWSCURRENT does not log in, so nothing was changed; or there is no clear answer.
        """
        where = f"retirement for {secret_id}"
        case = self.open(secret_id, deadline, where)
        with explained(where, lambda: "AWSCURRENT is unchanged"):
            return retire(case, deadline)

    def examine(self, secret_id: str, deadline: Deadline) -> Findings:
        """
        Look at everything and change nothing.

        Raises:
            StepFailed: The secret could not be read, or the administrator not log in.
        """
        where = f"dry run of {secret_id}"
        case = self.open(secret_id, deadline, where)
        with explained(where, lambda: "nothing was changed"):
            case.rotator.next_secret(case.current)
            holders = case.labels.holders
            secrets = {CURRENT: case.current, PREVIOUS: case.versions.previous()}
            if case.labels.pending is not None:
                secrets[PENDING] = case.versions.pending(case.labels.pending)
            probes = {
                label: Probe(Reason.FAILED_CHECK, "it holds no value")
                if secret is None
                else case.rotator.probe(secret, deadline)
                for label, secret in secrets.items()
                if label in holders
            }
            return Findings(
                case.rotator.strategy, holders, probes, case.rotator.drift(case.current, deadline)
            )

    def open(
        self, secret_id: str, deadline: Deadline, where: str, *, rotation_token: str | None = None
    ) -> Case:
        """
        Look at a secret, and choose who can rotate it; nothing is changed.

        Args:
            secret_id: Name or ARN.

            deadline: For everything that is done through what is returned.

            where: What this is for, for messages.

            rotation_token: See `Versions`.

        Raises:
            StepFailed: It may not be rotated, could not be read, or is not for any strategy.
        """
        try:
            client = self._client("secretsmanager")
        except LedgerDBError as error:
            # Not a failed step: without a region, or with half a key, there is nobody to have a step with.
            raise type(error)(f"{where}: nothing was changed; {error}") from error
        versions = Versions(
            client,
            secret_id,
            deadline,
            rotation_token=rotation_token,
            visible_seconds=self._rules.visible_seconds,
        )
        with explained(where, lambda: "nothing was changed"):
            labels = versions.labels()
            if not is_allowed(labels, self._rules.allowed):
                raise Stopped(SecretNotAllowed, "this function is not configured to rotate that secret")
            if self._rules.only_if_enabled and labels.rotation_enabled is False:
                raise Stopped(EventInvalid, "rotation is not enabled for that secret")
            current = versions.current()
            strategy = strategy_of(current, configured=self._rules.strategy)
            check(current, strategy)
            rotator = STRATEGIES[strategy](self._tools(deadline))
        return Case(versions, labels, current, rotator)

    def _after(self, request: Request, case: Case, deadline: Deadline) -> None:
        if request.step == "setSecret" and not case.rotator.keeps_current:
            self._gaps[request.token] = time.monotonic()
        if request.step != "finishSecret":
            return
        began = self._gaps.pop(request.token, None)
        if case.rotator.keeps_current or began is not None:
            gap_ms = 0.0 if began is None else 1000 * (time.monotonic() - began)
            self._write({"CredentialGapMs": gap_ms}, {"strategy": case.rotator.strategy})
        self._announce(case, request.token, deadline)

    def _announce(self, case: Case, version: str, deadline: Deadline) -> None:
        if self._announcer is not None:
            announcer = self._announcer(self._tools(deadline))
            announcement = Announcement(
                case.labels.arn, version, case.rotator.strategy, urgent=self._rules.urgent
            )
            announcer.announce(announcement, deadline)

    def _tools(self, deadline: Deadline) -> Tools:
        def read_secret(secret_id: str) -> Secret:
            return Versions(self._client("secretsmanager"), secret_id, deadline).current()

        return Tools(
            read_secret=read_secret,
            client=self._client,
            tls=self._rules.tls,
            passwords=self._rules.passwords,
        )

    def _measure(
        self, request: Request, deadline: Deadline, *, strategy: str, outcome: str, began: float
    ) -> None:
        duration_ms = 1000 * (time.monotonic() - began)
        dimensions = {"step": request.step, "strategy": strategy, "outcome": outcome}
        self._write({"StepDuration": duration_ms, "Outcome": 1}, dimensions)
        fields = {"duration_ms": round(duration_ms), "remaining_ms": round(1000 * deadline.remaining_seconds)}
        names = {"secret": request.secret_id, "version": request.token}
        log.info("step.ended", **dimensions, **names, **fields)

    def _write(self, figures: Mapping[str, float], dimensions: Mapping[str, str]) -> None:
        if self._emit is not None:
            self._emit(journal.metrics_line(figures, dimensions=dimensions))
