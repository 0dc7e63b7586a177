"""What happens when more is asked of a service than it has connections?"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from queue import Queue
from typing import Any

import anyio
import psycopg2
import pytest
from fastapi import APIRouter, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import event, text

from ledger_db import ConnectionManager, Settings
from ledger_db.errors import Saturated
from ledger_db.fastapi import (
    AdmissionOptions,
    AsyncSessionDep,
    AsyncSessionFactoryDep,
    ReadOnlySessionDep,
    SessionDep,
    SessionFactory,
    lifespan,
    manager_of,
)
from ledger_db.fastapi.lifetime import opened_of
from ledger_db.sandbox import Sandbox
from tests.support.asgi import Served, serving
from tests.support.notes_service import INSERT, Note, borrowed, notes_table
from tests.support.waiting import eventually

QUERY = text("SELECT pg_sleep(0.002), 7")
FLAVOURS = pytest.mark.parametrize("flavour", ["sync", "async"])


class Answer(BaseModel):
    """What has to be validated takes a thread of its own when the endpoint is a plain function."""

    number: int


router = APIRouter()


@router.get("/sync")
def read(session: SessionDep) -> Answer:
    """Ask for a row."""
    return Answer(number=session.execute(QUERY).one()[1])


@router.get("/async")
async def read_async(session: AsyncSessionDep) -> Answer:
    """Ask for a row."""
    return Answer(number=(await session.execute(QUERY)).one()[1])


@router.get("/hold/sync")
def hold(session: SessionDep, request: Request) -> None:
    """Hold a connection until it may go."""
    session.execute(QUERY)
    request.app.state.may_go.wait(60)


@router.get("/hold/async")
async def hold_async(session: AsyncSessionDep, request: Request) -> None:
    """Hold a connection until it may go."""
    await session.execute(QUERY)
    await asyncio.to_thread(request.app.state.may_go.wait, 60)


@router.get("/sleep/sync")
def sleep(session: SessionDep) -> None:
    """Be busy for a while."""
    session.execute(text("SELECT pg_sleep(0.02)"))


@router.get("/sleep/async")
async def sleep_async(session: AsyncSessionDep) -> None:
    """Be busy for a while."""
    await session.execute(text("SELECT pg_sleep(0.02)"))


@router.get("/add/sync")
def add(session: SessionDep) -> None:
    """Leave the work to the commit."""
    session.add(Note(id=1))


@router.get("/add/async")
async def add_async(session: AsyncSessionDep) -> None:
    """Leave the work to the commit."""
    session.add(Note(id=1))


@router.get("/both")
def both(one: SessionDep, other: ReadOnlySessionDep) -> Answer:
    """Need two connections."""
    one.execute(QUERY)
    return Answer(number=other.execute(QUERY).one()[1])


@router.websocket("/socket")
async def socket(websocket: WebSocket, session: AsyncSessionDep) -> None:
    """Need a connection."""
    await session.execute(QUERY)
    await websocket.accept()


@router.get("/factory")
async def use_factory(factory: AsyncSessionFactoryDep) -> None:
    """Need a connection for a while."""
    async with factory.session() as session:
        await session.execute(QUERY)


@router.websocket("/factory")
async def talk_with_factory(websocket: WebSocket, factory: AsyncSessionFactoryDep) -> None:
    """Need a connection in the middle of a conversation."""
    await websocket.accept()
    async with factory.begin() as session:
        await session.execute(QUERY)


@router.get("/leave/{key}")
async def leave(key: int, session: SessionDep) -> None:
    """Be cancelled at the very moment at which the session ends."""
    await asyncio.to_thread(session.execute, INSERT, {"id": key})
    request = asyncio.current_task()
    assert request is not None
    request.cancel()
    if key % 2:
        raise HTTPException(400)


def create_app(
    settings: Settings, *, admission: AdmissionOptions | None = None, **changes: object
) -> FastAPI:
    """Make a service whose settings differ in *changes*."""
    app = FastAPI(
        lifespan=lifespan(settings.model_copy(update=changes), admission=admission or AdmissionOptions())
    )
    app.include_router(router)
    app.state.may_go = threading.Event()
    return app


def taken(app: FastAPI) -> int:
    """Return how many connections, places and threads are taken."""
    opened = opened_of(app)
    places = opened.admission.status.in_use + opened.async_admission.status.in_use
    return borrowed(opened.manager) + places + opened.finishers.busy


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for *condition* without holding up the service."""
    await asyncio.to_thread(eventually, condition, what)


