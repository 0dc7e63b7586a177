"""Is what was answered with 2xx stored, in whichever way an endpoint asks for its session?"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any

import pytest
import redis
from fastapi import Depends, FastAPI, HTTPException, Request, Response, Security
from fastapi.responses import StreamingResponse
from sqlalchemy import text

from ledger_db import ConfigurationError, Settings
from ledger_db.fastapi import AsyncSessionDep, SessionDep, async_session, manager_of, session
from ledger_db.sandbox import Sandbox
from tests.support.asgi import serving
from tests.support.neighbours import YIELDING_ENDPOINTS, lacks
from tests.support.notes_service import INSERT, INSERT_ORPHAN, borrowed, notes_table
from tests.support.ways import STATEMENTS, WAYS, Half, add_annotated, listed, new_app

OUTCOMES = pytest.mark.parametrize(("kind", "outcome"), [("good", (201, [1])), ("orphan", (409, []))])
SCOPES = pytest.mark.parametrize("scope", [None, "function", "request"])


@pytest.fixture
def notes(box: Sandbox) -> Iterator[Callable[[], list[int]]]:
    """A table, and a look into it from outside of the service."""
    with notes_table(box) as look:
        yield look


async def outcome_of(app: FastAPI, path: str, notes: Callable[[], list[int]]) -> tuple[int, list[int]]:
    """Return the status of a request, and what is stored afterwards."""
    async with serving(app) as service:
        answer = await service.client.get(path)
        assert borrowed(manager_of(app)) == 0
    return (answer.status_code, notes())


@OUTCOMES
@pytest.mark.parametrize("place", ["default", "annotated"])
@pytest.mark.parametrize("way", WAYS)
async def test_it_is_stored_before_the_answer_or_it_is_no_success(
    direct: Settings,
    driver: str,
    notes: Callable[[], list[int]],
    way: str,
    place: str,
    kind: str,
    outcome: Any,
) -> None:
    """A COMMIT that fails is an answer, whichever of FastAPI's words the session was asked for with."""
    app, half = new_app(direct, driver), Half(driver)
    add_annotated(app, half, WAYS[way](half))

    assert await outcome_of(app, f"/{place}/{kind}", notes) == outcome


@OUTCOMES
@pytest.mark.parametrize("where", ["route", "router", "inclusion", "app", "mounted"])
async def test_so_is_what_a_dependency_in_a_list_has_written(
    direct: Settings, driver: str, notes: Callable[[], list[int]], where: str, kind: str, outcome: Any
) -> None:
    """A dependency whose value nobody takes is committed in time too."""
    assert await outcome_of(listed(direct, driver, where, STATEMENTS[kind]), "/", notes) == outcome


@OUTCOMES
async def test_so_is_what_an_override_has_written(
    direct: Settings, driver: str, notes: Callable[[], list[int]], kind: str, outcome: Any
) -> None:
    """A dependency that a test has put in another's place may take our sessions itself."""
    app, half = new_app(direct, driver), Half(driver)

    def nobody() -> None:
        """Give nothing."""

    app.add_api_route("/", half.writer(Depends(nobody), STATEMENTS[kind]), status_code=201)
    app.dependency_overrides[nobody] = half.giver(Depends(half.session))

    assert await outcome_of(app, "/", notes) == outcome


@SCOPES
@pytest.mark.parametrize("overridden", ["another", "itself", "what takes it"])
@pytest.mark.parametrize(("last", "outcome"), [(INSERT, (201, [1, 2])), (INSERT_ORPHAN, (409, []))])
async def test_an_override_changes_nothing_about_who_ends_first(
    direct: Settings,
    driver: str,
    notes: Callable[[], list[int]],
    overridden: str,
    scope: Any,
    last: Any,
    outcome: Any,
) -> None:
    """While a test overrides anything, a unit of work below another one still ends before its session."""
    app, half = new_app(direct, driver), Half(driver)
    audit, instead = (
        half.unit_of_work(Depends(half.session), then=lambda taken: taken.execute(last, {"id": 2}))
        for _ in range(2)
    )
    outer = half.unit_of_work(Depends(audit))
    app.dependency_overrides = {
        "another": {new_app: lambda: None},
        "itself": {audit: instead},
        "what takes it": {outer: half.unit_of_work(Depends(instead))},
    }[overridden]
    # The session first: FastAPI knows it already when it comes to the audit.
    write = half.writer(Depends(half.session), INSERT)
    listed = [Depends(half.session), Depends(outer, scope=scope)]
    app.add_api_route("/", write, status_code=201, dependencies=listed)

    assert await outcome_of(app, "/", notes) == outcome


