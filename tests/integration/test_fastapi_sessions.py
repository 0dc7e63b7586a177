"""Is an injected session committed, rolled back and closed when an endpoint expects it?"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Annotated

import pytest
from fastapi import FastAPI, WebSocket
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session

from ledger_db import Settings
from ledger_db.fastapi import (
    AsyncSessionDep,
    ReadOnlySessionDep,
    SessionDep,
    async_session,
    install_error_handlers,
    lifespan,
    manager_of,
    session,
    session_dependency,
)
from ledger_db.sandbox import Sandbox
from tests.support.asgi import Message, serving
from tests.support.notes_service import INSERT, borrowed, create_service, notes_table


@pytest.fixture
def notes(environment: Sandbox) -> Iterator[Callable[[], list[int]]]:
    """A table, and a look into it from outside of the service."""
    with notes_table(environment) as look:
        yield look


@pytest.fixture
def app(driver: str, settings: Settings) -> FastAPI:
    """Make the service with one of the drivers."""
    return create_service(settings, driver)


async def test_a_row_is_committed_before_the_first_byte_of_the_answer(
    app: FastAPI, notes: Callable[[], list[int]]
) -> None:
    """A client that has an answer can rely on it, whoever it asks next."""
    seen: dict[str, list[int]] = {}

    async def on_send(message: Message) -> None:
        seen.setdefault(message["type"], notes())

    async with serving(app) as service:
        await service.get("/return/1", on_send)

    assert seen["http.response.start"] == [1]


async def test_what_was_only_added_is_committed_too(app: FastAPI, notes: Callable[[], list[int]]) -> None:
    """An object that nobody flushed is written by the commit."""
    async with serving(app) as service:
        answer = await service.client.get("/add/1")

    assert (answer.status_code, notes()) == (200, [1])


async def test_many_that_ask_for_a_connection_only_at_their_end_all_get_one(
    app: FastAPI, notes: Callable[[], list[int]]
) -> None:
    """The commit of an object that was only added needs a connection, and has kept its place until then."""
    async with serving(app) as service:
        answers = await asyncio.gather(*(service.client.get(f"/add/{key}") for key in range(60)))

    assert {answer.status_code for answer in answers} == {200}
    assert notes() == list(range(60))


async def test_a_commit_that_fails_is_not_a_success(app: FastAPI, notes: Callable[[], list[int]]) -> None:
    """A constraint that is checked at COMMIT makes an error of the request, and nothing is stored."""
    install_error_handlers(app)
    async with serving(app) as service:
        answer = await service.client.get("/orphan/1")
        again = await service.client.get("/return/2")

        assert borrowed(manager_of(app)) == 0
    assert answer.status_code == 409
    assert again.status_code == 200
    assert notes() == [2]


async def test_what_an_endpoint_raises_undoes_what_it_did(
    app: FastAPI, notes: Callable[[], list[int]]
) -> None:
    """An HTTPException, a bug, and an answer of the wrong shape all roll back."""
    async with serving(app) as service:
        answers = [await service.client.get(path) for path in ("/raise/1", "/raise/2", "/wrong/3")]

        assert borrowed(manager_of(app)) == 0
    assert [answer.status_code for answer in answers] == [409, 500, 500]
    assert notes() == []


async def test_what_an_endpoint_returns_is_committed_unless_it_says_no(
    app: FastAPI, notes: Callable[[], list[int]]
) -> None:
    """The status of a returned answer does not matter; mark_rollback does."""
    async with serving(app) as service:
        await service.client.get("/refuse/1?mark=false")
        await service.client.get("/refuse/2?mark=true")

    assert notes() == [1]


async def test_a_manual_session_is_the_endpoints_own_to_commit(
    app: FastAPI, notes: Callable[[], list[int]]
) -> None:
    """Nothing is kept but what the endpoint has committed itself."""
    async with serving(app) as service:
        await service.client.get("/manual/1?commit=false")
        await service.client.get("/manual/2?commit=true")

        assert borrowed(manager_of(app)) == 0
    assert notes() == [2]


async def test_the_kinds_of_sessions_are_what_they_are_called(
    app: FastAPI, notes: Callable[[], list[int]]
) -> None:
    """Read-only, serializable, and of one's own making, as the server sees it."""
    async with serving(app) as service:
        refused = await service.client.get("/read-only/1")
        serializable = await service.client.get("/serializable")
        built = await service.client.get("/built")

    assert refused.status_code == 500
    assert notes() == []
    assert serializable.json() == ["off", "serializable", "0"]
    assert built.json() == ["on", "read committed", "1500ms"]


async def test_a_session_that_was_not_used_costs_no_connection(app: FastAPI) -> None:
    """Asking for a session is not asking for a connection."""
    async with serving(app) as service:
        pools = [server.pools for server in manager_of(app).health().servers]
        answer = await service.client.get("/unused")

        opened = [pool for server in manager_of(app).health().servers for pool in server.pools]
        assert answer.status_code == 200
        assert sum(pool.idle + pool.checked_out for pool in opened) == sum(
            pool.idle + pool.checked_out for each in pools for pool in each
        )


async def test_a_session_ends_with_its_request(app: FastAPI) -> None:
    """A background task that goes on with the session hears of it, and no connection is lost."""
    async with serving(app) as service:
        ended: list[Message] = []

        async def on_send(message: Message) -> None:
            ended.append(message)

        with pytest.raises(InvalidRequestError, match="permanently closed"):
            await service.get("/background", on_send)
        assert ended[0]["status"] == 200
        assert borrowed(manager_of(app)) == 0


async def test_a_test_puts_its_own_session_in_place(settings: Settings) -> None:
    """The functions are what dependency_overrides goes by, also that of a session of one's own making."""
    app = FastAPI(lifespan=lifespan(settings))
    slow = session_dependency(statement_timeout_seconds=30)

    @app.get("/")
    def kinds(
        one: SessionDep,
        other: AsyncSessionDep,
        third: Annotated[Session, session_dependency(statement_timeout_seconds=30)],
    ) -> list[str]:
        return [str(one), str(other), str(third)]

    app.dependency_overrides[session] = lambda: "a"
    app.dependency_overrides[async_session] = lambda: "b"
    assert slow.dependency is not None
    app.dependency_overrides[slow.dependency] = lambda: "c"
    async with serving(app) as service:
        assert (await service.client.get("/")).json() == ["a", "b", "c"]


async def test_two_parameters_of_a_kind_are_one_session(settings: Settings) -> None:
    """What an endpoint and its dependencies take is the same transaction."""
    app = FastAPI(lifespan=lifespan(settings))

    @app.get("/")
    def same(one: SessionDep, other: SessionDep, third: ReadOnlySessionDep) -> list[bool]:
        return [one is other, one is third]

    async with serving(app) as service:
        assert (await service.client.get("/")).json() == [True, False]


async def test_websockets_have_sessions_too(settings: Settings, notes: Callable[[], list[int]]) -> None:
    """A session of a websocket is committed when its endpoint returns."""
    app = FastAPI(lifespan=lifespan(settings))

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, one: AsyncSessionDep, other: SessionDep) -> None:
        await websocket.accept()
        await one.execute(INSERT, {"id": int(await websocket.receive_text())})
        assert notes() == []
        await websocket.close()

    async with serving(app) as service:
        heard = await service.talk("/socket", ["7"])

        assert [message["type"] for message in heard] == ["websocket.accept", "websocket.close"]
        assert notes() == [7]
        assert borrowed(manager_of(app)) == 0
