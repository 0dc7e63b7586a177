"""What becomes of a request whose endpoint has committed, undone or closed its session by itself?"""

import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError

from ledger_db import ConnectionManager, Settings
from ledger_db.fastapi import AsyncSessionDep, SessionDep, lifespan, manager_of
from ledger_db.sandbox import Sandbox
from tests.support.asgi import Message, serving
from tests.support.closed_early import BLOCKS, CALLS, create_app
from tests.support.notes_service import borrowed, notes_table

TAKE_A_FACTORY = (
    "permanently closed: it ended with its request.* takes SessionFactoryDep or AsyncSessionFactory"
)
EXPECTED = {
    **{f"/call/{name}": outcome for name, (_, outcome) in CALLS.items()},
    **{f"/block/{name}": outcome for name, (*_, outcome) in BLOCKS.items()},
    "/manual": (201, []),
}


@pytest.fixture
def notes(box: Sandbox) -> Iterator[Callable[[], list[int]]]:
    """A table, and a look into it from outside of the service."""
    with notes_table(box) as look:
        yield look


@pytest.mark.parametrize("path", EXPECTED)
async def test_def_and_async_def_are_alike(
    direct: Settings,
    driver: str,
    notes: Callable[[], list[int]],
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    """After its own commit or a mere read nothing is left to do; a write that closing has undone is told."""
    app = create_app(direct, driver)
    with caplog.at_level(logging.ERROR):
        async with serving(app) as service:
            status = (await service.client.get(path)).status_code
            assert borrowed(manager_of(app)) == 0

    assert (status, notes()) == EXPECTED[path]
    assert ("closed its session before what it had written was committed" in caplog.text) is (status == 500)


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
@pytest.mark.parametrize("later", ["task", "stream"])
async def test_what_comes_after_the_request_is_told_to_take_a_factory(
    direct: Settings, driver: str, later: str
) -> None:
    """A background task or a stream that goes on with the session reads what to take instead."""
    app = FastAPI(lifespan=lifespan(direct))

    @app.get("/psycopg2/task")
    def task(session: SessionDep, tasks: BackgroundTasks) -> None:
        tasks.add_task(session.execute, text("SELECT 1"))

    @app.get("/asyncpg/task")
    async def task_on_loop(session: AsyncSessionDep, tasks: BackgroundTasks) -> None:
        tasks.add_task(session.execute, text("SELECT 1"))

    @app.get("/psycopg2/stream")
    def stream(session: SessionDep) -> StreamingResponse:
        return StreamingResponse(str(session.scalar(text("SELECT 1"))) for _ in range(1))

    @app.get("/asyncpg/stream")
    async def stream_on_loop(session: AsyncSessionDep) -> StreamingResponse:
        async def numbers() -> AsyncIterator[str]:
            yield str(await session.scalar(text("SELECT 1")))

        return StreamingResponse(numbers())

    async def on_send(message: Message) -> None:
        """Let the answer leave."""

    async with serving(app) as service:
        with pytest.raises((InvalidRequestError, ExceptionGroup)) as told:
            await service.get(f"/{driver}/{later}", on_send)

    # An older Starlette streams in a group of tasks.
    error = told.value.exceptions[0] if isinstance(told.value, ExceptionGroup) else told.value
    assert re.search(TAKE_A_FACTORY, str(error))


async def test_a_manager_may_be_given_to_a_lifespan_that_starts_again(direct: Settings) -> None:
    """Each start opens it, and each end closes it, as a test client in a block for each test does."""
    app = FastAPI(lifespan=lifespan(ConnectionManager(direct)))

    @app.get("/")
    async def one(session: AsyncSessionDep) -> int:
        return int((await session.execute(text("SELECT 1"))).scalar_one())

    for _ in range(3):
        async with serving(app) as service:
            assert (await service.client.get("/")).json() == 1
