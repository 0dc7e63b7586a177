"""
How does an append get through a restart of PostgreSQL, and end up in the ledger exactly once?

A transaction that meets a lost connection before COMMIT has done nothing, so it is repeated.  If the
connection is lost after COMMIT was sent, nobody knows whether it was done, and here that is no problem: the
append is repeated too.  It waits for the lock that the lost one may still hold, then looks its key up, and
finds either the entry or that there is none.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from examples.trust_ledger.chain import Draft
from examples.trust_ledger.ledger import Appended, KeyReused, append, lock_end
from ledger_db import ConnectionManager
from ledger_db.errors import OutcomeUnknown, Retryable
from ledger_db.transactions.meaning import Meaning, meaning_of

T = TypeVar("T")

_TRIES = 3
"""How many commits in a row may lose their answer: two in one restart are bad luck, three something else."""

_ABOUT_THE_ITEM = frozenset({Meaning.DUPLICATE, Meaning.REFERENCE, Meaning.INVALID})
"""What PostgreSQL may say of one item of a batch that is no reason to give up the others."""


class AnswersLost(Retryable):
    """PostgreSQL answered no COMMIT: the append is in the ledger or not, and sent again it will be, once."""


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One append of a batch, with an idempotency key of its own."""

    idempotency_key: str
    draft: Draft


@dataclass(frozen=True, slots=True)
class Refused:
    """Why one item of a batch is not in the ledger, in words for the client."""

    reason: str


async def append_once(db: ConnectionManager, draft: Draft, *, idempotency_key: str) -> Appended:
    """
    Append *draft*, committed when this returns.

    Raises:
        KeyReused: The key was used for something else.

        LedgerDBError: PostgreSQL is away for longer than a client should wait; it may send the same again.
    """

    async def work(session: AsyncSession) -> Appended:
        return await append(session, draft, idempotency_key=idempotency_key)

    return await _run(db, work)


async def append_batch(db: ConnectionManager, items: Sequence[BatchItem]) -> list[Appended | Refused]:
    """
    Append each of *items* or say why not, all in one transaction, committed when this returns.

    An item that is refused leaves no trace, and does not undo the others.

    Raises:
        LedgerDBError: As for `append_once`; none of the items is acknowledged then.
    """

    async def work(session: AsyncSession) -> list[Appended | Refused]:
        # Before the first savepoint: a lock that is taken within one goes with it, and another batch would
        # get in between.
        await lock_end(session)
        return [await _append_apart(session, item) for item in items]

    return await _run(db, work)


async def _append_apart(session: AsyncSession, item: BatchItem) -> Appended | Refused:
    try:
        async with session.begin_nested():
            return await append(session, item.draft, idempotency_key=item.idempotency_key)
    except KeyReused as error:
        return Refused(str(error))
    except DBAPIError as error:
        if meaning_of(error) not in _ABOUT_THE_ITEM:
            raise
        return Refused("the ledger can not keep this entry")


async def _run(db: ConnectionManager, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    unknown: OutcomeUnknown | None = None
    for _ in range(_TRIES):
        try:
            return await db.async_run(work)
        except OutcomeUnknown as error:
            unknown = error
    raise AnswersLost(
        f"{_TRIES} commits in a row got no answer; look at the connection to PostgreSQL, and send it again"
    ) from unknown
