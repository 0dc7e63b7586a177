"""Does a place follow the connection: is nobody kept waiting by a request that uses none?"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Request, WebSocket
from sqlalchemy import text
from sqlalchemy.orm import Session

from ledger_db import Settings
from ledger_db.errors import Saturated
from ledger_db.fastapi import (
    AsyncManualSessionDep,
    AsyncReadOnlySessionDep,
    AsyncSessionDep,
    AsyncSessionFactoryDep,
    SessionDep,
    async_session_dependency,
    lifespan,
    manager_of,
)
from ledger_db.fastapi.lifetime import opened_of
from tests.support.asgi import Served, serving
from tests.support.notes_service import borrowed
from tests.support.waiting import eventually

ONE = text("SELECT 1")
SLOW = text("SELECT pg_sleep(0.05)")
AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}


def _commit(session: Session) -> None:
    session.execute(ONE)
    session.commit()


def _roll_back(session: Session) -> None:
    session.execute(ONE)
    session.rollback()


def _close(session: Session) -> None:
    session.execute(ONE)
    session.close()


def _block(session: Session) -> None:
    with session.begin(), session.begin_nested():
        session.execute(ONE)


def _autocommit(session: Session) -> None:
    session.connection(execution_options=AUTOCOMMIT).execute(ONE)
    session.commit()


def _twice(session: Session) -> None:
    _commit(session)
    _commit(session)


ENDS: dict[str, Callable[[Session], None]] = {
    "commit": _commit,
    "rollback": _roll_back,
    "close": _close,
    "block": _block,
    "autocommit": _autocommit,
    "twice": _twice,
}


def create_app(settings: Settings, **changes: Any) -> FastAPI:
    """Make a service with room for one request on either half, and endpoints that end their use and wait."""
    sizes = {"pool_size": 1, "max_overflow": 0, "pool_timeout_seconds": 2.0}
    app = FastAPI(lifespan=lifespan(settings.model_copy(update={**sizes, **changes})))
    app.state.may_go = threading.Event()

    @app.get("/quick/sync")
    def quick(session: SessionDep) -> int:
        return int(session.execute(ONE).scalar_one())

    @app.get("/quick/async")
    async def quick_on_loop(session: AsyncSessionDep) -> int:
        return int((await session.execute(ONE)).scalar_one())

    @app.get("/wait/sync/{end}")
    def wait(end: str, session: SessionDep, request: Request) -> None:
        ENDS[end](session)
        request.app.state.may_go.wait(60)

    @app.get("/wait/async/{end}")
    async def wait_on_loop(end: str, session: AsyncSessionDep, request: Request) -> None:
        await session.run_sync(ENDS[end])
        await asyncio.to_thread(request.app.state.may_go.wait, 60)

    return app


def taken(app: FastAPI) -> int:
    """Return how many connections, places and threads are taken."""
    opened = opened_of(app)
    places = opened.admission.status.in_use + opened.async_admission.status.in_use
    return borrowed(opened.manager) + places + opened.finishers.busy


async def nothing_taken(app: FastAPI) -> None:
    """Wait until that is zero."""
    await asyncio.to_thread(eventually, lambda: taken(app) == 0, "nothing is taken any more")


@asynccontextmanager
async def waiting(service: Served, *paths: str) -> AsyncIterator[None]:
    """Keep requests in their endpoints for as long as the block; all of them are answered."""
    requests = [asyncio.create_task(service.client.get(path)) for path in paths]
    await asyncio.sleep(0.1)
    yield
    service.app.state.may_go.set()
    assert [(await each).status_code for each in requests] == [200] * len(paths)
    await nothing_taken(service.app)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("flavour", ["sync", "async"])
async def test_who_has_ended_the_use_of_a_connection_is_in_nobodys_way(
    direct: Settings, flavour: str, end: str
) -> None:
    """Committing before a slow call, the usual advice, frees the connection and the place."""
    async with serving(create_app(direct)) as service:
        async with waiting(service, *[f"/wait/{flavour}/{end}"] * 3):
            answers = [await service.client.get(f"/quick/{flavour}") for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200, 200, 200]


@pytest.mark.parametrize(
    "marker",
    [
        AsyncSessionDep,
        AsyncManualSessionDep,
        AsyncReadOnlySessionDep,
        AsyncSessionFactoryDep,
        Annotated[Any, async_session_dependency(isolation_level="SERIALIZABLE")],
    ],
)
async def test_who_executes_nothing_is_in_nobodys_way(direct: Settings, marker: Any) -> None:
    """A request that finds its answer in a cache asks for no connection, whatever it was given."""
    app = create_app(direct)

    async def cached(session: marker, request: Request) -> None:
        await asyncio.to_thread(request.app.state.may_go.wait, 60)

    app.add_api_route("/cached", cached)
    async with serving(app) as service, waiting(service, *["/cached"] * 3):
        assert taken(app) == 0
        assert (await service.client.get("/quick/async")).status_code == 200


async def test_a_factory_has_a_place_for_each_transaction(direct: Settings) -> None:
    """Between two of them it is in nobody's way, even while its session is open."""
    app = create_app(direct)

    @app.get("/factory")
    async def factory(sessions: AsyncSessionFactoryDep, request: Request) -> None:
        async with sessions.session() as session:
            await session.execute(ONE)
            await session.commit()
            await asyncio.to_thread(request.app.state.may_go.wait, 60)
            await session.execute(ONE)

    async with serving(app) as service, waiting(service, *["/factory"] * 3):
        assert (await service.client.get("/quick/async")).status_code == 200


