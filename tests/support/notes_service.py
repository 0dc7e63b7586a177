"""A service with an endpoint for each way in which a session can end, with ``def`` and with ``async def``."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from ledger_db import ConnectionManager, Settings
from ledger_db.fastapi import (
    AsyncManualSessionDep,
    AsyncReadOnlySessionDep,
    AsyncSerializableSessionDep,
    AsyncSessionDep,
    ManualSessionDep,
    ReadOnlySessionDep,
    SerializableSessionDep,
    SessionDep,
    async_session_dependency,
    lifespan,
    mark_rollback,
    session_dependency,
)
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import choice_of, is_on_loop

_CREATE = (
    "DROP TABLE IF EXISTS fastapi_notes; CREATE TABLE fastapi_notes (id int PRIMARY KEY, "
    "parent int REFERENCES fastapi_notes DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON fastapi_notes TO PUBLIC"
)
INSERT = text("INSERT INTO fastapi_notes (id) VALUES (:id)")
INSERT_ORPHAN = text("INSERT INTO fastapi_notes (id, parent) VALUES (:id, 4711)")
SHOW = text(
    "SELECT current_setting('transaction_read_only'), current_setting('transaction_isolation'), "
    "current_setting('statement_timeout')"
)


router = APIRouter()
async_router = APIRouter()


class Base(DeclarativeBase):
    """The tables of this service."""


class Note(Base):
    """One row."""

    __tablename__ = "fastapi_notes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


@contextmanager
def notes_table(box: Sandbox) -> Iterator[Callable[[], list[int]]]:
    """Make the table, and yield a look into it from outside of the service."""
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(_CREATE)

        def look() -> list[int]:
            cursor.execute("SELECT id FROM fastapi_notes ORDER BY id")
            return [row[0] for row in cursor.fetchall()]

        yield look
        cursor.execute("DROP TABLE fastapi_notes")


def borrowed(db: ConnectionManager) -> int:
    """Return how many connections are in use."""
    return sum(pool.checked_out for server in db.health().servers for pool in server.pools)


def create_service(settings: Settings, driver: str) -> FastAPI:
    """Make the service with one of `DRIVERS`."""
    app = FastAPI(lifespan=lifespan(settings.model_copy(update=choice_of(driver))))
    app.include_router(async_router if is_on_loop(driver) else router)
    return app


@router.get("/return/{key}")
def return_(key: int, session: SessionDep) -> dict[str, int]:
    """Insert and return."""
    session.execute(INSERT, {"id": key})
    return {"key": key}


@router.get("/add/{key}")
def add(key: int, session: SessionDep) -> dict[str, int]:
    """Add an object and return."""
    session.add(Note(id=key))
    return {"key": key}


@router.get("/orphan/{key}")
def orphan(key: int, session: SessionDep) -> dict[str, int]:
    """Insert what COMMIT will refuse."""
    session.execute(INSERT_ORPHAN, {"id": key})
    return {"key": key}


@router.get("/raise/{key}")
def raise_(key: int, session: SessionDep) -> None:
    """Insert and raise."""
    session.execute(INSERT, {"id": key})
    raise HTTPException(409) if key % 2 else RuntimeError


@router.get("/wrong/{key}")
def wrong(key: int, session: SessionDep) -> dict[str, int]:
    """Insert and answer something else than announced."""
    session.execute(INSERT, {"id": key})
    return "not what was announced"  # type: ignore[return-value]  # the point


@router.get("/refuse/{key}")
def refuse(key: int, session: SessionDep, *, mark: bool) -> JSONResponse:
    """Insert and return an error."""
    session.execute(INSERT, {"id": key})
    if mark:
        mark_rollback(session)
    return JSONResponse({}, status_code=400)


@router.get("/manual/{key}")
def manual(key: int, session: ManualSessionDep, *, commit: bool) -> None:
    """Insert, and perhaps commit."""
    session.execute(INSERT, {"id": key})
    if commit:
        session.commit()
        session.execute(INSERT, {"id": key + 1})


@router.get("/read-only/{key}")
def read_only(key: int, session: ReadOnlySessionDep) -> None:
    """Insert where that is not allowed."""
    session.execute(INSERT, {"id": key})


@router.get("/serializable")
def serializable(session: SerializableSessionDep) -> list[str]:
    """Show what the transaction is."""
    return list(session.execute(SHOW).one())


@router.get("/built")
def built(
    session: Annotated[Session, session_dependency(statement_timeout_seconds=1.5, read_only=True)],
) -> list[str]:
    """Show what the transaction is."""
    return list(session.execute(SHOW).one())


@router.get("/unused")
def unused(session: SessionDep) -> None:
    """Do nothing."""


@router.get("/background")
def background(session: SessionDep, tasks: BackgroundTasks) -> None:
    """Go on with the session when the answer has left."""
    session.execute(text("SELECT 1"))
    tasks.add_task(session.execute, text("SELECT 1"))


@async_router.get("/return/{key}")
async def return_async(key: int, session: AsyncSessionDep) -> dict[str, int]:
    """Insert and return."""
    await session.execute(INSERT, {"id": key})
    return {"key": key}


@async_router.get("/add/{key}")
async def add_async(key: int, session: AsyncSessionDep) -> dict[str, int]:
    """Add an object and return."""
    session.add(Note(id=key))
    return {"key": key}


@async_router.get("/orphan/{key}")
async def orphan_async(key: int, session: AsyncSessionDep) -> dict[str, int]:
    """Insert what COMMIT will refuse."""
    await session.execute(INSERT_ORPHAN, {"id": key})
    return {"key": key}


@async_router.get("/raise/{key}")
async def raise_async(key: int, session: AsyncSessionDep) -> None:
    """Insert and raise."""
    await session.execute(INSERT, {"id": key})
    raise HTTPException(409) if key % 2 else RuntimeError


@async_router.get("/wrong/{key}")
async def wrong_async(key: int, session: AsyncSessionDep) -> dict[str, int]:
    """Insert and answer something else than announced."""
    await session.execute(INSERT, {"id": key})
    return "not what was announced"  # type: ignore[return-value]  # the point


@async_router.get("/refuse/{key}")
async def refuse_async(key: int, session: AsyncSessionDep, *, mark: bool) -> JSONResponse:
    """Insert and return an error."""
    await session.execute(INSERT, {"id": key})
    if mark:
        mark_rollback(session)
    return JSONResponse({}, status_code=400)


@async_router.get("/manual/{key}")
async def manual_async(key: int, session: AsyncManualSessionDep, *, commit: bool) -> None:
    """Insert, and perhaps commit."""
    await session.execute(INSERT, {"id": key})
    if commit:
        await session.commit()
        await session.execute(INSERT, {"id": key + 1})


@async_router.get("/read-only/{key}")
async def read_only_async(key: int, session: AsyncReadOnlySessionDep) -> None:
    """Insert where that is not allowed."""
    await session.execute(INSERT, {"id": key})


@async_router.get("/serializable")
async def serializable_async(session: AsyncSerializableSessionDep) -> list[str]:
    """Show what the transaction is."""
    return list((await session.execute(SHOW)).one())


@async_router.get("/built")
async def built_async(
    session: Annotated[AsyncSession, async_session_dependency(statement_timeout_seconds=1.5, read_only=True)],
) -> list[str]:
    """Show what the transaction is."""
    return list((await session.execute(SHOW)).one())


@async_router.get("/unused")
async def unused_async(session: AsyncSessionDep) -> None:
    """Do nothing."""


@async_router.get("/background")
async def background_async(session: AsyncSessionDep, tasks: BackgroundTasks) -> None:
    """Go on with the session when the answer has left."""
    await session.execute(text("SELECT 1"))
    tasks.add_task(session.execute, text("SELECT 1"))
