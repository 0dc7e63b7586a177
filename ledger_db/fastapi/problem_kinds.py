"""
Which kind of problem is an error?

One table, the same for every driver: `outcomes.meaning_of` says what an error means, and a `Kind` what the
client is told about it.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from ledger_db.answers.login_errors import judge
from ledger_db.answers.reason import Verdict
from ledger_db.errors import (
    ConfigurationError,
    CredentialsInvalid,
    CursorInvalid,
    LedgerDBError,
    LoginRefused,
    ManagerClosed,
    NotFound,
)
from ledger_db.transactions.meaning import Meaning, may_be_stored, meaning_of


@dataclass(frozen=True, slots=True)
class Kind:
    """
    One kind of problem.

    Attributes:
        name: For a program.

        status: Of the answer.

        title: For a person.

        detail: What to make of it, and what to do.

        retry_after_seconds: When the client may try again; None where that does not help or may do harm.

        traced: Whether the log needs the way that led to it.  Not in an outage, which fails a thousand
            requests a second alike.
    """

    name: str
    status: int
    title: str
    detail: str
    retry_after_seconds: int | None = None
    traced: bool = False


DUPLICATE: Final = Kind(
    "duplicate",
    409,
    "This is there already",
    "Something with the same unique value is stored; change the value.",
)
REFERENCE: Final = Kind(
    "reference",
    409,
    "A reference would not hold",
    "The data refers to something that is not there, or what would be removed is still referred to.",
)
INVALID: Final = Kind(
    "invalid",
    422,
    "The data is not acceptable",
    "A value is missing, malformed, out of range, or breaks a rule; change it before you send it again.",
)
NOT_FOUND: Final = Kind(
    "not-found", 404, "This is not there", "There is nothing with this key; it may have been deleted."
)
STRAY_CURSOR: Final = Kind(
    "cursor",
    400,
    "This is no cursor of this list",
    "It is damaged, or of another list or order; start again from the first page.",
)
CONFLICT: Final = Kind(
    "conflict",
    503,
    "Somebody else changed the same data",
    "The transaction was undone; send it again.",
    retry_after_seconds=1,
)
LOCKED: Final = Kind(
    "locked",
    503,
    "Somebody else is using the same data",
    "The transaction was undone; send it again.",
    retry_after_seconds=1,
)
TIMED_OUT: Final = Kind(
    "timed-out",
    504,
    "The database took too long",
    "The transaction was undone; ask for less at once, or try again when there is less to do.",
    traced=True,
)
# A failover passes.  A write in a session that is read-only by mistake does not: hence the trace.
READ_ONLY: Final = Kind(
    "read-only",
    503,
    "The database takes no changes at the moment",
    "The transaction was undone; send it again.",
    retry_after_seconds=5,
    traced=True,
)
LOST: Final = Kind(
    "connection-lost",
    503,
    "The connection to the database broke",
    "The transaction was undone; send it again.",
    retry_after_seconds=1,
)
UNAVAILABLE: Final = Kind(
    "unavailable", 503, "The database cannot be reached", "Try again later.", retry_after_seconds=5
)
SATURATED: Final = Kind(
    "saturated",
    503,
    "There is too much to do at the moment",
    "Every connection to the database is in use; try again later.",
    retry_after_seconds=1,
)
# 500, not 503: proxies and clients repeat a 503 by themselves, and this must not be done twice.
UNKNOWN: Final = Kind(
    "outcome-unknown",
    500,
    "It is not known whether this was done",
    "The connection broke while it was being stored.  Find out whether it was, before you send it again.",
    traced=True,
)
# Likewise.
PARTLY_DONE: Final = Kind(
    "partly-done",
    500,
    "A part of this may have been done",
    "What came before the failure may be stored.  Find out what is, before you send it again.",
    traced=True,
)
# 503, as another instance may still be logged in, but no Retry-After: a person has to mend it first.
LOCKED_OUT: Final = Kind(
    "login-refused", 503, "The service cannot log in to its database", "Somebody has to mend this first."
)
CLOSING: Final = Kind(
    "closing", 503, "The service is shutting down", "Nothing was done; send it again.", retry_after_seconds=1
)
MISCONFIGURED: Final = Kind(
    "configuration",
    500,
    "The service is not set up correctly",
    "Somebody has to mend this first.",
    traced=True,
)
FAULT: Final = Kind(
    "fault", 500, "The service made a mistake", "The request cannot be answered as it is.", traced=True
)

BY_MEANING: Final[dict[Meaning, Kind]] = {
    Meaning.DUPLICATE: DUPLICATE,
    Meaning.REFERENCE: REFERENCE,
    Meaning.INVALID: INVALID,
    Meaning.CONFLICT: CONFLICT,
    Meaning.LOCKED: LOCKED,
    Meaning.TIMED_OUT: TIMED_OUT,
    Meaning.READ_ONLY: READ_ONLY,
    Meaning.LOST: LOST,
    Meaning.UNAVAILABLE: UNAVAILABLE,
    Meaning.SATURATED: SATURATED,
    Meaning.UNKNOWN: UNKNOWN,
    Meaning.FAULT: FAULT,
}

BY_CLASS: Final[tuple[tuple[type[LedgerDBError], Kind], ...]] = (
    (LoginRefused, LOCKED_OUT),
    (CredentialsInvalid, LOCKED_OUT),
    (ManagerClosed, CLOSING),
    (ConfigurationError, MISCONFIGURED),
    (NotFound, NOT_FOUND),
    (CursorInvalid, STRAY_CURSOR),
)
"""Our own errors of which `meaning_of` knows only that trying again does not help."""


def gravest_of(error: BaseException) -> tuple[Kind, BaseException] | None:
    """
    Return the kind of *error*, and the error itself; of a group, the one that the client has to know of.

    Returns:
        None if it, or one of a group, has nothing to do with a database.
    """
    leaves = list(_leaves(error))
    known = [(kind, leaf) for leaf in leaves if (kind := kind_of(leaf)) is not None]
    return max(known, key=_gravity) if len(known) == len(leaves) else None


def kind_of(error: BaseException) -> Kind | None:
    """Return the kind of *error*, which is no group; None if it has nothing to do with a database."""
    if isinstance(error, LedgerDBError | SQLAlchemyError):
        ours = next((kind for cause, kind in BY_CLASS if isinstance(error, cause)), None)
        kind = ours or BY_MEANING[meaning_of(error)]
    elif (of_redis := _kind_of_redis(error)) is not None:
        kind = of_redis
    else:
        return None
    # What is the client's own mistake stays one, and nobody repeats it as it is.
    return PARTLY_DONE if kind.status > 500 and may_be_stored(error) else kind


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _gravity(known: tuple[Kind, BaseException]) -> tuple[bool, int]:
    # What passes by itself is no news beside what does not.
    kind, _ = known
    return kind.status == 500, kind.status


def _kind_of_redis(error: BaseException) -> Kind | None:
    # Whoever raises its errors has loaded it; nobody else needs the memory.
    redis = sys.modules.get("redis")
    if redis is None or not isinstance(error, redis.RedisError):
        return None
    verdict = judge(error)
    if verdict is Verdict.REFUSED:
        return LOCKED_OUT
    away = isinstance(error, redis.ConnectionError | redis.TimeoutError | redis.ReadOnlyError)
    return UNAVAILABLE if away or verdict is Verdict.TRANSIENT else FAULT
