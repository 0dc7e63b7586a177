"""
Would a COMMIT now be a ROLLBACK?

After a statement has failed, PostgreSQL refuses the rest of its transaction, and answers COMMIT by rolling
back.  No driver calls that an error.  Who has caught the statement's error, without a savepoint around it,
would hear that everything was stored, when nothing was.  So a failure is noted when it happens, which costs
nothing until then, and looked for before COMMIT.
"""

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.exc import PendingRollbackError

from ledger_db.connections.refusal import sqlstate_of

_FAILED_IN = "ledger_db.failed_in"


def note_failures(engine: Engine) -> None:
    """Remember, from now on, which transaction of *engine*, PostgreSQL's, a statement has failed in."""
    event.listen(engine, "handle_error", _note)


def refuse_if_aborted(connection: Connection) -> None:
    """
    Do nothing, unless the server would answer COMMIT with a rollback.

    Raises:
        PendingRollbackError: It would; SQLAlchemy's own, as for a flush that failed.
    """
    failed_in = connection.info.get(_FAILED_IN)
    # A failure inside of a savepoint is no matter: that can only have been rolled back to by now.
    if failed_in is not None and failed_in is connection.get_transaction():
        raise PendingRollbackError(
            "a statement of this transaction has failed and its error was caught, so PostgreSQL would "
            "answer COMMIT with a rollback; nothing is committed: put a savepoint (begin_nested) around "
            "what may fail"
        )


def _note(context: ExceptionContext) -> None:
    connection = context.connection
    if connection is None or context.is_disconnect or not _came_from_server(context.original_exception):
        return
    connection.info[_FAILED_IN] = connection.get_nested_transaction() or connection.get_transaction()


def _came_from_server(error: BaseException) -> bool:
    """Whether the server said it; of what a driver refuses by itself (a value, say) it has never heard."""
    if sqlstate_of(error) is None:
        return False
    # asyncpg gives a code of PostgreSQL's to what it refuses, but only the server says how severe it is.
    return getattr(error.__cause__, "severity", "ERROR") is not None
