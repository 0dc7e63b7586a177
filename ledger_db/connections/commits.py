"""
What becomes of a COMMIT, told as it is.

Undone in silence:  after a statement has failed, PostgreSQL refuses the rest of its transaction, and answers
                    COMMIT by rolling back.  No driver calls that an error.  Who has caught the statement's
                    error, without a savepoint around it, would hear that everything was stored.
Not sent:           a server that had ended before fails a COMMIT just as one does whose answer got lost.
Unknown:            COMMIT was sent, and the connection broke before the answer.
None at all:        under AUTOCOMMIT each statement is its own transaction, and is stored when it is answered;
                    a transaction in which nothing was executed has nothing to store.

The first is told by each driver's own connection, see `commits_asyncpg`, `commits_psycopg` and
`commits_psycopg2`, because there are ways to COMMIT that SQLAlchemy hears nothing of.  The rest stands where
SQLAlchemy hands a COMMIT, or a statement, to the driver.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.exc import PendingRollbackError

from ledger_db.answers.login_errors import sqlstate_of
from ledger_db.connections.hangup import LINE
from ledger_db.errors import OutcomeUnknown
from ledger_db.redaction import describe
from ledger_db.transactions.meaning import is_lost, note_stored

_COMMIT = "ledger_db.commit"
_STORED = "ledger_db.stored"
_IDLE, _IN_ERROR, _NOBODY_KNOWS = 0, 3, 4  # libpq's PQTRANS_IDLE, PQTRANS_INERROR, PQTRANS_UNKNOWN
_TRANSACTION_IS_ABORTED = "25P02"

_ENDS = re.compile(r"(?:\s+|--[^\n]*\n|/\*.*?\*/)*(?:COMMIT|END)\b", re.IGNORECASE | re.DOTALL)
"""A COMMIT that was written out; whatever comments stand before it."""

_ROLLS_BACK = re.compile(r"\b(?:ROLLBACK|ABORT)\b", re.IGNORECASE)


def tell_commits(engine: Engine) -> None:
    """
    Let each COMMIT of *engine*, which is PostgreSQL's, say what became of it.

    It then raises `PendingRollbackError`, SQLAlchemy's own, if the server has rolled back; `OutcomeUnknown`
    if COMMIT was sent and no answer came, unless the transaction is read-only and has nothing to lose.  So
    does a statement that is its own transaction.

    Args:
        engine: The synchronous core, for an ``AsyncEngine``.
    """
    # There is an event before a COMMIT, and one for each statement, which cost every statement of the engine
    # its short way; the dialect belongs to this one engine.
    dialect: Any = engine.dialect
    _connect_to_who_tells(dialect)
    dialect.do_begin = _forget_what_is_stored
    dialect.do_commit = _committing(dialect)
    dialect.do_execute = _executing(dialect)
    event.listen(engine, "handle_error", _look_at_error)


def is_commit(statement: object) -> bool:
    """Whether *statement* is a COMMIT that was written out."""
    return _ENDS.match(str(statement)) is not None


def refuse_unasked_rollback(tag: str | None, query: object) -> None:
    """
    Raise `PendingRollbackError` if *tag*, the answer to *query*, tells of a rollback that it did not ask for.

    The transaction has ended by then, and its connection is as good as before.
    """
    if tag == "ROLLBACK" and not _ROLLS_BACK.search(str(query)):
        raise undone()


@contextmanager
def refusing_rollback(driver: Any) -> Iterator[None]:
    """Raise `PendingRollbackError` after a COMMIT on *driver*, which is libpq's, that was a rollback."""
    # libpq keeps the answer to a COMMIT to itself, but knows before it what it will be, without asking.
    is_aborted = driver.info.transaction_status == _IN_ERROR
    yield
    if is_aborted:
        raise undone()


def undone() -> PendingRollbackError:
    """Return what tells that a COMMIT was, or would be, a rollback."""
    return PendingRollbackError(
        "a statement of this transaction has failed and its error was caught, so PostgreSQL answers COMMIT "
        "with a rollback; nothing of it is committed: put a savepoint (begin_nested) around what may fail"
    )


def info_of(connection: Connection | None) -> dict[Any, Any] | None:
    """Return what is noted of *connection*, which an error has met; None where it is not one of a pool's."""
    if connection is None or connection.invalidated or connection.closed:
        return None
    try:
        return connection.info
    except NotImplementedError:
        # An engine's first statements, which SQLAlchemy sends by itself before any pool has the connection.
        # What is raised here would be taken for the server's answer, and would hide the error.
        return None


def has_committed(info: dict[Any, Any]) -> bool:
    """Whether a COMMIT was answered on the connection with this *info*, and none has failed since."""
    return info.get(_COMMIT) == "answered"


