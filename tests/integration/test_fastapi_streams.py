"""Can work that outlives its request use the database without holding on to it?"""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import text

from ledger_db import Settings
from ledger_db.fastapi import (
    AsyncSessionFactory,
    AsyncSessionFactoryDep,
    SessionFactory,
    SessionFactoryDep,
    lifespan,
    manager_of,
)
from ledger_db.sandbox import Sandbox
from tests.support.asgi import Message, serving
from tests.support.notes_service import INSERT, borrowed, notes_table

BATCHES = 3
NEXT = text("SELECT :number + 1")

router = APIRouter()


@router.get("/stream/sync")
def stream(factory: SessionFactoryDep) -> StreamingResponse:
    """Answer in batches, from a plain generator."""

    def batches() -> Iterator[str]:
        for number in range(BATCHES):
            with factory.session(read_only=True) as session:
                row = session.execute(NEXT, {"number": number}).scalar_one()
            yield f"{row} "

    return StreamingResponse(batches())


@router.get("/stream/async")
async def stream_async(factory: AsyncSessionFactoryDep) -> StreamingResponse:
    """Answer in batches, from an asynchronous generator."""

    async def batches() -> AsyncIterator[str]:
        for number in range(BATCHES):
            async with factory.session(read_only=True) as session:
                row = (await session.execute(NEXT, {"number": number})).scalar_one()
            yield f"{row} "

    return StreamingResponse(batches())


@router.get("/background/sync")
def background(factory: SessionFactoryDep, tasks: BackgroundTasks) -> None:
    """Write when the answer has left."""
    tasks.add_task(write, factory)


@router.get("/background/async")
async def background_async(factory: AsyncSessionFactoryDep, tasks: BackgroundTasks) -> None:
    """Write when the answer has left."""
    tasks.add_task(write_async, factory)


@router.websocket("/socket")
async def socket(websocket: WebSocket, factory: AsyncSessionFactoryDep) -> None:
    """Write a row for each message."""
    await websocket.accept()
    async for key in websocket.iter_text():
        async with factory.begin() as session:
            await session.execute(INSERT, {"id": int(key)})
        await websocket.send_text(str(borrowed(manager_of(websocket))))


def write(factory: SessionFactory) -> None:
    """Write a row."""
    with factory.begin() as session:
        session.execute(INSERT, {"id": 1})


async def write_async(factory: AsyncSessionFactory) -> None:
    """Write a row."""
    async with factory.begin() as session:
        await session.execute(INSERT, {"id": 1})


@pytest.fixture
def notes(environment: Sandbox) -> Iterator[Callable[[], list[int]]]:
    """A table, and a look into it from outside of the service."""
    with notes_table(environment) as look:
        yield look


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """Make a service with streams, background tasks and a websocket."""
    app = FastAPI(lifespan=lifespan(settings))
    app.include_router(router)
    return app


@pytest.mark.parametrize("flavour", ["sync", "async"])
async def test_a_stream_holds_no_connection_while_a_client_reads(app: FastAPI, flavour: str) -> None:
    """Between two batches the pool is whole, however slow the client."""
    chunks: list[bytes] = []
    in_use: list[int] = []

    async def on_send(message: Message) -> None:
        chunks.append(message.get("body", b""))
        in_use.append(borrowed(manager_of(app)))

    async with serving(app) as service:
        await service.get(f"/stream/{flavour}", on_send)

    assert b"".join(chunks) == b"1 2 3 "
    assert len(in_use) == BATCHES + 2
    assert not any(in_use)


@pytest.mark.parametrize("flavour", ["sync", "async"])
async def test_a_background_task_has_sessions_of_its_own(
    app: FastAPI, notes: Callable[[], list[int]], flavour: str
) -> None:
    """The answer leaves first, then the task writes and commits."""
    seen = []

    async def on_send(message: Message) -> None:
        seen.append(notes())

    async with serving(app) as service:
        await service.get(f"/background/{flavour}", on_send)
        assert borrowed(manager_of(app)) == 0

    assert seen == [[], []]
    assert notes() == [1]


async def test_a_websocket_takes_a_session_for_each_message(
    app: FastAPI, notes: Callable[[], list[int]]
) -> None:
    """A connection that is open for hours holds none to the database between two messages."""
    async with serving(app) as service:
        heard = await service.talk("/socket", ["4", "5"])

    assert [message["text"] for message in heard if "text" in message] == ["0", "0"]
    assert notes() == [4, 5]
