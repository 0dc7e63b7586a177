"""
What does an error from a statement, a commit or a checkout mean?

The same error has another class in each driver (asyncpg's has often none), so nobody should catch classes.
The table below is by SQLSTATE and is the whole answer for PostgreSQL; SQLite, which a developer may use
instead, has names of its own.  `answers.login_errors` is the same for logins.
"""

import re
from collections.abc import Iterator
from enum import Enum
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, OperationalError, TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from ledger_db.answers.login_errors import judge
from ledger_db.answers.postgres import find_of_a_pooler, is_outdated as is_outdated_by_itself, own_sqlstate
from ledger_db.answers.reason import Verdict
from ledger_db.errors import LedgerDBError, OutcomeUnknown, RetriesExhausted, Retryable, Saturated


class Meaning(Enum):
    """What has happened to the statement, and so to its transaction."""

    DUPLICATE = "duplicate"
    """There is such a row already: a unique or an exclusion constraint says so."""

    REFERENCE = "reference"
    """A row that is referred to does not exist, or one that should go is referred to."""

    INVALID = "invalid"
    """The database does not take this value: NULL, a check, a type, a range."""

    CONFLICT = "conflict"
    """Another transaction, or a migration, was in the way; the same again, from the start, may work."""

    LOCKED = "locked"
    """Somebody else holds the row or the table, for longer than this statement may wait."""

    TIMED_OUT = "timed out"
    """The statement was cancelled, by its time limit or by a person."""

    READ_ONLY = "read-only"
    """The transaction, or the whole server, takes no writes."""

    LOST = "lost"
    """The connection is gone, and the transaction with it; a COMMIT on its way may have been done."""

    UNAVAILABLE = "unavailable"
    """The server cannot be reached or has no room now; nothing was done."""

    SATURATED = "saturated"
    """Every connection was in use for as long as one may wait; nothing was done."""

    UNKNOWN = "unknown"
    """COMMIT was sent, or a statement under AUTOCOMMIT, and no answer came: it is done, or it is not."""

    FAULT = "fault"
    """Everything else: a mistake in the statement, the schema, the permissions or the program."""


_M = Meaning

# PostgreSQL's documentation, appendix A.  A two-letter key stands for the rest of its class.
SQLSTATES: Final[dict[str, Meaning]] = {
    "23505": _M.DUPLICATE,  # unique_violation
    "23P01": _M.DUPLICATE,  # exclusion_violation
    "23503": _M.REFERENCE,  # foreign_key_violation
    "23001": _M.REFERENCE,  # restrict_violation: ON DELETE RESTRICT, since PostgreSQL 18
    "23": _M.INVALID,  # not_null_violation and check_violation
    "22": _M.INVALID,  # data_exception
    "44000": _M.INVALID,  # with_check_option_violation
    "40001": _M.CONFLICT,  # serialization_failure
    "40P01": _M.CONFLICT,  # deadlock_detected
    "40003": _M.UNKNOWN,  # statement_completion_unknown
    "55P03": _M.LOCKED,  # lock_not_available: NOWAIT or lock_timeout
    "57014": _M.TIMED_OUT,  # query_canceled: statement_timeout or pg_cancel_backend
    "25006": _M.READ_ONLY,  # read_only_sql_transaction: asked for, or a failover has left us on a replica
    "25P03": _M.LOST,  # idle_in_transaction_session_timeout
    "25P04": _M.LOST,  # transaction_timeout
    "57P01": _M.LOST,  # admin_shutdown
    "57P02": _M.LOST,  # crash_shutdown
    "57P05": _M.LOST,  # idle_session_timeout
    "57P03": _M.UNAVAILABLE,  # cannot_connect_now
    "53": _M.UNAVAILABLE,  # insufficient_resources, too_many_connections among them
    "08001": _M.UNAVAILABLE,  # sqlclient_unable_to_establish_sqlconnection
    "08004": _M.FAULT,  # sqlserver_rejected_establishment_of_sqlconnection
    "08007": _M.UNKNOWN,  # transaction_resolution_unknown
    "08": _M.LOST,  # connection_exception; 08P01 is also how PgBouncer says that its server went away
}

# Beginnings of sqlite3's sqlite_errorname, the longer ones first.
SQLITE_ERRORS: Final[tuple[tuple[str, Meaning], ...]] = (
    ("SQLITE_CONSTRAINT_UNIQUE", _M.DUPLICATE),
    ("SQLITE_CONSTRAINT_PRIMARYKEY", _M.DUPLICATE),
    ("SQLITE_CONSTRAINT_ROWID", _M.DUPLICATE),
    ("SQLITE_CONSTRAINT_FOREIGNKEY", _M.REFERENCE),
    ("SQLITE_CONSTRAINT", _M.INVALID),
    ("SQLITE_MISMATCH", _M.INVALID),
    ("SQLITE_TOOBIG", _M.INVALID),
    ("SQLITE_BUSY_SNAPSHOT", _M.CONFLICT),  # read first, then wrote: somebody else wrote in between
    ("SQLITE_BUSY", _M.LOCKED),
    ("SQLITE_LOCKED", _M.LOCKED),
    ("SQLITE_INTERRUPT", _M.TIMED_OUT),
    ("SQLITE_READONLY", _M.READ_ONLY),
    ("SQLITE_FULL", _M.UNAVAILABLE),
)

# Where asyncpg's state machine notices before its socket does.  Not "another operation is in progress": that
# is one session used by two tasks, a fault.
_LOST_WITHOUT_A_CODE: Final = re.compile(
    r"cannot switch to state \d+|connection is closed|connection was closed"
    r"|unexpected connection_lost",
    re.IGNORECASE,
)


