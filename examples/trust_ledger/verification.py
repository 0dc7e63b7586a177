"""
How is a chain of any length checked, with little memory and without holding anybody up?

It is read page by page, each page in a transaction of its own: a long walk holds no connection back, not from
other requests and not from a rotation.  Entries only ever come after those that were read, so the pages fit.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from examples.trust_ledger.chain import START, Entry, Link, find_flaw, is_hash
from examples.trust_ledger.ledger import read_page
from examples.trust_ledger.merkle import Tree
from examples.trust_ledger.tables import EntryRow
from ledger_db.fastapi import AsyncSessionFactory


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a walk along the chain has come: *checked* entries of *entries* were found sound."""

    checked: int
    entries: int


@dataclass(frozen=True, slots=True)
class Verdict:
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


@dataclass(frozen=True, slots=True)
class TreeHead:
    """
    The hash tree over the first entries.

    Attributes:
        size: How many entries it is over.

        root: What stands for all of them.

        proven: The hash of the entry whose proof was asked for; empty if none was.

        proof: The hashes beside its way up to the root.
    """

    size: int
    root: bytes
    proven: bytes = b""
    proof: tuple[bytes, ...] = ()


async def verify(
    sessions: AsyncSessionFactory, end: Link, *, page_entries: int
) -> AsyncIterator[Progress | Verdict]:
    """
    Recompute every hash from the first entry to *end*; yield progress after each page, and a verdict last.

    Args:
        sessions: Opens the transactions.

        end: Where the chain ended when this was asked for; what came later is not looked at.

        page_entries: How many entries are in memory at a time.
    """
    last = START
    async for page in _entries(sessions, until=end.id, limit=page_entries):
        for entry in page:
            flaw = find_flaw(entry, after=last)
            if flaw is not None:
                yield Verdict(verified=False, entries=last.id, hash=last.hash, flaw=flaw)
                return
            last = entry.link
        yield Progress(checked=last.id, entries=end.id)
    flaw = None if last == end else _describe_end(last, end)
    yield Verdict(verified=flaw is None, entries=last.id, hash=last.hash, flaw=flaw)


async def grow_tree(
    sessions: AsyncSessionFactory, size: int, *, page_entries: int, prove: int | None = None
) -> TreeHead | None:
    """
    Build the hash tree over the first *size* entries.

    Args:
        sessions: Opens the transactions.

        size: The number of the last entry that is a leaf.

        page_entries: How many hashes are in memory at a time.

        prove: The number of the entry whose proof is wanted.

    Returns:
        None if one of those entries is gone or has no hash: a tree over the others would prove nothing.
    """
    tree, proven = Tree(prove=None if prove is None else prove - 1), b""
    while tree.size < size:
        async with sessions.begin(read_only=True) as session:
            hashes = await _read_hashes(session, after=tree.size, limit=min(page_entries, size - tree.size))
        if not hashes:
            return None
        for entry_hash in hashes:
            tree.add(entry_hash)
            if tree.size == prove:
                proven = entry_hash
    root, proof = tree.finish()
    return TreeHead(size=size, root=root, proven=proven, proof=proof)


async def _entries(
    sessions: AsyncSessionFactory, *, until: int, limit: int
) -> AsyncIterator[Sequence[Entry]]:
    after = 0
    while after < until:
        async with sessions.begin(read_only=True) as session:
            page = await read_page(session, after=after, limit=limit)
        if not page:
            return
        yield [entry for entry in page if entry.id <= until]
        after = page[-1].id


async def _read_hashes(session: AsyncSession, *, after: int, limit: int) -> Sequence[bytes]:
    query = select(EntryRow.id, EntryRow.hash).where(EntryRow.id > after).order_by(EntryRow.id).limit(limit)
    rows = enumerate(await session.execute(query), after + 1)
    # Up to the first one that is not where it should be: those after it would move.
    sound = takewhile(lambda numbered: numbered[1].id == numbered[0] and is_hash(numbered[1].hash), rows)
    return [bytes.fromhex(row.hash) for _, row in sound]


def _describe_end(last: Link, end: Link) -> str:
    if last.id != end.id:
        return f"the chain should end with entry {end.id}, but ends with entry {last.id}"
    return f"entry {end.id} is not the one that the chain should end with"
