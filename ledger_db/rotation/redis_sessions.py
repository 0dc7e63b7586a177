"""How are the older sessions of a user ended in Redis or Valkey?"""

import time
from typing import TYPE_CHECKING, Final

from ledger_db.event_log import EventLog
from ledger_db.rotation.redis_login import Node
from ledger_db.rotation.sessions import Ended

if TYPE_CHECKING:
    import redis

log: EventLog = EventLog(__name__)

CLOCK_SECONDS: Final = 2.5
"""The server knows the age of a session in whole seconds, by a clock that it looks at now and then."""


def end_sessions(client: "redis.Redis", node: Node, user: str, since: float) -> Ended:
    """End what is logged in to *node* as *user* from before *since*; see `EndsSessions`."""
    old = _older(client, user, since)
    for session in old:
        client.client_kill_filter(_id=session)
    left = len(set(old) & set(_older(client, user, since)))
    log.info("rotation.sessions_ended", role=user, action=f"{len(old) - left} ended, {left} left at {node}")
    return Ended(len(old) - left, left)


def _older(client: "redis.Redis", user: str, since: float) -> list[str]:
    # A second for the one that the server's clock may be late.
    age_seconds = time.monotonic() - since - 1.0
    return [
        str(session["id"])
        for session in client.client_list()
        if session.get("user") == user and float(session["age"]) > age_seconds
    ]