def _connect_to_who_tells(dialect: Any) -> None:
    # Each driver is an extra.
    if dialect.driver == "asyncpg":
        from ledger_db.connections.commits_asyncpg import Connection as OfAsyncpg  # noqa: PLC0415

        dialect.connect = partial(dialect.connect, connection_class=OfAsyncpg)
    elif dialect.driver == "psycopg2":
        from ledger_db.connections.commits_psycopg2 import Connection as OfPsycopg2  # noqa: PLC0415

        dialect.connect = partial(dialect.connect, connection_factory=OfPsycopg2)
    elif not dialect.is_async:
        # On a loop it is given by name; see `cancelled`.
        from ledger_db.connections.commits_psycopg import Connection as OfPsycopg  # noqa: PLC0415

        dialect.connect = OfPsycopg.connect


def _committing(dialect: Any) -> Callable[[Any], None]:
    commit = dialect.do_commit

    def commit_and_tell(connection: Any) -> None:
        if not _is_begun(_driver_of(connection)):
            # Nothing is sent then, so there is nothing to guard: AUTOCOMMIT, or no statement yet.
            commit(connection)
            return
        try:
            _meet_server(connection)
        except BaseException:
            # SQLAlchemy takes a COMMIT that failed for the end of the transaction, and resets nothing.
            with suppress(Exception):
                dialect.do_rollback(connection)
            raise
        connection.info[_COMMIT] = "sent"
        commit(connection)
        connection.info[_COMMIT] = "answered"

    return commit_and_tell


def _executing(dialect: Any) -> Callable[..., None]:
    execute = dialect.do_execute

    def execute_and_tell(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        if context is None or not is_commit(statement):
            execute(cursor, statement, parameters, context)
            return
        connection = context.root_connection.connection
        if dialect.driver == "asyncpg":
            # Its prepared statements keep the answer from SQLAlchemy.
            _refuse_if_aborted(connection)
        execute(cursor, statement, parameters, context)
        connection.info[_STORED] = True

    return execute_and_tell


def _forget_what_is_stored(connection: Any) -> None:
    connection.info.pop(_STORED, None)


def _driver_of(connection: Any) -> Any:
    # Not the pool's own name for it, which a connection that was detached has lost.
    dbapi = connection.dbapi_connection
    return getattr(dbapi, "driver_connection", dbapi)


def _is_begun(driver: Any) -> bool:
    """Whether the server has a transaction of *driver*'s, as far as it knows without asking."""
    is_in_transaction = getattr(driver, "is_in_transaction", None)
    if is_in_transaction is not None:
        return bool(is_in_transaction())
    status = driver.info.transaction_status
    # Of a connection that has broken libpq does not tell, but AUTOCOMMIT has left nothing open on it.
    return bool(status != _IDLE and not (status == _NOBODY_KNOWS and driver.autocommit))


def _meet_server(connection: Any) -> None:
    """Ask the server whether it is there, but only if there is a reason to."""
    line = connection.info.get(LINE)
    if line is None or line.may_have_hung_up():
        # The driver's own words for a server that has gone; SQLAlchemy's pool hears of it.
        with suppress(PendingRollbackError):
            _refuse_if_aborted(connection)


def _refuse_if_aborted(connection: Any) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("SELECT 1")
    except Exception as error:
        if sqlstate_of(error) != _TRANSACTION_IS_ABORTED:
            raise
        raise undone() from error
    finally:
        cursor.close()


def _look_at_error(context: ExceptionContext) -> Exception | None:
    """Return what is to be raised for what was sent to be stored, and has no answer."""
    connection, original = context.connection, context.original_exception
    info = info_of(connection)
    if connection is None or info is None:
        return None
    sent = _sent(context, info)
    dbapi: Any = connection.connection.dbapi_connection
    is_at_once = not sent and dbapi.autocommit
    if connection.get_execution_options().get("postgresql_readonly"):
        return None
    error = context.sqlalchemy_exception or original
    # A cancellation stays one, and nobody knows the outcome either.
    lost = isinstance(original, Exception) and (context.is_disconnect or is_lost(error))
    if lost and (sent or is_at_once):
        # asyncpg notices some breaks without SQLAlchemy's knowing them as such.
        context.is_disconnect = True
        what = "COMMIT" if sent else "a statement that is stored at once (AUTOCOMMIT)"
        return OutcomeUnknown(
            f"{what} was sent and the connection broke before the answer ({describe(error)}): it was done, "
            "or it was not; look for what it should have written before doing it again"
        )
    if is_at_once or info.get(_STORED):
        note_stored(error)
    return None


def _sent(context: ExceptionContext, info: dict[Any, Any]) -> bool:
    """Whether it was a COMMIT that failed; it is no longer on its way then."""
    if info.get(_COMMIT) == "sent":
        del info[_COMMIT]
        return True
    return context.statement is not None and is_commit(context.statement)