async def statuses(service: Served, path: str, times: int) -> Counter[int]:
    """Send requests at the same time, and count the answers."""
    answers = await asyncio.gather(*(service.client.get(path) for _ in range(times)))
    return Counter(answer.status_code for answer in answers)


@asynccontextmanager
async def full_house(settings: Settings, flavour: str, **options: Any) -> AsyncIterator[Served]:
    """Run a service whose only connection is held."""
    app = create_app(settings, pool_size=1, max_overflow=0, pool_timeout_seconds=0.3, **options)
    async with serving(app) as service:
        holder = asyncio.create_task(service.client.get(f"/hold/{flavour}"))
        await until(lambda: borrowed(manager_of(app)) == 1, "the connection is held")
        yield service
        app.state.may_go.set()
        assert (await holder).status_code == 200
        await until(lambda: taken(app) == 0, "nothing is taken any more")
        assert (await service.client.get(f"/{flavour}")).status_code == 200


@FLAVOURS
async def test_two_hundred_requests_at_once_are_all_answered(settings: Settings, flavour: str) -> None:
    """A pool of 5+10 and forty threads serve them all: nobody waits in a thread for a connection."""
    async with serving(create_app(settings, pool_timeout_seconds=20)) as service:
        assert await statuses(service, f"/{flavour}", 200) == {200: 200}
        assert taken(service.app) == 0


@FLAVOURS
async def test_whoever_waits_too_long_is_told_to_come_back(settings: Settings, flavour: str) -> None:
    """503 and Retry-After after pool_timeout_seconds, without any handler of ours."""
    async with full_house(settings, flavour) as service:
        began = time.monotonic()
        answer = await service.client.get(f"/{flavour}")
        waited_seconds = time.monotonic() - began

        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json() == {"detail": "all connections to the database are in use; try again later"}
        assert 0.3 <= waited_seconds < 15


@FLAVOURS
async def test_a_request_whose_place_is_worth_nothing_is_told_the_same(
    settings: Settings, flavour: str
) -> None:
    """Who borrows from the engine without asking can take what a request was let in for."""
    app = create_app(settings, pool_size=1, max_overflow=0, pool_timeout_seconds=0.3)
    async with serving(app) as service:
        db = manager_of(app)
        with db.engine.connect():
            async with db.async_engine.connect():
                answer = await service.client.get(f"/{flavour}")

        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert taken(app) == 0


@FLAVOURS
async def test_a_place_is_kept_until_there_is_a_connection_to_give_back(
    settings: Settings, flavour: str
) -> None:
    """A session that asks for its connection at its end has its place until then: the next one waits."""
    options = AdmissionOptions(patience_seconds=0.1)
    app = create_app(settings, admission=options, pool_size=1, max_overflow=0, pool_timeout_seconds=0.8)
    async with serving(app) as service:
        db, opened = manager_of(app), opened_of(app)
        with db.engine.connect():
            async with db.async_engine.connect():
                assert await statuses(service, f"/add/{flavour}", 2) == {503: 2}

        assert opened.admission.status.refused + opened.async_admission.status.refused == 1


