"""
What becomes of prepared statements when a migration moves a table or a type under a running service?

The server refuses to execute a statement whose columns are no longer those that it was prepared with, on each
connection that has prepared it.  The first refusal is enough: nothing that was prepared before it is used
again, on any connection of the engine.  The transaction that heard it is undone, and the same again works.

asyncpg:   SQLAlchemy prepares each statement, and forgets what it has prepared by the time of the last change
           that it knows of.
psycopg:   prepares by itself what it has executed a few times, for each connection.
psycopg2:  prepares nothing.
"""

import re
from itertools import count
from typing import Any

from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from ledger_db.transactions.meaning import is_outdated

_SEEN = "ledger_db.plans"
_CHANGES = re.compile(r"\s*(?:ALTER|DROP)\b", re.IGNORECASE)


def forget_outdated_plans(engine: Engine) -> None:
    """
    Let all connections of *engine* forget what they have prepared, once one has heard that it is outdated.

    Args:
        engine: The synchronous core, for an ``AsyncEngine``.
    """
    if engine.dialect.driver == "asyncpg":
        _forget_by_time(engine)
    elif engine.dialect.driver == "psycopg":
        _Plans().watch(engine)


def _forget_by_time(engine: Engine) -> None:
    dialect: Any = engine.dialect
    # Private, and a test says when it moves.  SQLAlchemy calls it for some of the errors only, and for its
    # own DDL, not for what is written out: the second half of a transaction would fail, each time anew.
    forget = dialect._invalidate_schema_cache  # noqa: SLF001 - as said above
    execute = dialect.do_execute

    def execute_and_forget(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        execute(cursor, statement, parameters, context)
        if _CHANGES.match(statement) is not None:
            forget()

    def look_at_error(context: ExceptionContext) -> Exception | None:
        # SQLAlchemy 2.0 lets some of asyncpg's own pass as they are.
        error = context.sqlalchemy_exception or DBAPIError(
            context.statement, None, context.original_exception
        )
        if not is_outdated(error):
            return None
        forget()
        return None if context.sqlalchemy_exception else error

    dialect.do_execute = execute_and_forget
    event.listen(engine, "handle_error", look_at_error)


class _Plans:
    """
    Which connections of one engine of psycopg's have heard of the last change.

    For any number of threads: a number is replaced, and only ever by a later one.
    """

    def __init__(self) -> None:
        self._numbers = count(1)
        self._last = 0

    def watch(self, engine: Engine) -> None:
        """Listen to errors of *engine*, and to its checkouts."""
        event.listen(engine, "handle_error", self._look_at_error)
        event.listen(engine, "connect", self._note_new)
        event.listen(engine, "checkout", self._forget_if_outdated)

    def _look_at_error(self, context: ExceptionContext) -> None:
        if is_outdated(context.sqlalchemy_exception):
            self._last = next(self._numbers)

    def _note_new(self, dbapi: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info[_SEEN] = self._last

    def _forget_if_outdated(self, dbapi: Any, record: ConnectionPoolEntry, fairy: object) -> None:
        last = self._last
        if record.info[_SEEN] == last:
            return
        try:
            # At a rollback psycopg forgets all of it, and lets the server do the same.
            cursor = dbapi.cursor()
            cursor.execute("ROLLBACK")
            cursor.close()
        except Exception as error:
            raise DisconnectionError("it cannot forget what it has prepared") from error
        record.info[_SEEN] = last
