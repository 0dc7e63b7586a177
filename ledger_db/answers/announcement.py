"""
What does an announcement of a rotation say, and which secret does it mean?

    {"secret_id": "trust-ledger/postgres", "version_id": "5f0c...", "strategy": "alternating-users"}

There is no value in it.  Whoever can publish can at most cause a read of Secrets Manager: nothing that an
announcement says is believed further than that.  That it is urgent counts only if the read brings a new
version.
"""

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final

DEFAULT_CHANNEL: Final = "ledger_db:rotations"
"""The Redis channel on which rotations are announced and services listen, if nobody says otherwise."""

_MOST_BYTES = 4096
# Longest name of a secret (512) plus what stands before it in an ARN.
_MOST_CHARACTERS = 640
# Secrets Manager appends a hyphen and six characters to the name; whoever writes an ARN may leave them out.
_SUFFIX = re.compile(r"-[A-Za-z0-9]{6}\Z")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Announcement:
    """
    Somebody says that AWSCURRENT of a secret moved.

    Attributes:
        secret_id: Name or ARN.

        version_id: Which version it moved to; None if the announcement does not say.

        strategy: How it was rotated, for log lines; None if the announcement does not say.

        urgent: Whether sessions with the older version shall end soon, at the price of many logins at once.
    """

    secret_id: str
    version_id: str | None = None
    strategy: str | None = None
    urgent: bool = False

    def to_json(self) -> str:
        """Return the message that `parse` reads; what goes without saying is not said."""
        return json.dumps({name: value for name, value in asdict(self).items() if value})


def parse(message: bytes) -> Announcement | None:
    """Return what *message* announces; None if it is malformed or longer than any announcement."""
    if len(message) > _MOST_BYTES:
        return None
    value: object = None
    # RecursionError: a message of brackets only.
    with suppress(ValueError, RecursionError):
        value = json.loads(message)
    if not isinstance(value, dict):
        return None
    secret_id = printable(value.get("secret_id"))
    if secret_id is None:
        return None
    return Announcement(
        secret_id,
        printable(value.get("version_id")),
        printable(value.get("strategy")),
        urgent=value.get("urgent") is True,
    )


def is_same_secret(one: str, other: str) -> bool:
    """
    Return whether two ids, each a name or an ARN, may mean the same secret.

    Region and account are not compared: a replica has the name of its primary and another region, and is
    rotated with it.  One read too many is the price of a name that exists twice.
    """
    return bool(_names(one) & _names(other))


def printable(value: object) -> str | None:
    """Return *value* if it is text that may go into a log line: a line feed would write one of its own."""
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_CHARACTERS or _UNPRINTABLE.search(value):
        return None
    return value


def _names(secret_id: str) -> set[str]:
    if not secret_id.startswith("arn:"):
        return {secret_id}
    resource = secret_id.partition(":secret:")[2]
    # Both, because an ARN without its suffix cannot be told from one whose name ends like a suffix.
    return {resource, _SUFFIX.sub("", resource)} - {""}
