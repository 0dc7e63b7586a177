"""
What makes the ledger tamper-evident?

Every entry carries the hash of the entry before it, and its own hash covers that and its content.
Whoever changes, drops or inserts an entry has to change every later hash, and the hashes that clients
were given when they appended do not change with them.  Nothing here talks to a server.
"""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Draft:
    """
    What a client asks to be recorded.

    Attributes:
        account: Whose entry it is.

        amount: In minor units (cents), negative for a debit: sums of money are never floats.

        memo: Free text.
    """

    account: str
    amount: int
    memo: str


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One recorded entry, sealed into the chain.

    Attributes:
        id: Its place in the chain: 1, 2, 3, without gaps.

        account: Whose entry it is.

        amount: In minor units, negative for a debit.

        memo: Free text.

        recorded_at: When it was sealed.

        idempotency_key: The key that the client sent with it; no two entries share one.

        previous_hash: The hash of the entry before it.

        hash: SHA-256 over everything above, as 64 hexadecimal digits.
    """

    id: int
    account: str
    amount: int
    memo: str
    recorded_at: datetime
    idempotency_key: str
    previous_hash: str
    hash: str

    @property
    def draft(self) -> Draft:
        """What the client asked for when it appended this entry."""
        return Draft(account=self.account, amount=self.amount, memo=self.memo)

    @property
    def link(self) -> "Link":
        """What the next entry has to be chained to."""
        return Link(id=self.id, hash=self.hash)


@dataclass(frozen=True, slots=True)
class Link:
    """The end of a chain: the id and the hash of its last entry."""

    id: int
    hash: str


START = Link(id=0, hash="0" * 64)
"""What the first entry is chained to."""


def seal(draft: Draft, *, after: Link, idempotency_key: str, recorded_at: datetime) -> Entry:
    """Chain *draft* to the entry that *after* stands for."""
    entry = Entry(
        id=after.id + 1,
        account=draft.account,
        amount=draft.amount,
        memo=draft.memo,
        recorded_at=recorded_at.astimezone(UTC),
        idempotency_key=idempotency_key,
        previous_hash=after.hash,
        hash="",
    )
    return replace(entry, hash=compute_hash(entry))


def compute_hash(entry: Entry) -> str:
    """Hash everything in *entry* but the hash that it claims."""
    return hashlib.sha256(entry.previous_hash.encode() + canonical_json(entry)).hexdigest()


def canonical_json(entry: Entry) -> bytes:
    """
    Write down the content of *entry* in the one way that everybody gets the same bytes.

    Sorted names, no spaces, UTF-8, and the time in UTC to the microsecond: PostgreSQL keeps no more, and
    hands it back in the time zone of the session.
    """
    content = {
        "account": entry.account,
        "amount": entry.amount,
        "id": entry.id,
        "idempotency_key": entry.idempotency_key,
        "memo": entry.memo,
        "recorded_at": entry.recorded_at.astimezone(UTC).isoformat(timespec="microseconds"),
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def is_hash(claimed: str) -> bool:
    """Whether *claimed* looks like what `compute_hash` returns."""
    return re.fullmatch("[0-9a-f]{64}", claimed) is not None


def find_flaw(entry: Entry, *, after: Link) -> str | None:
    """
    Say why *entry* can not be what was appended after *after*.

    Returns:
        None if it is sound, else one sentence.
    """
    if entry.id != after.id + 1:
        return f"entry {entry.id} follows entry {after.id}: what was between them is gone"
    if entry.previous_hash != after.hash:
        return f"entry {entry.id} is chained to another entry than the {after.id} that is there"
    if entry.hash != compute_hash(entry):
        return f"entry {entry.id} was changed after it was sealed: its hash does not cover its content"
    return None
