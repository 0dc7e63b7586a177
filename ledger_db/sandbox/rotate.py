"""
How does a sandbox rotate its credentials: with the rotation function itself, in this process.

What a sandbox adds is a window: a wait between the change on the server and AWSCURRENT, for services to be
looked at in the very state in which others fail.
"""

import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ledger_db.answers.aws_client import make_client
from ledger_db.answers.tls import TLS
from ledger_db.rotation.failures import ForeignRotation
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.request import Request
from ledger_db.rotation.runner import Rules, Runner
from ledger_db.rotation.steps import STEPS

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

Strategy = Literal["single-user", "alternating-users"]
"""A rotation of one role's password, or of two roles in turn, as Secrets Manager calls them."""

Event = dict[str, str]

REGION: Final = "us-east-1"
# The stand-in checks no signature; real keys must never get here, as they would be sent in clear.
DUMMY_KEY: Final = "sandbox"

_STRATEGIES: Final[dict[str, str]] = {
    "single-user": "postgres-single",
    "alternating-users": "postgres-alternating",
}
_STEP_SECONDS: Final = 30.0
# Answers may be made slow on purpose.
_READ_SECONDS: Final = 10.0
_ATTEMPTS: Final = 3


class SandboxRotator:
    """
    The rotation function as Secrets Manager sees it: called once a step.

    Args:
        client: For Secrets Manager.

        strategy: ``single-user`` or ``alternating-users``; None for what the secret is for.

        ca_file: What to trust if the servers insist on TLS, else None.

        window_seconds: How long finishSecret waits before it does anything.
    """

    def __init__(
        self,
        client: "SecretsManagerClient",
        strategy: Strategy | None = None,
        *,
        ca_file: Path | None = None,
        window_seconds: float = 0.0,
    ) -> None:
        if strategy is not None and strategy not in _STRATEGIES:
            raise ValueError(f"there is no strategy {strategy!r}; it is single-user or alternating-users")
        tls = TLS(mode="disable") if ca_file is None else TLS(mode="verify-full", ca_file=str(ca_file))
        # Everything in a sandbox is there to be rotated.
        rules = Rules(allowed=("*",), strategy=None if strategy is None else _STRATEGIES[strategy], tls=tls)
        self._runner = Runner(rules, lambda _: client)
        self._window_seconds = window_seconds

    def __call__(self, event: Event) -> None:
        """
        Do the step that *event* names.

        Raises:
            RotationFailed: With the step, the secret's name, and what is true now.
        """
        if event["Step"] == "finishSecret":
            time.sleep(self._window_seconds)
        self._runner.step(Request.from_event(event), Deadline.after(_STEP_SECONDS))

    def repair(self, secret_id: str) -> None:
        """
        Bring a rotation that stopped half way to a good end.

        Raises:
            RotationFailed: It could not.
        """
        self._runner.repair(secret_id, Deadline.after(_STEP_SECONDS))


def run(secret_id: str, rotator: SandboxRotator) -> str:
    """
    Run the four steps, once; what an earlier rotation left behind is repaired first.

    Returns:
        The id of the new version.

    Raises:
        RotationFailed: With the step, the secret's name, and what is true now.
    """
    event = {"SecretId": secret_id, "ClientRequestToken": str(uuid.uuid4())}
    try:
        rotator({**event, "Step": STEPS[0]})
    except ForeignRotation:
        rotator.repair(secret_id)
        rotator({**event, "Step": STEPS[0]})
    for step in STEPS[1:]:
        rotator({**event, "Step": step})
    return event["ClientRequestToken"]


def function(url: str, ca_file: Path | None) -> SandboxRotator:
    """
    Return what a Secrets Manager stand-in calls for RotateSecret.

    Args:
        url: Where the stand-in is.

        ca_file: What to trust if the servers insist on TLS, else None.
    """
    return SandboxRotator(client_of(url), ca_file=ca_file)


def client_of(url: str) -> "SecretsManagerClient":
    """Return a boto3 client for the stand-in at *url*; the caller closes it."""
    client: SecretsManagerClient = make_client(
        "secretsmanager",
        region=REGION,
        read_timeout_seconds=_READ_SECONDS,
        attempts=_ATTEMPTS,
        endpoint_url=url,
        key=DUMMY_KEY,
    )
    return client
