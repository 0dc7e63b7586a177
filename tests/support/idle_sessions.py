"""What becomes of the sessions that a pool keeps open: how many are there, and who ends them?"""

import contextlib
from contextlib import closing
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from ledger_db.sandbox import Sandbox
from tests.support.any_driver import Client

OURS = "ledger_db"
"""What pg_stat_activity calls the sessions of a pool."""


def pid(session: Session) -> int:
    """Return the server's process that serves *session*."""
    number: int = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    return number


def fill_pool(client: Client, size: int) -> None:
    """Leave *size* idle connections in the pool of *client*."""

    def borrow(session: Session) -> None:
        engine: Any = session.connection().engine
        with contextlib.ExitStack() as borrowed:
            for _ in range(size - 1):
                borrowed.enter_context(engine.connect())

    client.begin(borrow)


def failures(client: Client, requests: int) -> list[str]:
    """Make some requests, one after the other, and return what those that failed say."""
    failed = []
    for _ in range(requests):
        try:
            client.begin(pid)
        except Exception as error:  # noqa: BLE001 - every failure counts
            failed.append(f"{type(error).__name__}: {error}")
    return failed


def end_sessions(box: Sandbox, *, user: str | None = None) -> int:
    """End all sessions of pools, or those of *user*, as an administrator does; return how many there were."""
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
            "WHERE application_name = %s AND usename = coalesce(%s, usename)",
            (OURS, user),
        )
        ended: int = cursor.fetchone()[0]
        return ended
