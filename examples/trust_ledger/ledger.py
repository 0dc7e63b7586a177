"""
How is the chain kept in PostgreSQL?

Whoever appends locks the row that says where the chain ends.  So appends happen one after the other and the
chain can not fork, however many workers there are.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from examples.trust_ledger.chain import Draft, Entry, Link, seal
from examples.trust_ledger.tables import EndRow, EntryRow


class KeyReused(Exception):
    """The idempotency key already stands for another entry."""


@dataclass(frozen=True, slots=True)
class Appended:
    """
    The answer to an append.

    Attributes:
        entry: What is in the ledger.

        replayed: Whether it was there already, under the same key.
    """

    entry: Entry
    replayed: bool


async def append(session: AsyncSession, draft: Draft, *, idempotency_key: str) -> Appended:
    """
    Append *draft* in the transaction of *session*.  It is in the ledger once that has committed.

    Raises:
        KeyReused: The key was used for something else.
    """
    end = await lock_end(session)
    # Looked up only under the lock: of two requests with one key at the same moment, the second waits
    # for the first to commit and then finds what it wrote.
    written = await find_by_key(session, idempotency_key)
    if written is not None:
        return replay(written, draft)
    entry = seal(draft, after=end.link, idempotency_key=idempotency_key, recorded_at=datetime.now(UTC))
    session.add(EntryRow(**asdict(entry)))
    end.id, end.hash = entry.id, entry.hash
    await session.flush()
    return Appended(entry, replayed=False)


async def lock_end(session: AsyncSession) -> EndRow:
    """Wait until nobody else appends, and keep it so until the transaction of *session* ends."""
    return await session.get_one(EndRow, True, with_for_update=True)


def replay(written: Entry, draft: Draft) -> Appended:
    """
    Answer a request whose key already stands for the entry *written*.

    Raises:
        KeyReused: *draft* is not what that entry says.
    """
    if written.draft != draft:
        raise KeyReused(f"the key was used for entry {written.id}, which says something else")
    return Appended(written, replayed=True)


async def find_by_key(session: AsyncSession, idempotency_key: str) -> Entry | None:
    """Return the entry that was appended with *idempotency_key*, if there is one."""
    row = await session.scalar(select(EntryRow).where(EntryRow.idempotency_key == idempotency_key))
    return None if row is None else row.entry


async def find_by_id(session: AsyncSession, entry_id: int) -> Entry | None:
    """Return entry number *entry_id*, if there is one."""
    row = await session.get(EntryRow, entry_id)
    return None if row is None else row.entry


async def read_page(session: AsyncSession, *, after: int, limit: int) -> Sequence[Entry]:
    """Return at most *limit* entries that come after entry number *after*."""
    query = select(EntryRow).where(EntryRow.id > after).order_by(EntryRow.id).limit(limit)
    return [row.entry for row in await session.scalars(query)]


async def read_end(session: AsyncSession) -> Link:
    """Return where the chain ends."""
    return (await session.get_one(EndRow, True)).link
