"""What do the answers of Secrets Manager say: labels, values, refusals?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger_db.answers.secret import AnswerProblem, Secret, secret_in
from ledger_db.rotation.failures import SecretsManagerDenied, SecretsManagerFailed, Stopped

CURRENT: Final = "AWSCURRENT"
PENDING: Final = "AWSPENDING"
PREVIOUS: Final = "AWSPREVIOUS"

_TRANSIENT = (
    "Throttling",
    "TooManyRequests",
    "RequestLimit",
    "InternalService",
    "InternalFailure",
    "ServiceUn",
)
_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Labels:
    """
    Who carries which label.

    Attributes:
        arn: Of the secret.

        name: Of the secret.

        rotation_enabled: None if rotation was never configured.

        holders: Label to version id.
    """

    arn: str
    name: str
    rotation_enabled: bool | None
    holders: Mapping[str, str]

    @property
    def current(self) -> str | None:
        """The version with AWSCURRENT; None for a secret without a value."""
        return self.holders.get(CURRENT)

    @property
    def pending(self) -> str | None:
        """
        The version that waits to become the current one.

        AWSPENDING beside AWSCURRENT is what other rotation functions leave behind when they are done.
        """
        pending = self.holders.get(PENDING)
        return None if pending == self.current else pending


def secret_from(answer: Mapping[str, Any], *, name: str) -> Secret:
    """
    Make a secret of an answer of GetSecretValue.

    Raises:
        SecretProblem: It is no JSON object.

        Stopped: It is no such answer.
    """
    try:
        return secret_in(answer, name=name)
    except AnswerProblem as error:
        raise Stopped(SecretsManagerFailed, str(error)) from error


def code_of(error: Any) -> str:
    """Return AWS's code of a ClientError."""
    return str(error.response.get("Error", {}).get("Code", ""))


def problem_of(operation: str, error: Any) -> Stopped:
    """Return what a ClientError of *operation* means for a rotation."""
    code = code_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    transient = code.startswith(_TRANSIENT) or status >= _SERVER_ERROR
    return Stopped(
        SecretsManagerFailed if transient else SecretsManagerDenied,
        f"{operation} of Secrets Manager answered {code or status}",
    )