@SCOPES
@pytest.mark.parametrize(("last", "outcome"), [(INSERT, (201, [1, 2])), (INSERT_ORPHAN, (409, []))])
async def test_an_audit_that_is_written_at_the_end_is_part_of_the_transaction(
    direct: Settings, driver: str, notes: Callable[[], list[int]], scope: Any, last: Any, outcome: Any
) -> None:
    """A dependency of one's own with yield ends before the session that it takes, whatever its scope."""
    app, half = new_app(direct, driver), Half(driver)
    audit = half.unit_of_work(Depends(half.session), then=lambda taken: taken.execute(last, {"id": 2}))
    audited = [Depends(audit, scope=scope)]
    write = half.writer(Depends(half.session), INSERT)
    app.add_api_route("/", write, status_code=201, dependencies=audited)

    assert await outcome_of(app, "/", notes) == outcome


@OUTCOMES
@SCOPES
async def test_a_unit_of_work_may_commit_by_itself(
    direct: Settings, driver: str, notes: Callable[[], list[int]], scope: Any, kind: str, outcome: Any
) -> None:
    """Its COMMIT comes before the answer, over a session that nobody else commits."""
    app, half = new_app(direct, driver), Half(driver)
    unit = half.unit_of_work(Depends(half.manual_session), then=lambda taken: taken.commit())
    outer = half.unit_of_work(Depends(unit))
    app.add_api_route(
        "/", half.writer(Depends(outer, scope=scope), STATEMENTS[kind]), status_code=201, response_model=None
    )

    assert await outcome_of(app, "/", notes) == outcome


@SCOPES
async def test_a_dependency_of_ones_own_hears_what_the_endpoint_raised(
    direct: Settings, notes: Callable[[], list[int]], scope: Any
) -> None:
    """A tenant that is set before the endpoint is set for it, and what failed is undone for all of them."""
    heard: list[str] = []

    async def tenant(taken: AsyncSessionDep) -> Any:
        await taken.execute(text("SELECT set_config('notes.tenant', 'seven', true)"))
        try:
            yield taken
        except HTTPException as error:
            heard.append(f"{error.status_code} {taken.in_transaction()}")
            raise

    app = new_app(direct, "asyncpg")

    @app.get("/")
    async def endpoint(taken: Annotated[Any, Depends(tenant, scope=scope)]) -> None:
        heard.append((await taken.execute(text("SELECT current_setting('notes.tenant')"))).scalar_one())
        await taken.execute(INSERT, {"id": 1})
        raise HTTPException(418)

    assert await outcome_of(app, "/", notes) == (418, [])
    assert heard == ["seven", "418 True"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("40001", (500, "partly-done")),
        ("55P03", (500, "partly-done")),
        ("23505", (409, "duplicate")),
        ("Redis", (500, "partly-done")),
    ],
)
async def test_what_fails_after_a_commit_of_the_endpoints_own_is_not_called_undone(
    direct: Settings, driver: str, notes: Callable[[], list[int]], code: str, told: Any
) -> None:
    """A client, or a proxy, that sent it again would have the first half done twice."""
    app, half = new_app(direct, driver), Half(driver)
    fail = text(f"DO 'BEGIN RAISE SQLSTATE ''{code}''; END'")

    def twice(taken: Any) -> None:
        taken.execute(INSERT, {"id": 1})
        taken.commit()
        if code == "Redis":
            raise redis.ConnectionError
        taken.execute(fail)

    def endpoint(taken: Annotated[Any, Depends(half.session)]) -> None:
        twice(taken)

    async def endpoint_on_loop(taken: Annotated[Any, Depends(half.session)]) -> None:
        await taken.run_sync(twice)

    app.add_api_route("/", endpoint_on_loop if half.on_loop else endpoint)
    async with serving(app) as service:
        answer = await service.client.get("/")

    assert (answer.status_code, answer.json()["type"].rpartition(":")[2], notes()) == (*told, [1])


@pytest.mark.parametrize("later", range(6))
@pytest.mark.parametrize("loop_driver", ["asyncpg", "psycopg-async"])
async def test_a_task_that_outlives_its_endpoint_keeps_no_connection(
    direct: Settings, notes: Callable[[], list[int]], loop_driver: str, later: int
) -> None:
    """Nobody waits for it, so nobody says what became of it; but the next request has all connections."""
    app = new_app(direct, loop_driver)
    forgotten: list[asyncio.Task[Any]] = []

    @app.post("/")
    async def endpoint(taken: AsyncSessionDep) -> None:
        forgotten.append(asyncio.create_task(taken.execute(INSERT, {"id": 1})))
        for _ in range(later):
            await asyncio.sleep(0)

    async with serving(app) as service:
        await service.client.post("/")
        await asyncio.wait(forgotten)
        forgotten[0].exception()
        assert borrowed(manager_of(app)) == 0
    notes()


