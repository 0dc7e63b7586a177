"""
A second, small Lambda function: how do services hear of a secret that somebody else changed?

Secrets Manager tells EventBridge whenever AWSCURRENT moves: by a managed rotation of RDS, by a person, by any
other function.  A rule hands such an event to `event_handler`, which announces it as our own rotations are.

    {"source": ["aws.secretsmanager"], "detail-type": ["Secret Label Updated"],
     "detail": {"labelUpdated": ["AWSCURRENT"]}}
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from ledger_db.answers.announcement import Announcement, printable
from ledger_db.answers.secret import Secret
from ledger_db.event_log import EventLog
from ledger_db.rotation import journal
from ledger_db.rotation.announce import Announcer
from ledger_db.rotation.protocol import Deadline, Tools

log: EventLog = EventLog(__name__)

STRATEGY = "label-updated"
"""What announcements say: how the secret came to its new version is not in the event."""

_MARGIN_SECONDS: Final = 1.0


class Context(Protocol):
    """What Lambda tells a function about its call."""

    def get_remaining_time_in_millis(self) -> int:
        """How long until it is ended."""
        ...


def event_handler(event: Mapping[str, Any], context: Context) -> None:
    """
    Announce what *event* tells, if it tells that AWSCURRENT moved; anything else is ignored.

    Never raises for what is in the event: EventBridge would send it again, and it would be no better.

    Args:
        event: As EventBridge delivers it.

        context: Says how much time there is.
    """
    journal.write_to_standard_output()
    moved = moved_in(event)
    if moved is None:
        log.warning("event.ignored", error="not a move of AWSCURRENT")
        return
    deadline = Deadline.after(context.get_remaining_time_in_millis() / 1000 - _MARGIN_SECONDS)
    Announcer(_tools(deadline)).announce(moved, deadline)


def moved_in(event: Mapping[str, Any]) -> Announcement | None:
    """Return whose AWSCURRENT moved; None if *event* is about something else, or malformed."""
    detail = event.get("detail")
    if (event.get("source"), event.get("detail-type")) != ("aws.secretsmanager", "Secret Label Updated"):
        return None
    if not isinstance(detail, Mapping) or detail.get("labelUpdated") != "AWSCURRENT":
        return None
    resources = event.get("resources")
    arn = resources[0] if isinstance(resources, list) and resources else None
    secret_id, version_id = printable(arn or detail.get("name")), printable(detail.get("versionId"))
    if secret_id is None or version_id is None:
        return None
    return Announcement(secret_id, version_id, STRATEGY)


def _tools(deadline: Deadline) -> Tools:
    from ledger_db.rotation.handler import client_maker  # noqa: PLC0415 - an ignored event needs none of it
    from ledger_db.rotation.versions import Versions  # noqa: PLC0415 - as above

    client = client_maker()

    def read_secret(secret_id: str) -> Secret:
        return Versions(client("secretsmanager"), secret_id, deadline).current()

    return Tools(read_secret=read_secret, client=client)
