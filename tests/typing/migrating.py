"""What does a type checker know of an ``env.py``, and of a service that waits for its tables?"""

from pathlib import Path
from typing import assert_type

from alembic.config import Config

from ledger_db import Base, ConnectionManager, Retryable
from ledger_db.migrations import MigrationsBusy, check_migrated, pending_revisions, run_migrations


def environment() -> None:
    """What an ``env.py`` says."""
    run_migrations(Base.metadata, role="owner", lock_timeout_seconds=None, include_schemas=True)
    run_migrations(Base)  # type: ignore[arg-type] # its metadata, not the class


def start(db: ConnectionManager, scripts: Path | Config) -> None:
    """What a service asks before it begins."""
    try:
        check_migrated(db.engine, scripts)
    except MigrationsBusy as error:
        again: Retryable = error
        raise again from None
    assert_type(pending_revisions(db.engine, "migrations", version_table_schema="audit"), tuple[str, ...])
