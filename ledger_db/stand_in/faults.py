"""What goes wrong on purpose, for which requests, and how often?"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from ledger_db.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One thing that goes wrong.

    Attributes:
        operation: ``GetSecretValue`` for example; ``*`` for any.

        times: How many requests it hits; None for all until it is cleared.

        code: Answer with this error; None answers as usual (after the delay).

        status: The HTTP status of that error.

        message: Its text.

        delay_seconds: Wait before anything else.

        drop: Close the connection without an answer.

        garbage: Answer 200 with a body that is no JSON.

        executed: Carry the operation out before the answer is spoiled, as when only the answer is lost.

        secret_id: Only requests for this secret: name or ARN.

        stage: Only requests that name this staging label, or mean it: reading without one means AWSCURRENT.
    """

    operation: str = "*"
    times: int | None = 1
    code: str | None = None
    status: int = 400
    message: str = "Injected by the sandbox."
    delay_seconds: float = 0.0
    drop: bool = False
    garbage: bool = False
    executed: bool = False
    secret_id: str | None = None
    stage: str | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """
        Read what another process sent.

        Raises:
            ConfigurationError: A field is unknown or of the wrong type.
        """
        known = {one.name: type(one.default) for one in fields(cls)}
        for name, given in document.items():
            if name not in known:
                raise ConfigurationError(
                    f"A fault has no field {name!r}; nothing was injected.  "
                    f"Use one of: {', '.join(sorted(known))}."
                )
            if not _fits(name, given, known[name]):
                raise ConfigurationError(
                    f"The field {name!r} of a fault cannot be {given!r}; nothing was injected.  "
                    f"The documentation of Fault says what it can be."
                )
        return cls(**document)

    @property
    def spoils_the_answer(self) -> bool:
        """Whether the caller gets something else than the operation's answer."""
        return self.drop or self.garbage or self.code is not None

    def to_json(self) -> dict[str, Any]:
        """The same, for another process."""
        return asdict(self)


class FaultPlan:
    """The faults that are due.  Safe to use from many threads."""

    def __init__(self) -> None:
        # Guards _faults: two requests must not both use up the last hit of a fault.  No fault is carried out
        # under it, since one may wait for seconds.
        self._choosing = threading.Lock()
        self._faults: tuple[Fault, ...] = ()

    def inject(self, *faults: Fault) -> None:
        """Add *faults* behind those that are there."""
        with self._choosing:
            self._faults += faults

    def replace(self, faults: Iterable[Fault]) -> None:
        """Put *faults* in place of all that are there."""
        with self._choosing:
            self._faults = tuple(faults)

    def pending(self) -> tuple[Fault, ...]:
        """What has not been used up."""
        return self._faults

    def take(self, operation: str, *, secret_ids: Iterable[str], stages: Iterable[str]) -> Fault | None:
        """
        Use up one hit of the first fault that matches a request.

        Args:
            operation: Its name.

            secret_ids: Every name that the secret has: as requested, short, ARN.

            stages: The labels that the request names or means.
        """
        with self._choosing:
            for position, fault in enumerate(self._faults):
                if _matches(fault, operation, set(secret_ids), set(stages)):
                    rest = self._faults[position + 1 :]
                    self._faults = self._faults[:position] + _used(fault) + rest
                    return fault
        return None


def throttled(operation: str = "*", *, times: int | None = 1) -> Fault:
    """Too many requests: SDKs wait and repeat."""
    return Fault(operation, times, code="ThrottlingException", message="Rate exceeded")


def unavailable(operation: str = "*", *, times: int | None = 1) -> Fault:
    """The service has a problem of its own: HTTP 500."""
    return Fault(
        operation,
        times,
        code="InternalServiceError",
        status=500,
        message="An error occurred on the server side.",
    )


def access_denied(operation: str = "*", *, times: int | None = None, stage: str | None = None) -> Fault:
    """The caller's policy does not allow it, for the label *stage* or at all."""
    message = (
        "User: arn:aws:sts::000000000000:assumed-role/sandbox/application is not authorized to perform this "
        "operation because no identity-based policy allows the action"
    )
    return Fault(operation, times, code="AccessDeniedException", message=message, stage=stage)


def slow(delay_seconds: float, operation: str = "*", *, times: int | None = None) -> Fault:
    """The right answer, late."""
    return Fault(operation, times, delay_seconds=delay_seconds)


def dropped(operation: str = "*", *, times: int | None = 1) -> Fault:
    """The connection is closed without an answer, and nothing was done."""
    return Fault(operation, times, drop=True)


def lost_answer(operation: str = "*", *, times: int | None = 1) -> Fault:
    """The operation is done, but the caller does not learn it: what idempotency tokens are for."""
    return Fault(operation, times, drop=True, executed=True)


def rubbish(operation: str = "*", *, times: int | None = 1) -> Fault:
    """HTTP 200 and a body that is no JSON, as from a proxy; boto3 then returns a dict without the fields."""
    return Fault(operation, times, garbage=True)


def pending_without_value(*, times: int | None = None) -> Fault:
    """AWSPENDING is on a version without a value: how a rotation begins, and what a failed one may leave."""
    return Fault(
        "GetSecretValue",
        times,
        code="ResourceNotFoundException",
        message="Secrets Manager can't find the specified secret value for staging label: AWSPENDING",
        stage="AWSPENDING",
    )


def _matches(fault: Fault, operation: str, secret_ids: set[str], stages: set[str]) -> bool:
    return (
        fault.operation in ("*", operation)
        and (fault.secret_id is None or fault.secret_id in secret_ids)
        and (fault.stage is None or fault.stage in stages)
    )


def _used(fault: Fault) -> tuple[Fault, ...]:
    if fault.times is None:
        return (fault,)
    return (replace(fault, times=fault.times - 1),) if fault.times > 1 else ()


def _fits(name: str, given: object, kind: type) -> bool:
    if name == "times":
        return given is None or (isinstance(given, int) and not isinstance(given, bool) and given > 0)
    if name == "delay_seconds":
        return isinstance(given, int | float) and not isinstance(given, bool) and given >= 0
    if kind is type(None):
        return given is None or isinstance(given, str)
    return type(given) is kind
