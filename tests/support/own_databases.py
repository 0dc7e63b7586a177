"""Which databases may the tests of a service run on?  A manager for each, as the plugin opens it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger_db import ConnectionManager, Settings
from ledger_db.sandbox import Sandbox

DATABASES: dict[str, dict[str, Any]] = {
    "psycopg2 and asyncpg": {"database_driver": "psycopg2", "async_database_driver": "asyncpg"},
    "psycopg": {"database_driver": "psycopg", "async_database_driver": "psycopg"},
    "SQLite in memory": {"database_url": "sqlite://", "database_secret_id": None},
    "SQLite in a file": {"database_url": "sqlite:///{folder}/test.db", "database_secret_id": None},
}


@contextmanager
def manager_on(database: str, box: Sandbox, folder: Path) -> Iterator[ConnectionManager]:
    """Open a manager on one of `DATABASES`, on no event loop."""
    named = dict(DATABASES[database])
    if "database_url" in named:
        named["database_url"] = named["database_url"].format(folder=folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in box.environment.items():
            patch.setenv(name, value)
        manager = ConnectionManager(Settings(profile="test", redis_secret_id=None, **named)).open()
    yield manager
    manager.close()