_BY_NAME: Final = re.compile(r"\s*(?:EXECUTE|DEALLOCATE)\b", re.IGNORECASE)

# Written on the error itself, as nothing else goes with it to whoever decides whether to repeat.
_STORED: Final = (
    "what came before this was stored already (by a COMMIT, or at once under AUTOCOMMIT) and stays: "
    "look for it before doing it again"
)


def meaning_of(error: BaseException) -> Meaning:
    """
    Return what *error* means; `Meaning.FAULT` for what is no error of a database.

    Only *error* itself counts and what SQLAlchemy wrapped, not its other causes: whoever caught an error and
    raised one of their own has given it their own meaning.
    """
    if isinstance(error, LedgerDBError):
        return _meaning_of_ours(error)
    if isinstance(error, PoolTimeoutError):
        return Meaning.SATURATED
    # Of StaleDataError the row's version_id_col moved: somebody else has changed it.
    if isinstance(error, StaleDataError) or is_outdated(error):
        return Meaning.CONFLICT
    if (of_a_pooler := _meaning_of_a_pooler(error)) is not None:
        return of_a_pooler
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return Meaning.LOST
    coded = _meaning_of_code(error)
    return coded if coded is not None else _meaning_without_code(error)


def is_outdated(error: BaseException | None) -> bool:
    """Whether the statement was prepared before a migration moved what it is about; the same again works."""
    # A name that the application has chosen itself is its own affair.
    if not isinstance(error, DBAPIError) or _BY_NAME.match(error.statement or "") is not None:
        return False
    return any(map(is_outdated_by_itself, _driver_errors(error)))


def is_lost(error: BaseException) -> bool:
    """Whether the connection broke, so that nobody knows what became of what was sent last."""
    return meaning_of(error) in {Meaning.LOST, Meaning.UNKNOWN}


def note_stored(error: BaseException) -> None:
    """Note on *error* that what was done before it may be stored, although its own statement is undone."""
    error.add_note(_STORED)


def may_be_stored(error: BaseException) -> bool:
    """Whether somebody who does it all again, because of *error*, may store a part of it twice."""
    return _STORED in getattr(error, "__notes__", ())


def told_sqlstate(error: BaseException) -> str | None:
    """Return the SQLSTATE that the driver told for *error*, whatever else it was raised from."""
    return next((code for link in _driver_errors(error) if (code := own_sqlstate(link)) is not None), None)


def constraint_of(error: BaseException) -> str | None:
    """Return the name of the constraint that was violated; None if it was none, or on SQLite."""
    for link in _driver_errors(error):
        name = getattr(getattr(link, "diag", link), "constraint_name", None)
        if isinstance(name, str):
            return name
    return None


def _meaning_of_ours(error: LedgerDBError) -> Meaning:
    if isinstance(error, OutcomeUnknown):
        return Meaning.UNKNOWN
    if isinstance(error, Saturated):
        return Meaning.SATURATED
    if isinstance(error, RetriesExhausted) and error.__cause__ is not None:
        return meaning_of(error.__cause__)
    return Meaning.UNAVAILABLE if isinstance(error, Retryable) else Meaning.FAULT


def _meaning_of_a_pooler(error: BaseException) -> Meaning | None:
    """Decide by what only a pooler says, before any server has heard of it; None if it says nothing such."""
    for link in list(_driver_errors(error))[1:]:
        code = own_sqlstate(link)
        # Under another code, or another class, it may be a value that the message quotes.
        if code.startswith("08") if code else isinstance(error, OperationalError):
            finding = find_of_a_pooler(link)
            if finding is not None:
                return Meaning.UNAVAILABLE if finding.reason.verdict is Verdict.TRANSIENT else Meaning.FAULT
    return None


def _meaning_of_code(error: BaseException) -> Meaning | None:
    """Decide by a code that the driver gives; None if it gives none."""
    for link in _driver_errors(error):
        code = own_sqlstate(link)
        if code is not None:
            return SQLSTATES.get(code) or SQLSTATES.get(code[:2]) or Meaning.FAULT
        name = getattr(link, "sqlite_errorname", None)
        if isinstance(name, str):
            return next((found for start, found in SQLITE_ERRORS if name.startswith(start)), Meaning.FAULT)
    return None


def _meaning_without_code(error: BaseException) -> Meaning:
    """Decide by text and class: libpq has no code for a failed connect, and clients check values too."""
    if not isinstance(error, DBAPIError) or error.orig is None:
        return Meaning.FAULT
    # What the driver said, not SQLAlchemy's text: that has the statement in it.
    links = list(_driver_errors(error))[1:]
    if any(_LOST_WITHOUT_A_CODE.search(str(link)) for link in links):
        return Meaning.LOST
    # asyncpg's own DataError is an InterfaceError that is a ValueError too.
    if isinstance(error, DataError) or any(isinstance(link, ValueError) for link in links):
        return Meaning.INVALID
    return Meaning.UNAVAILABLE if judge(error.orig) is Verdict.TRANSIENT else Meaning.FAULT


def _driver_errors(error: BaseException) -> Iterator[BaseException]:
    """Yield *error*, the driver's error in it, and what an adapter of SQLAlchemy has wrapped in turn."""
    yield error
    if not isinstance(error, DBAPIError):
        return
    for link in (error.orig, error.orig and error.orig.__cause__):
        if isinstance(link, BaseException):
            yield link