async def test_a_handler_of_the_applications_own_goes_first(settings: Settings) -> None:
    """Saturated can be handled like every other error, with a message for the log."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(str(error), status_code=529)

    async with full_house(settings, "async") as service:
        service.app.middleware_stack = None
        service.app.add_exception_handler(Saturated, handle)
        answer = await service.client.get("/async")

        assert answer.status_code == 529
        assert "no connection was free within 0.3 s (places=1, in use=1, waiting=0)" in answer.text


async def test_a_websocket_is_told_to_come_back(settings: Settings) -> None:
    """Its handshake is refused with the code for it, not with a broken connection."""
    async with full_house(settings, "async") as service:
        heard = await service.talk("/socket")

        assert [(message["type"], message["code"]) for message in heard] == [("websocket.close", 1013)]


async def test_a_factory_tells_the_same(settings: Settings) -> None:
    """Who takes its connections one by one hears of it in the same words, without any handler of ours."""
    async with full_house(settings, "async") as service:
        answer = await service.client.get("/factory")
        heard = await service.talk("/factory")

        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert [message["type"] for message in heard] == ["websocket.accept", "websocket.close"]
        assert heard[-1]["code"] == 1013


async def test_the_queue_can_be_bounded(settings: Settings) -> None:
    """Those who cannot be served in time hear so at once."""
    options = AdmissionOptions(most_waiting=0, patience_seconds=30)
    async with full_house(settings, "sync", admission=options) as service:
        assert await statuses(service, "/sync", 20) == {503: 20}
        assert opened_of(service.app).admission.status.refused == 20


async def test_the_reserve_is_for_those_who_do_not_queue(settings: Settings) -> None:
    """A session factory in a thread gets a connection while requests hold all that they may."""
    app = create_app(settings, pool_size=2, max_overflow=1, pool_timeout_seconds=0.3)
    async with serving(app) as service:
        holders = [asyncio.create_task(service.client.get("/hold/sync")) for _ in range(3)]
        await until(lambda: borrowed(manager_of(app)) == 2, "two connections are held")
        row = await asyncio.to_thread(read_from_a_thread, manager_of(app))
        app.state.may_go.set()

        assert row == 7
        assert sorted([(await holder).status_code for holder in holders]) in (
            [200, 200, 200],
            [200, 200, 503],
        )


def read_from_a_thread(db: ConnectionManager) -> int:
    """Ask for a row, as a stream does."""
    with SessionFactory(db).session() as session:
        return int(session.execute(QUERY).one()[1])


async def test_requests_that_need_two_connections_do_not_wait_for_ever(settings: Settings) -> None:
    """Each holds one and waits for another: they are refused in time, and the service goes on."""
    app = create_app(settings, pool_size=3, max_overflow=0, pool_timeout_seconds=0.3)
    async with serving(app) as service:
        outcomes = await statuses(service, "/both", 10)

        assert set(outcomes) <= {200, 503}
        assert outcomes[503]
        await until(lambda: taken(app) == 0, "nothing is taken any more")
        assert await statuses(service, "/both", 1) == {200: 1}


@pytest.mark.parametrize("how", ["task", "scope"])
@FLAVOURS
async def test_requests_that_are_cancelled_leave_nothing_behind(
    settings: Settings, flavour: str, how: str
) -> None:
    """Whenever a client goes, or a server gives up on it, connection and place come back."""
    chance = random.Random(7)

    async def give_up(service: Served) -> None:
        request = service.client.get(f"/sleep/{flavour}")
        if how == "task":
            with suppress(TimeoutError):
                await asyncio.wait_for(request, chance.random() * 0.08)
        else:
            with anyio.move_on_after(chance.random() * 0.08):
                await request

    app = create_app(settings, pool_size=2, max_overflow=2, pool_timeout_seconds=5)
    async with serving(app) as service:
        for _ in range(4):
            await asyncio.gather(*(give_up(service) for _ in range(25)))
        await until(lambda: taken(app) == 0, "nothing is taken any more")
        assert await statuses(service, f"/{flavour}", 20) == {200: 20}


async def test_a_cancelled_endpoint_cannot_write_into_another_transaction(
    settings: Settings, environment: Sandbox
) -> None:
    """A thread that outlives its request finds its connection gone, not in somebody else's hands."""
    app = create_app(settings, pool_size=1, max_overflow=0)
    began, may_go_on, outcome = threading.Event(), threading.Event(), Queue[Exception | None]()

    @app.get("/late")
    def late(session: SessionDep) -> None:
        cursor = session.connection().connection.cursor()
        began.set()
        may_go_on.wait(60)
        try:
            cursor.execute("INSERT INTO fastapi_notes VALUES (1)")
            outcome.put(None)
        except psycopg2.Error as error:
            outcome.put(error)

    @app.get("/other")
    async def other(session: SessionDep) -> None:
        await asyncio.to_thread(session.execute, text("INSERT INTO fastapi_notes VALUES (2)"))
        may_go_on.set()
        await asyncio.to_thread(lambda: outcome.put(outcome.get(timeout=20)))

    with notes_table(environment) as notes:
        async with serving(app) as service:
            cancelled = asyncio.create_task(service.client.get("/late"))
            await asyncio.to_thread(began.wait, 20)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            assert (await service.client.get("/other")).status_code == 200

        assert isinstance(outcome.get_nowait(), psycopg2.InterfaceError)
        assert notes() == [2]