@SCOPES
async def test_an_error_that_a_dependency_swallows_is_answered_all_the_same(
    direct: Settings, notes: Callable[[], list[int]], scope: Any
) -> None:
    """What an endpoint raises rolls back, whoever catches it on its way."""
    app = new_app(direct, "asyncpg")

    async def careless(taken: AsyncSessionDep) -> Any:
        with suppress(HTTPException):
            yield taken

    @app.get("/")
    async def endpoint(taken: Annotated[Any, Depends(careless, scope=scope)]) -> None:
        await taken.execute(INSERT, {"id": 1})
        raise HTTPException(418)

    assert await outcome_of(app, "/", notes) == (418, [])


async def test_an_endpoint_that_runs_after_its_response_began_gets_no_session(
    direct: Settings, driver: str, notes: Callable[[], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    """One with yield is refused and told what to take, before a client has read of success."""
    app, half = new_app(direct, driver), Half(driver)
    stream = half.unit_of_work(Depends(half.session))
    app.add_api_route("/", stream, status_code=201, response_class=StreamingResponse)

    assert await outcome_of(app, "/", notes) == (500, [])
    assert "has a yield" in caplog.text
    assert "take SessionFactoryDep or AsyncSessionFactoryDep" in caplog.text


@pytest.mark.skipif(lacks(YIELDING_ENDPOINTS), reason=YIELDING_ENDPOINTS[-1])
async def test_an_endpoint_with_yield_may_depend_on_who_takes_a_session(
    direct: Settings, driver: str, notes: Callable[[], list[int]]
) -> None:
    """What has ended before the response, such as who is asking, has done its work."""
    app, half = new_app(direct, driver), Half(driver)

    async def stream(_: Annotated[Any, Depends(half.writer(Depends(half.session), INSERT))]) -> Any:
        yield b"1"

    app.add_api_route("/", stream, status_code=201, response_class=StreamingResponse)

    assert await outcome_of(app, "/", notes) == (201, [1])


@pytest.mark.parametrize("overridden", [{}, {new_app: None}])
async def test_what_takes_no_session_lives_as_long_as_its_response(
    direct: Settings, driver: str, notes: Callable[[], list[int]], overridden: Any
) -> None:
    """A file that a response reads from is closed when it has been sent, beside whatever session."""
    app, half = new_app(direct, driver), Half(driver)
    app.dependency_overrides = overridden
    open_files = {"one"}

    async def file() -> Any:
        yield open_files
        open_files.clear()

    async def stream(read: Annotated[set[str], Depends(file)]) -> StreamingResponse:
        async def lines() -> Any:
            yield ",".join(read)

        return StreamingResponse(lines(), status_code=201)

    listed = [Depends(half.writer(Depends(half.session), INSERT))]
    app.add_api_route("/", stream, dependencies=listed)

    async with serving(app) as service:
        assert (await service.client.get("/")).text == "one"
    assert (open_files, notes()) == (set(), [1])


async def test_one_request_has_one_session_of_a_kind(direct: Settings) -> None:
    """However many words for it: an endpoint and what it depends on share their transaction."""
    app = new_app(direct, "psycopg2")

    @app.get("/")
    def same(
        one: SessionDep,
        bare: Annotated[Any, Depends(session)],
        scoped: Annotated[Any, Depends(session, scope="function")],
        late: Annotated[Any, Depends(session, scope="request")],
        secured: Annotated[Any, Security(session, scopes=["notes"])],
    ) -> list[bool]:
        return [one is other for other in (bare, scoped, late, secured)]

    @app.get("/loop")
    async def same_on_loop(
        one: AsyncSessionDep, scoped: Annotated[Any, Depends(async_session, scope="function")]
    ) -> list[bool]:
        return [one is scoped]

    async with serving(app) as service:
        for _ in range(2):
            assert (await service.client.get("/")).json() == [True] * 4
            assert (await service.client.get("/loop")).json() == [True]


async def test_a_session_of_its_own_is_one(direct: Settings, notes: Callable[[], list[int]]) -> None:
    """use_cache=False is another transaction, as FastAPI promises: undone or stored by itself."""
    app = new_app(direct, "psycopg2")

    @app.get("/")
    def apart(one: SessionDep, other: Annotated[Any, Depends(session, use_cache=False)]) -> bool:
        one.execute(INSERT, {"id": 1})
        other.execute(INSERT, {"id": 2})
        other.rollback()
        return one is other

    assert await outcome_of(app, "/", notes) == (200, [1])


async def test_a_middleware_is_told_what_to_take(direct: Settings) -> None:
    """A session for a request is for endpoints and their dependencies: elsewhere nobody would end it."""
    app = new_app(direct, "psycopg2")

    @app.middleware("http")
    async def by_hand(request: Request, _: Any) -> Response:
        with pytest.raises(ConfigurationError, match=r"manager_of\(request\)\.begin\(\)"):
            await session(request)
        return Response(status_code=418)

    async with serving(app) as service:
        assert (await service.client.get("/")).status_code == 418
