"""
How are the older sessions of a role ended in PostgreSQL?

By the role itself, which may always end its own; by the administrator where that was taken away.  Only on the
server that the secret names: what is logged in on a replica is not seen from there.
"""

import time
from typing import TYPE_CHECKING, Final

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret
from ledger_db.event_log import EventLog
from ledger_db.rotation.postgres_admin import admin_of, past_proxy
from ledger_db.rotation.postgres_login import RoleIsFull, session
from ledger_db.rotation.protocol import Deadline, ServerProblem, Tools
from ledger_db.rotation.sessions import Ended

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - it is a class

log: EventLog = EventLog(__name__)

# On the server's clock: a session begins before its login, so one of the old password always does.
_OLD: Final = (
    " FROM pg_catalog.pg_stat_activity WHERE usename = %s AND pid <> pg_catalog.pg_backend_pid()"
    " AND backend_type IN ('client backend', 'walsender')"
    " AND backend_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %s)"
)
_GONE_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.05


def end_sessions(secret: Secret, tools: Tools, since: float, deadline: Deadline) -> Ended:
    """End what is logged in as the role of *secret* from before *since*; see `EndsSessions`."""
    try:
        return _end_as(past_proxy(secret, tools), secret.username, tools, since, deadline)
    except ServerProblem as problem:
        # Full of the sessions that are to end, for example.
        is_kept_out = isinstance(problem, RoleIsFull) or problem.reason is Reason.FORBIDDEN
        if not is_kept_out or secret.administrator_field is None:
            raise
        return _end_as(admin_of(secret, tools), secret.username, tools, since, deadline)


def _end_as(who: Secret, role: str, tools: Tools, since: float, deadline: Deadline) -> Ended:
    with session(who, tools.tls, deadline, proven=False) as cursor:
        told = _one(cursor, "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid))", role, since)
        give_up = Deadline(min(deadline.ends_at, Deadline.after(_GONE_SECONDS).ends_at))
        while (left := _one(cursor, "SELECT pg_catalog.count(*)", role, since)) and give_up.remaining_seconds:
            time.sleep(_POLL_SECONDS)
            # Otherwise a transaction sees the same sessions for as long as it lasts.
            cursor.execute("SELECT pg_catalog.pg_stat_clear_snapshot()")
    log.info("rotation.sessions_ended", role=role, action=f"{told - left} ended, {left} left")
    return Ended(told - left, left)


def _one(cursor: "Cursor", question: str, role: str, since: float) -> int:
    cursor.execute(question + _OLD, (role, time.monotonic() - since))
    row = cursor.fetchone()
    return 0 if row is None else int(row[0])