async def test_a_session_whose_request_is_cancelled_at_its_end_still_ends(
    settings: Settings, environment: Sandbox
) -> None:
    """What was to be committed is, what was not is not, and the only connection goes back to the pool."""
    app = create_app(settings, pool_size=1, max_overflow=0)
    with notes_table(environment) as notes:
        async with serving(app) as service:
            for key in (1, 2, 3, 4):
                cancelled = asyncio.create_task(service.client.get(f"/leave/{key}"))
                await asyncio.wait([cancelled])
                assert cancelled.cancelled()
            await until(lambda: taken(app) == 0, "nothing is taken any more")

        assert notes() == [2, 4]


async def test_a_session_that_is_ending_is_waited_for_when_the_service_stops(
    settings: Settings, environment: Sandbox
) -> None:
    """A request that was cancelled by the shutdown is committed before the manager is closed."""
    app = create_app(settings)
    with notes_table(environment) as notes:
        async with serving(app) as service:
            cancelled = asyncio.create_task(service.client.get("/leave/2"))
            await asyncio.wait([cancelled])
            db = manager_of(app)

        assert notes() == [2]
        assert borrowed(db) == 0


@pytest.mark.parametrize(("pool", "in_use"), [("queue", 0), ("none", 1)])
@FLAVOURS
async def test_a_place_goes_to_the_next_one_early_only_if_it_waits_for_the_connection(
    settings: Settings, flavour: str, pool: str, in_use: int
) -> None:
    """Without a pool a request opens a connection, so the one before it must have closed its own."""
    app = create_app(settings, pool=pool)
    seen: list[int] = []
    async with serving(app) as service:
        opened = opened_of(app)
        db = opened.manager
        engine = db.engine if flavour == "sync" else db.async_engine.sync_engine
        admission = opened.admission if flavour == "sync" else opened.async_admission
        event.listen(engine, "commit", lambda connection: seen.append(admission.status.in_use))
        assert await statuses(service, f"/{flavour}", 1) == {200: 1}
        assert taken(app) == 0

    assert seen == [in_use]


def more_than(answers: Counter[int], number: int) -> bool:
    """Whether there are more answers than that."""
    return answers.total() > number


@FLAVOURS
async def test_no_request_fails_while_passwords_rotate(
    settings: Settings, environment: Sandbox, flavour: str
) -> None:
    """Requests go on through two rotations, windows included."""
    answers: Counter[int] = Counter()
    over = asyncio.Event()

    async def ask(service: Served) -> None:
        while not over.is_set():
            answers.update(await statuses(service, f"/{flavour}", 1))

    async with serving(create_app(settings)) as service:
        asking = [asyncio.create_task(ask(service)) for _ in range(20)]
        for strategy in ("single-user", "alternating-users"):
            await asyncio.to_thread(environment.rotate_database, strategy, window_seconds=0.3)
            before = answers.total()
            await until(partial(more_than, answers, before + 100), "a hundred more answers")
        over.set()
        await asyncio.gather(*asking)

    assert set(answers) == {200}
