"""
What becomes of a COMMIT, told as it is.

Undone in silence:  after a statement has failed, PostgreSQL refuses the rest of its transaction, and answers
                    COMMIT by rolling back.  No driver calls that an error.  Who has caught the statement's
                    error, without a savepoint around it, would hear that everything was stored.
Not sent:           a server that had ended before fails a COMMIT just as one does whose answer got lost.
Unknown:            COMMIT was sent, and the connection broke before the answer.

All of it stands where SQLAlchemy hands COMMIT to the driver, because there are many ways to get there:
`Session.commit`, ``with session.begin()``, ``with engine.begin()``.
"""

from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.exc import PendingRollbackError

from ledger_db.answers.login_errors import sqlstate_of
from ledger_db.connections.hangup import LINE
from ledger_db.errors import OutcomeUnknown
from ledger_db.redaction import describe
from ledger_db.transactions.meaning import is_lost

_FAILED = "ledger_db.failed"
_COMMIT = "ledger_db.commit"
_IN_ERROR = 3  # libpq's PQTRANS_INERROR
_TRANSACTION_IS_ABORTED = "25P02"


def tell_commits(engine: Engine) -> None:
    """
    Let each COMMIT of *engine*, which is PostgreSQL's, say what became of it.

    It then raises `PendingRollbackError`, SQLAlchemy's own, if the server would roll back; `OutcomeUnknown`
    if COMMIT was sent and no answer came, unless the transaction is read-only and has nothing to lose.

    Args:
        engine: The synchronous core, for an ``AsyncEngine``.
    """
    # There is an event before a COMMIT, which costs every statement of the engine its short way; the dialect
    # belongs to this one engine, and its method is called for COMMIT only.
    dialect: Any = engine.dialect
    commit = dialect.do_commit

    def commit_and_tell(connection: Any) -> None:
        try:
            _refuse_if_undone(connection)
        except BaseException:
            # SQLAlchemy takes a COMMIT that failed for the end of the transaction, and resets nothing.
            with suppress(Exception):
                dialect.do_rollback(connection)
            raise
        connection.info[_COMMIT] = "sent"
        commit(connection)
        connection.info[_COMMIT] = "answered"

    dialect.do_commit = commit_and_tell
    event.listen(engine, "handle_error", _look_at_error)


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


def _refuse_if_undone(connection: Any) -> None:
    """Ask the server, but only if there is a reason to."""
    driver = connection.driver_connection
    # Noted for asyncpg only, which does not tell how the transaction is; libpq knows without asking.
    status = getattr(getattr(driver, "info", None), "transaction_status", None)
    doubtful = connection.info.pop(_FAILED, False) or status == _IN_ERROR
    line = connection.info.get(LINE)
    if not doubtful and line is not None and not line.may_have_hung_up():
        return
    cursor = connection.cursor()
    try:
        cursor.execute("SELECT 1")
    except Exception as error:
        if sqlstate_of(error) != _TRANSACTION_IS_ABORTED:
            raise  # the driver's own words for a server that has gone; SQLAlchemy's pool hears of it
        raise PendingRollbackError(
            "a statement of this transaction has failed and its error was caught, so PostgreSQL would "
            "answer COMMIT with a rollback; nothing is committed: put a savepoint (begin_nested) around "
            "what may fail"
        ) from error
    finally:
        cursor.close()


def _look_at_error(context: ExceptionContext) -> Exception | None:
    """Note a failed statement, and return what is to be raised for a COMMIT without an answer."""
    connection, original = context.connection, context.original_exception
    info = info_of(connection)
    if connection is None or info is None:
        return None
    if info.get(_COMMIT) != "sent":
        info[_FAILED] = True
        return None
    del info[_COMMIT]
    error = context.sqlalchemy_exception or original
    # A cancellation stays one, and nobody knows the outcome either.
    lost = isinstance(original, Exception) and (context.is_disconnect or is_lost(error))
    if not lost or connection.get_execution_options().get("postgresql_readonly"):
        return None
    # asyncpg notices some breaks without SQLAlchemy's knowing them as such.
    context.is_disconnect = True
    return OutcomeUnknown(
        f"COMMIT was sent and the connection broke before the answer ({describe(error)}): it was done, or it "
        "was not; look for what it should have written before doing it again"
    )
