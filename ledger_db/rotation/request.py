"""What does Secrets Manager ask for, and does the event deserve an answer?"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from ledger_db.rotation.failures import EventInvalid
from ledger_db.rotation.labels import Labels
from ledger_db.rotation.steps import STEPS

# A line feed in a name would write a line of its own into a log (CWE-117).
_NAME: Final = re.compile(r"[!-~]{1,2048}")
TOKEN: Final = re.compile(r"[A-Za-z0-9_.:/+=-]{32,64}")
_MOST_ROTATION_TOKEN: Final = 2048
_ARN_SUFFIX_LENGTH: Final = len("-AbCdEf")
GRACE_SECONDS: Final = 30.0
# Lambda ends every call after 900 s.
_MOST_GRACE_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Request:
    """
    One call of a step.

    Attributes:
        step: One of the four.

        secret_id: Name or ARN of the secret.

        token: Id of the version that the rotation makes.

        rotation_token: Passed on to PutSecretValue; sensitive.
    """

    step: str
    secret_id: str
    token: str
    rotation_token: str | None = field(default=None, repr=False)

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> "Request":
        """
        Read an event of Secrets Manager.

        Raises:
            EventInvalid: Names the field, never what is in it: it may be anything.
        """
        rotation_token = event.get("RotationToken")
        well_formed = {
            "Step": event.get("Step") in STEPS,
            "SecretId": _matches(_NAME, event.get("SecretId")),
            "ClientRequestToken": _matches(TOKEN, event.get("ClientRequestToken")),
            "RotationToken": rotation_token is None
            or (isinstance(rotation_token, str) and 0 < len(rotation_token) <= _MOST_ROTATION_TOKEN),
        }
        wrong = [name for name, good in well_formed.items() if not good]
        if wrong:
            raise EventInvalid(
                f"the event's {', '.join(wrong)} is missing or malformed; nothing was changed; "
                f"{EventInvalid.next_move}"
            )
        return cls(event["Step"], event["SecretId"], event["ClientRequestToken"], rotation_token)


@dataclass(frozen=True, slots=True)
class LeakReport:
    """
    A person's word that a password has leaked: ``{"Compromised": "prod/ledger", "GraceSeconds": 30}``.

    Attributes:
        secret_id: Name or ARN of the secret.

        grace_seconds: How long services have to come over.
    """

    secret_id: str
    grace_seconds: float

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> "LeakReport":
        """
        Read such an event; whatever has the field ``Compromised`` is meant as one.

        Raises:
            EventInvalid: Names the field, never what is in it.
        """
        grace_seconds = event.get("GraceSeconds", GRACE_SECONDS)
        is_number = isinstance(grace_seconds, int | float) and not isinstance(grace_seconds, bool)
        well_formed = {
            "Compromised": _matches(_NAME, event.get("Compromised")),
            "GraceSeconds": is_number and 0 <= grace_seconds <= _MOST_GRACE_SECONDS,
            # Not ignored: an event that is half a step is nobody's wish.
            "other fields": event.keys() <= {"Compromised", "GraceSeconds"},
        }
        wrong = [name for name, good in well_formed.items() if not good]
        if wrong:
            raise EventInvalid(
                f"the event's {', '.join(wrong)} is missing or malformed; nothing was changed; "
                "a leak is told as 'Compromised', a secret, and 'GraceSeconds', 0 to 600"
            )
        return cls(event["Compromised"], float(grace_seconds))


def is_allowed(labels: Labels, allowed: tuple[str, ...]) -> bool:
    """
    Whether the secret is one of *allowed*: names, ARNs, or patterns of either with ``*`` and ``?``.

    An ARN may lack the six characters that Secrets Manager adds, as people who know the name write it.

    What Secrets Manager says that the secret is called counts, not what the event calls it.
    """
    names = (labels.arn, labels.arn[:-_ARN_SUFFIX_LENGTH], labels.name)
    return any(fnmatchcase(name, pattern) for pattern in allowed for name in names if pattern)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
