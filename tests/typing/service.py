"""What does a type checker know of a FastAPI service?"""

from typing import Annotated, assert_type

from fastapi import APIRouter, Depends, FastAPI, Request
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ledger_db import ConnectionManager, Settings
from ledger_db.fastapi import (
    AdmissionOptions,
    AsyncManualSessionDep,
    AsyncReadOnlySessionDep,
    AsyncRedisDep,
    AsyncSessionDep,
    AsyncSessionFactoryDep,
    ManagerDep,
    ReadOnlySessionDep,
    RedisDep,
    SerializableSessionDep,
    SessionDep,
    SessionFactoryDep,
    async_session_dependency,
    install_error_handlers,
    lifespan,
    make_router,
    manager_of,
    mark_rollback,
    problem_responses,
    router,
    session,
    session_dependency,
)

app = FastAPI(
    lifespan=lifespan(Settings(), admission=AdmissionOptions(reserve=1), reports=ConnectionManager),
    responses=problem_responses,
)
app.include_router(router)
app.include_router(make_router("default", "reports"))
install_error_handlers(app, http_errors=True)
lifespan(42)  # type: ignore[arg-type] # no manager comes from a number

entries = APIRouter(prefix="/entries")
ReportsDep = Annotated[Session, session_dependency("reports", read_only=True)]


@entries.get("/")
def on_a_thread(
    own: SessionDep,
    reading: ReadOnlySessionDep,
    alone: SerializableSessionDep,
    reports: ReportsDep,
    longhand: Annotated[Session, Depends(session, scope="function")],
) -> None:
    """A session is a Session, whatever is said about it."""
    assert_type((own, reading, alone), tuple[Session, Session, Session])
    assert_type((reports, longhand), tuple[Session, Session])
    mark_rollback(own)


@entries.get("/loop")
async def on_the_loop(
    own: AsyncSessionDep,
    reading: AsyncReadOnlySessionDep,
    manual: AsyncManualSessionDep,
    reports: Annotated[AsyncSession, async_session_dependency("reports", isolation_level="SERIALIZABLE")],
) -> None:
    """An asynchronous one is an AsyncSession."""
    assert_type(
        (own, reading, manual, reports), tuple[AsyncSession, AsyncSession, AsyncSession, AsyncSession]
    )
    mark_rollback(own)


@entries.get("/others")
async def others(
    request: Request, db: ManagerDep, cache: RedisDep, shared: AsyncRedisDep, opens: SessionFactoryDep
) -> None:
    """The rest of the manager comes the same way."""
    assert_type(db, ConnectionManager)
    assert_type(manager_of(request, "reports"), ConnectionManager)
    assert_type((cache, shared), tuple[Redis, AsyncRedis])
    with opens.session(read_only=True) as later:
        assert_type(later, Session)


@entries.get("/stream")
async def stream(opens: AsyncSessionFactoryDep) -> None:
    """A factory on the loop opens for ``async with``."""
    async with opens.session() as later:
        assert_type(later, AsyncSession)
    async with opens.begin() as later:
        assert_type(later, AsyncSession)


session_dependency(readonly=True)  # type: ignore[call-arg] # misspelt