async def test_a_websocket_holds_a_place_only_while_it_asks(direct: Settings) -> None:
    """One that has committed, and is open for hours, keeps nobody waiting."""
    app = create_app(direct)

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, session: AsyncSessionDep) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            await session.execute(ONE)
            await session.commit()
            await websocket.send_text(str(taken(app)))

    async with serving(app) as service:
        heard = await service.talk("/socket", ["1", "2"])

        assert [message["text"] for message in heard if "text" in message] == ["0", "0"]
        await nothing_taken(app)


async def test_a_thread_that_begins_again_is_counted_and_need_not_queue(direct: Settings) -> None:
    """A def endpoint that commits and reads what it wrote is served, however many do so at once."""
    app = create_app(direct, pool_size=2, max_overflow=1, pool_timeout_seconds=20)

    @app.get("/refresh")
    def refresh(session: SessionDep) -> int:
        session.execute(SLOW)
        session.commit()
        return int(session.execute(ONE).scalar_one())

    async with serving(app) as service:
        answers = await asyncio.gather(*(service.client.get("/refresh") for _ in range(100)))

        assert {answer.status_code for answer in answers} == {200}
        await nothing_taken(app)


async def test_a_thread_that_begins_again_is_told_if_there_is_no_connection(direct: Settings) -> None:
    """It hears of it in its endpoint, as Saturated, and its client with 503 and Retry-After."""
    app = create_app(direct, pool_timeout_seconds=0.2)
    heard: list[str] = []

    @app.get("/again")
    def again(session: SessionDep) -> None:
        _commit(session)
        with manager_of(app).engine.connect():
            try:
                session.execute(ONE)
            except Saturated as error:
                heard.append(str(error))
                raise

    async with serving(app) as service:
        answer = await service.client.get("/again")

        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "no connection came back to the pool in time" in heard[0]
        await nothing_taken(app)


@pytest.mark.parametrize("flavour", ["sync", "async"])
async def test_the_message_says_what_is_taken(direct: Settings, flavour: str) -> None:
    """It counts connections on a loop; in threads it says that places are taken in advance."""
    app = create_app(direct, pool_timeout_seconds=0.1)
    opened: Any = None
    async with serving(app):
        opened = opened_of(app)
        admission = opened.admission if flavour == "sync" else opened.async_admission
        await admission.enter()
        with pytest.raises(Saturated) as told:
            await admission.enter()
        admission.leave()

    assert "no connection was free within 0.1 s (places=1, in use=1, waiting=0)" in str(told.value)
    assert ("def endpoints have a place from before they run" in str(told.value)) is (flavour == "sync")


async def test_two_managers_count_apart(direct: Settings) -> None:
    """An endpoint with a session of each holds one place of each, and gives both back."""
    app = create_app(direct)
    app.router.lifespan_context = lifespan(direct, archive=direct.model_copy(update={"pool_size": 1}))

    @app.get("/two")
    async def two(
        one: AsyncSessionDep, other: Annotated[Any, async_session_dependency("archive")]
    ) -> list[int]:
        await one.execute(ONE)
        await other.execute(ONE)
        names = ("default", "archive")
        return [opened_of(app, name).async_admission.status.in_use for name in names]

    async with serving(app) as service:
        assert (await service.client.get("/two")).json() == [1, 1]
        assert [opened_of(app, name).async_admission.status.in_use for name in ("default", "archive")] == [
            0,
            0,
        ]


async def test_a_session_that_is_over_does_not_wait_for_a_place(direct: Settings) -> None:
    """Nor does it hold one: who uses it after its request hears of that at once."""
    app = create_app(direct)
    kept: list[Any] = []

    @app.get("/keep")
    async def keep(one: AsyncSessionDep, other: SessionDep) -> None:
        kept.extend((one, other))

    async with serving(app) as service:
        assert (await service.client.get("/keep")).status_code == 200
        for admission in (opened_of(app).admission, opened_of(app).async_admission):
            await admission.enter()
        with pytest.raises(Exception, match="permanently closed"):
            await asyncio.wait_for(kept[0].execute(ONE), 1)
        with pytest.raises(Exception, match="permanently closed"):
            await asyncio.to_thread(kept[1].execute, ONE)
        for admission in (opened_of(app).admission, opened_of(app).async_admission):
            admission.leave()
        await nothing_taken(app)
