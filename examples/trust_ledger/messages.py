"""What do requests and answers look like?  What is said here is what the OpenAPI document says."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema

LARGEST = 2**53 - 1
"""The largest integer that all readers of JSON understand (RFC 7493): JavaScript rounds larger ones."""

MOST_ITEMS = 100
"""How many appends one batch may hold: everybody else's wait until it has committed."""

# PostgreSQL keeps every character of Unicode in a text, except this one.
_NO_NUL = r"^[^\x00]*$"

Account = Annotated[str, Field(min_length=1, max_length=64, pattern=_NO_NUL, description="Whose entry it is")]
Amount = Annotated[
    int,
    # Strict: with money, 1.0 and "1" and true are misunderstandings, not the number one.
    Field(ge=-LARGEST, le=LARGEST, strict=True, description="In minor units (cents); negative for a debit"),
]
Memo = Annotated[str, Field(max_length=280, pattern=_NO_NUL, description="Free text")]
Key = Annotated[
    str,
    # What a header can carry without being changed on its way.
    Field(
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="Any text of your own, new for each entry",
    ),
]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, in hexadecimal digits")]

_DRAFT: dict[str, JsonValue] = {"account": "ada", "amount": 1250, "memo": "rent"}
_ENTRY: dict[str, JsonValue] = {
    "id": 1,
    **_DRAFT,
    "recorded_at": "2026-11-20T12:00:00.000250Z",
    "idempotency_key": "rent-2026-11",
    "previous_hash": "0" * 64,
    "hash": "5a" * 32,
}


class NewEntry(BaseModel):
    """What is to be recorded."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_DRAFT]})

    account: Account
    amount: Amount
    memo: Memo = ""


class NewItem(NewEntry):
    """One append of a batch."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"idempotency_key": "rent-2026-11", **_DRAFT}]}
    )

    idempotency_key: Key


class NewBatch(BaseModel):
    """Some appends at once."""

    model_config = ConfigDict(extra="forbid")

    # Each is judged on its own: one that is wrong does not send back the others.
    items: list[Annotated[Any, WithJsonSchema({"anyOf": [NewItem.model_json_schema(), {}]})]] = Field(
        min_length=1, max_length=MOST_ITEMS
    )


class RecordedEntry(BaseModel):
    """An entry of the chain."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [_ENTRY]})

    id: int = Field(ge=1, description="Its place in the chain: 1, 2, 3, without gaps")
    account: Account
    amount: Amount
    memo: Memo
    recorded_at: datetime = Field(description="When it was sealed")
    idempotency_key: Key
    previous_hash: Hash
    hash: Hash


class EntryPage(BaseModel):
    """Entries in the order of the chain."""

    entries: list[RecordedEntry]
    next: int | None = Field(description="The `after` of the next page; null on the last one")


class ItemOutcome(BaseModel):
    """What became of one item, as if it had been sent alone."""

    status: Literal[201, 422] = Field(description="201 if it is in the ledger, 422 if it never will be")
    replayed: bool = Field(default=False, description="Whether it was there already, under the same key")
    entry: RecordedEntry | None = None
    problem: str | None = None


class BatchOutcome(BaseModel):
    """What became of each item, in the order in which they were sent."""

    items: list[ItemOutcome]


class ChainProgress(BaseModel):
    """How far the walk along the chain has come."""

    model_config = ConfigDict(from_attributes=True)

    checked: int = Field(description="How many entries were found sound so far")
    entries: int = Field(description="How many there are to check")


class ChainVerdict(BaseModel):
    """The last line: what the walk found."""

    model_config = ConfigDict(from_attributes=True)

    verified: bool | None = Field(
        description="Whether every entry is sound; null if the walk could not be finished"
    )
    entries: int = Field(description="How many entries were found sound, from the first one on")
    hash: Hash | None = Field(description="The hash of the last of them")
    flaw: str | None = Field(description="The first thing that is wrong")


class LedgerRoot(BaseModel):
    """The hash tree over the whole ledger (RFC 9162, section 2.1)."""

    size: int = Field(description="How many entries are in the tree")
    root: Hash


class InclusionProof(LedgerRoot):
    """What proves that an entry is in the tree; `merkle.verify_inclusion` checks it."""

    entry_hash: Hash
    index: int = Field(description="The entry's place among the leaves, counted from 0")
    proof: list[Hash] = Field(description="The hashes beside the way from the leaf up to the root")
