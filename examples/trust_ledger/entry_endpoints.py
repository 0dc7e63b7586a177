"""How are entries appended and read over HTTP?"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Response
from pydantic import ValidationError

from examples.trust_ledger import ledger
from examples.trust_ledger.chain import Draft, Entry
from examples.trust_ledger.idempotency import Shortcut
from examples.trust_ledger.ledger import Appended, KeyReused
from examples.trust_ledger.messages import (
    LARGEST,
    BatchOutcome,
    EntryPage,
    ItemOutcome,
    Key,
    NewBatch,
    NewEntry,
    NewItem,
    RecordedEntry,
)
from examples.trust_ledger.problem_documents import OF_AN_ENTRY, WITH_A_BODY, WITH_INPUT
from examples.trust_ledger.settings import SettingsDep
from examples.trust_ledger.writing import BatchItem, Refused, append_batch, append_once
from ledger_db.fastapi import AsyncReadOnlySessionDep, AsyncRedisDep, ManagerDep

EntryId = Annotated[int, Path(ge=1, le=LARGEST, description="The entry's place in the chain")]

_APPENDED_HEADERS = {
    "Idempotency-Replayed": {
        "description": "Whether the entry was there already, under the same key",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "Idempotency-Cache": {
        "description": "Whether Redis could be used; without it an append is slower, and as safe",
        "schema": {"type": "string", "enum": ["used", "unavailable"]},
    },
}

router = APIRouter(prefix="/entries", tags=["entries"])


async def shortcut_of(redis: AsyncRedisDep, settings: SettingsDep) -> Shortcut:
    """Make the memory of Redis for one request."""
    return Shortcut(redis, remember_seconds=settings.remember_seconds)


ShortcutDep = Annotated[Shortcut, Depends(shortcut_of)]


@router.post(
    "",
    summary="Append an entry",
    operation_id="append_entry",
    status_code=201,
    response_model=RecordedEntry,
    responses={**WITH_A_BODY, 201: {"headers": _APPENDED_HEADERS}},
)
async def append_entry(
    new: NewEntry,
    db: ManagerDep,
    shortcut: ShortcutDep,
    *,
    response: Response,
    idempotency_key: Annotated[Key, Header(alias="Idempotency-Key")],
) -> Entry:
    """
    Append an entry to the chain.  It is committed before the answer leaves.

    Sent again with the same `Idempotency-Key`, it is the same entry and the same answer: after a 503, or
    without any answer, send it again.  The same key with another body is refused with 422.
    """
    draft = Draft(account=new.account, amount=new.amount, memo=new.memo)
    known = await shortcut.recall(idempotency_key)
    try:
        if known is not None:
            appended = ledger.replay(known, draft)
        else:
            appended = await append_once(db, draft, idempotency_key=idempotency_key)
            await shortcut.remember(appended.entry)
    except KeyReused as error:
        raise HTTPException(422, str(error)) from error
    response.headers["Idempotency-Replayed"] = "true" if appended.replayed else "false"
    response.headers["Idempotency-Cache"] = "used" if shortcut.usable else "unavailable"
    return appended.entry


@router.post(
    "/batch",
    summary="Append some entries",
    operation_id="append_entries",
    responses=WITH_A_BODY,
)
async def append_entries(new: NewBatch, db: ManagerDep) -> BatchOutcome:
    """
    Append up to a hundred entries, each with an idempotency key of its own.

    An item that can not be recorded does not send back the others: the answer is 200, and says of each item
    which status it would have had alone.  Sent again, the batch adds only what is missing.
    """
    read = [_read_item(item) for item in new.items]
    outcomes = iter(await append_batch(db, [item for item in read if isinstance(item, BatchItem)]))
    return BatchOutcome(
        items=[_outcome(next(outcomes) if isinstance(item, BatchItem) else item) for item in read]
    )


@router.get("", summary="List entries", operation_id="list_entries", responses=WITH_INPUT)
async def list_entries(
    session: AsyncReadOnlySessionDep,
    after: Annotated[int, Query(ge=0, le=LARGEST, description="The entry before the first one wanted")] = 0,
    limit: Annotated[int, Query(ge=1, le=500, description="The most entries to list")] = 100,
) -> EntryPage:
    """
    List entries in the order of the chain, page by page.

    `next` is the `after` of the next page.  Following it shows every entry once, whatever is appended
    meanwhile.
    """
    page = await ledger.read_page(session, after=after, limit=limit)
    return EntryPage(
        entries=[RecordedEntry.model_validate(entry) for entry in page],
        next=page[-1].id if len(page) == limit else None,
    )


@router.get(
    "/{entry_id}",
    summary="Show one entry",
    operation_id="show_entry",
    response_model=RecordedEntry,
    responses=OF_AN_ENTRY,
)
async def show_entry(session: AsyncReadOnlySessionDep, entry_id: EntryId) -> Entry:
    """Show the entry at one place of the chain."""
    entry = await ledger.find_by_id(session, entry_id)
    if entry is None:
        raise HTTPException(404, f"there is no entry {entry_id}")
    return entry


def _read_item(item: Any) -> BatchItem | Refused:
    try:
        new = NewItem.model_validate(item)
    except ValidationError as error:
        # What was sent is not repeated: half a character could not be sent back.
        return Refused("; ".join(_describe(problem["loc"], problem["msg"]) for problem in error.errors()))
    draft = Draft(account=new.account, amount=new.amount, memo=new.memo)
    return BatchItem(idempotency_key=new.idempotency_key, draft=draft)


def _describe(place: Sequence[str | int], message: str) -> str:
    # Names that the client has made up are its input too.
    known = [str(name) for name in place if name in NewItem.model_fields]
    return f"{'.'.join(known) or 'item'}: {message}"


def _outcome(found: Appended | Refused) -> ItemOutcome:
    if isinstance(found, Refused):
        return ItemOutcome(status=422, problem=found.reason)
    return ItemOutcome(status=201, replayed=found.replayed, entry=RecordedEntry.model_validate(found.entry))
