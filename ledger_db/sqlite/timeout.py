"""How does a statement on SQLite end in time?  SQLite has no statement_timeout, so it gets one here."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.pool import ConnectionPoolEntry

_LIMIT = "ledger_db.statement_limit"
# SQLite asks every so many steps of its virtual machine; a thousand are some ten microseconds.
_STEPS = 1000


class StatementLimit:
    """How long a statement of one connection may run, and when the present one has to end."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        """
        Limit nothing yet.

        Args:
            now: Seconds on a clock that never goes back.
        """
        self._now = now
        self._seconds = 0.0
        self._ends_at: float | None = None

    def set_config(self, name: str, value: str, is_local: int) -> str:
        """Do what PostgreSQL's function of this name does, for ``statement_timeout`` in milliseconds."""
        if name == "statement_timeout":
            self._seconds = float(value) / 1000
        return value

    def end_transaction(self) -> None:
        """Forget the limit: it is always local to a transaction."""
        self._seconds, self._ends_at = 0.0, None

    def begin_statement(self) -> None:
        """Give a statement its time."""
        self._ends_at = self._now() + self._seconds if self._seconds else None

    def is_over(self) -> bool:
        """Say whether SQLite has to interrupt the statement."""
        return self._ends_at is not None and self._now() >= self._ends_at


def limit_statements(engine: "Engine") -> None:
    """
    Let sessions of *engine* set a statement timeout exactly as they do on PostgreSQL.

    Args:
        engine: The synchronous core, for an ``AsyncEngine``.
    """

    @event.listens_for(engine, "connect")
    def install(dbapi: Any, record: "ConnectionPoolEntry") -> None:
        limit = record.info[_LIMIT] = StatementLimit()
        dbapi.create_function("set_config", 3, limit.set_config)
        if engine.dialect.is_async:
            dbapi.run_async(lambda connection: connection.set_progress_handler(limit.is_over, _STEPS))
        else:
            dbapi.set_progress_handler(limit.is_over, _STEPS)

    @event.listens_for(engine, "begin")
    def forget(connection: "Connection") -> None:
        connection.info[_LIMIT].end_transaction()

    @event.listens_for(engine, "before_cursor_execute")
    def begin(connection: "Connection", *rest: object) -> None:
        connection.info[_LIMIT].begin_statement()
