"""One deployer after the other: PostgreSQL's advisory lock, and what limits a migration's statements."""

import random
import time
from dataclasses import dataclass
from hashlib import sha256
from itertools import count

from sqlalchemy import Connection, text

from ledger_db.backoff import Backoff, equal_jitter
from ledger_db.errors import Retryable
from ledger_db.event_log import EventLog

log: EventLog = EventLog(__name__)

_PAUSE = Backoff(first_seconds=0.05, most_seconds=1.0)


class MigrationsBusy(Retryable):
    """Somebody else migrated this database for as long as this one may wait; nothing was changed here."""

    __module__ = "ledger_db.migrations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """
    How a migration behaves on PostgreSQL.  Times are in seconds; None for the server's default.

    Attributes:
        turn_timeout_seconds: How long to wait while somebody else migrates the same database.

        lock_timeout_seconds: How long a statement may wait for a table.

        statement_timeout_seconds: How long a statement may take.

        role: Whose the new tables are; None for who logs in.
    """

    turn_timeout_seconds: float
    lock_timeout_seconds: float | None
    statement_timeout_seconds: float | None
    role: str | None

    def settings(self) -> dict[str, str]:
        """Return them as PostgreSQL's, times in milliseconds."""
        limits = {
            "lock_timeout": self.lock_timeout_seconds,
            "statement_timeout": self.statement_timeout_seconds,
        }
        chosen = {name: str(max(1, round(s * 1000))) for name, s in limits.items() if s is not None}
        return chosen if self.role is None else {**chosen, "role": self.role}


def apply(rules: Rules, connection: Connection) -> None:
    """Set *rules* until the transaction that *connection* is in ends, or its session if it is in none."""
    local = connection.in_transaction()
    for name, value in rules.settings().items():
        connection.execute(
            text("SELECT set_config(:name, :value, :local)"), {"name": name, "value": value, "local": local}
        )
    if not local:
        connection.commit()


def wait_for_turn(connection: Connection, schema: str | None, *, timeout_seconds: float) -> None:
    """
    Take the lock of this database's migrations, until the transaction or the session ends; see `apply`.

    Args:
        connection: Whose.

        schema: Where the version table is: programs with a schema each do not wait for each other.

        timeout_seconds: How long.

    Raises:
        MigrationsBusy: Somebody else had it all that time.
    """
    deadline = time.monotonic() + timeout_seconds
    for attempt in count(1):
        if _try(connection, schema):
            return
        if time.monotonic() >= deadline:
            raise MigrationsBusy(
                f"somebody else has been migrating this database for {timeout_seconds:g} s; nothing was "
                "changed here; see in pg_locks, locktype 'advisory', who it is, then try again"
            )
        if attempt == 1:
            log.warning("migrations.waiting", timeout_seconds=timeout_seconds)
        time.sleep(equal_jitter(_PAUSE.after(attempt), random.random()))  # noqa: S311 - jitter


def _try(connection: Connection, schema: str | None) -> bool:
    local = connection.in_transaction()
    attempt = text(f"SELECT pg_try_advisory{'_xact' if local else ''}_lock(:key)")
    taken = connection.execute(attempt, {"key": _key(schema)}).scalar_one()
    if not local:
        # Waiting inside of a statement or a transaction would hold up CREATE INDEX CONCURRENTLY in the
        # migration that is waited for: each would wait for the other.
        connection.commit()
    return bool(taken)


def _key(schema: str | None) -> int:
    digest = sha256(f"ledger_db.migrations:{schema or ''}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
