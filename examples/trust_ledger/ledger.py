"""
How is the chain kept in PostgreSQL?

Two tables: the entries, and one row that says where the chain ends.  Whoever appends locks that row first,
so appends happen one after the other and the chain can not fork, however many workers there are.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    MetaData,
    String,
    Table,
    Text,
    insert,
    select,
    text,
)
from sqlalchemy import update as update_rows
from sqlalchemy.dialects.postgresql import insert as insert_unless_there
from sqlalchemy.ext.asyncio import AsyncSession

from examples.trust_ledger.chain import START, Draft, Entry, Link, find_flaw, seal
from ledger_db import ConnectionManager

VERIFY_PAGE = 500
"""How many entries one transaction reads while the chain is verified."""

_SETUP_LOCK = 0x7275737474
"""Any number will do, as long as nothing else in this database uses it for an advisory lock."""

metadata = MetaData()

entries = Table(
    "entries",
    metadata,
    # Not a sequence: a rolled-back append would leave a gap, and a gap is what a deleted entry looks like.
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("memo", Text, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    # The promise "one key, one entry" is kept here.  Redis only makes it quick.
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

ledger_head = Table(
    "ledger_head",
    metadata,
    # One row, whose key is always true: a second head can not be written down.
    Column("only", Boolean, primary_key=True),
    Column("id", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)


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


@dataclass(frozen=True, slots=True)
class Verification:
    """
    What a walk along the whole chain found.

    Attributes:
        verified: Whether every entry is sound and the chain ends where it should.

        entries: How many entries were found sound, from the first one on.

        hash: The hash of the last of them.

        flaw: The first thing that is wrong; None if nothing is.
    """

    verified: bool
    entries: int
    hash: str
    flaw: str | None


async def create_tables(session: AsyncSession) -> None:
    """Create what is missing.  Any number of workers may do so at once; every one but the first waits."""
    await session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _SETUP_LOCK})
    connection = await session.connection()
    await connection.run_sync(metadata.create_all)
    await session.execute(
        insert_unless_there(ledger_head).values(only=True, **asdict(START)).on_conflict_do_nothing()
    )


async def append(session: AsyncSession, draft: Draft, *, idempotency_key: str) -> Appended:
    """
    Append *draft* in the transaction of *session*.  It is in the ledger once that has committed.

    Raises:
        KeyReused: The key was used for something else.
    """
    end = await _lock_end(session)
    # Looked up only under the lock: of two requests with one key at the same moment, the second waits
    # for the first to commit and then finds what it wrote.
    written = await find_by_key(session, idempotency_key)
    if written is not None:
        return replay(written, draft)
    entry = seal(draft, after=end, idempotency_key=idempotency_key, recorded_at=datetime.now(UTC))
    await session.execute(insert(entries).values(asdict(entry)))
    await session.execute(update_rows(ledger_head).values(asdict(entry.link)))
    return Appended(entry, replayed=False)


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
    row = (await session.execute(select(entries).where(entries.c.idempotency_key == idempotency_key))).first()
    return None if row is None else Entry(*row)


async def find_by_id(session: AsyncSession, entry_id: int) -> Entry | None:
    """Return entry number *entry_id*, if there is one."""
    row = (await session.execute(select(entries).where(entries.c.id == entry_id))).first()
    return None if row is None else Entry(*row)


async def read_page(session: AsyncSession, *, after: int, limit: int) -> Sequence[Entry]:
    """Return at most *limit* entries that come after entry number *after*."""
    query = select(entries).where(entries.c.id > after).order_by(entries.c.id).limit(limit)
    return [Entry(*row) for row in await session.execute(query)]


async def read_end(session: AsyncSession) -> Link:
    """Return where the chain ends."""
    row = (await session.execute(select(ledger_head.c.id, ledger_head.c.hash))).one()
    return Link(*row)


async def verify(db: ConnectionManager) -> Verification:
    """
    Walk along the chain as it is now, page by page, and recompute every hash.

    Each page is a transaction of its own, so that a long walk holds no connection back: not from other
    requests, and not from a rotation.  Entries only ever come after those that were read, so the pages fit.
    """
    async with db.async_begin(read_only=True) as session:
        end = await read_end(session)
    last = START
    async for entry in _walk(db, until=end.id):
        flaw = find_flaw(entry, after=last)
        if flaw is not None:
            return Verification(verified=False, entries=last.id, hash=last.hash, flaw=flaw)
        last = entry.link
    flaw = None if last == end else f"the chain should end with entry {end.id}, but ends with entry {last.id}"
    return Verification(verified=flaw is None, entries=last.id, hash=last.hash, flaw=flaw)


async def _walk(db: ConnectionManager, *, until: int) -> AsyncIterator[Entry]:
    after = 0
    while after < until:
        async with db.async_begin(read_only=True) as session:
            page = await read_page(session, after=after, limit=VERIFY_PAGE)
        for entry in page:
            if entry.id <= until:
                yield entry
        if len(page) < VERIFY_PAGE:
            return
        after = page[-1].id


async def _lock_end(session: AsyncSession) -> Link:
    row = (await session.execute(select(ledger_head.c.id, ledger_head.c.hash).with_for_update())).one()
    return Link(*row)
