"""
The Trust Ledger: an append-only ledger behind HTTP, on PostgreSQL and Redis whose passwords rotate.

There is nothing about passwords in here.  The manager is opened when the service starts, and used.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from examples.trust_ledger import ledger
from examples.trust_ledger.chain import Draft, Entry
from examples.trust_ledger.idempotency import Shortcut
from examples.trust_ledger.ledger import Appended, KeyReused, Verification
from ledger_db import ConnectionManager, Settings
from ledger_db.errors import LedgerDBError

log = logging.getLogger(__name__)

_LARGEST = 2**63 - 1
"""What a BIGINT holds: a larger number is the client's mistake, not the database's."""

_NO_NUL = r"^[^\x00]*$"
"""PostgreSQL keeps every character of Unicode in a text, except this one."""


def open_manager() -> ConnectionManager:
    """Make the manager that the environment describes (LEDGER_DB_*)."""
    return ConnectionManager(Settings())


def create_app(make_manager: Callable[[], ConnectionManager] = open_manager) -> FastAPI:
    """
    Make the service.

    Args:
        make_manager: Called once, when the service starts: importing this module connects to nothing.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # A manager that can not log in raises here, and the service ends before it has taken a request.
        async with make_manager() as db:
            async with db.async_begin() as session:
                await ledger.create_tables(session)
            app.state.db = db
            yield

    app = FastAPI(title="Trust Ledger", lifespan=lifespan)
    app.include_router(router)
    # The first has no connection to give, the second lost the one it had.
    app.add_exception_handler(LedgerDBError, answer_unavailable)
    app.add_exception_handler(SQLAlchemyError, answer_unavailable)
    app.add_exception_handler(RequestValidationError, answer_invalid)
    return app


async def manager_of(request: Request) -> ConnectionManager:
    """Hand the open manager to an endpoint."""
    db: ConnectionManager = request.app.state.db
    return db


async def answer_invalid(request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong with a request, without repeating it: half a character could not be sent back."""
    assert isinstance(error, RequestValidationError)
    detail = [{name: problem[name] for name in ("loc", "msg", "type")} for problem in error.errors()]
    return JSONResponse({"detail": detail}, status_code=422)


async def answer_unavailable(request: Request, error: Exception) -> JSONResponse:
    """
    Say that the fault is here and may pass, and nothing about what it is: that is in the log.

    Whether an append got through before the connection broke is not known here either.  The client finds out
    by sending it again with the same key.
    """
    log.error("request.unavailable", extra={"path": request.url.path}, exc_info=error)
    return JSONResponse({"detail": "try again later"}, status_code=503, headers={"Retry-After": "1"})


Manager = Annotated[ConnectionManager, Depends(manager_of)]
router = APIRouter()


@router.post("/entries", status_code=201)
async def append_entry(
    db: Manager,
    *,
    response: Response,
    account: Annotated[str, Body(min_length=1, max_length=64, pattern=_NO_NUL)],
    # Strict: with money, 1.0 and "1" and true are misunderstandings, not the number one.
    amount: Annotated[int, Body(ge=-_LARGEST, le=_LARGEST, strict=True)],
    memo: Annotated[str, Body(max_length=280, pattern=_NO_NUL)] = "",
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Entry:
    """
    Append an entry.  Sent again with the same key, it is the same entry and the same answer.

    Raises:
        HTTPException: 400 without a key; 422 if the key was used for another entry.
    """
    if idempotency_key is None:
        raise HTTPException(
            400, "an Idempotency-Key header is needed: any text of your own, new for each entry"
        )
    draft = Draft(account=account, amount=amount, memo=memo)
    shortcut = Shortcut(db)
    known = await shortcut.recall(idempotency_key)
    try:
        if known is None:
            appended = await _append(db, draft, idempotency_key=idempotency_key)
            await shortcut.remember(appended.entry)
        else:
            appended = ledger.replay(known, draft)
    except KeyReused as error:
        raise HTTPException(422, str(error)) from error
    response.headers["Idempotency-Replayed"] = "true" if appended.replayed else "false"
    response.headers["Idempotency-Cache"] = "used" if shortcut.usable else "unavailable"
    return appended.entry


@router.get("/entries")
async def list_entries(
    db: Manager,
    after: Annotated[int, Query(ge=0, le=_LARGEST)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> dict[str, Any]:
    """List entries in the order of the chain; ``next`` is the ``after`` of the next page."""
    async with db.async_begin(read_only=True) as session:
        page = await ledger.read_page(session, after=after, limit=limit)
    return {"entries": page, "next": page[-1].id if len(page) == limit else None}


@router.get("/entries/{entry_id}")
async def show_entry(db: Manager, entry_id: Annotated[int, Path(ge=1, le=_LARGEST)]) -> Entry:
    """Show one entry."""
    async with db.async_begin(read_only=True) as session:
        entry = await ledger.find_by_id(session, entry_id)
    if entry is None:
        raise HTTPException(404, f"there is no entry {entry_id}")
    return entry


@router.get("/verify")
async def verify_chain(db: Manager) -> Verification:
    """Recompute the chain from its first entry to its last."""
    return await ledger.verify(db)


@router.get("/health")
async def show_health(db: Manager, response: Response) -> dict[str, Any]:
    """Say how the connections are, 503 if they are not well; no server is asked, so this is always quick."""
    report = db.health()
    response.status_code = 200 if report.ok else 503
    return report.as_dict()


async def _append(db: ConnectionManager, draft: Draft, *, idempotency_key: str) -> Appended:
    # Committed where the block ends, so before there is an answer: an entry that a client has heard of is
    # there for ever, and a commit that fails is an error that the client hears of.
    async with db.async_begin() as session:
        return await ledger.append(session, draft, idempotency_key=idempotency_key)


app = create_app()
