"""Is nothing of a test left, however the application that writes is reached?"""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Host, Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ledger_db import ConfigurationError, ConnectionManager, Settings
from ledger_db.fastapi import (
    ManagerDep,
    SessionDep,
    SessionFactoryDep,
    lifespan,
    manager_of,
    session_dependency,
)
from ledger_db.sandbox import Sandbox
from ledger_db.testing import IsolatedManager, isolated, override_manager
from tests.support.starlette_client import TestClient

INSERT = text("INSERT INTO nested_rows VALUES (1)")
COUNT = text("SELECT count(*) FROM nested_rows")


@pytest.fixture
def db(environment: Sandbox) -> Iterator[ConnectionManager]:
    """An open manager whose commits are real, and a table."""
    with ConnectionManager(Settings(profile="test", redis_secret_id=None)) as manager:
        with manager.begin() as session:
            session.execute(text("CREATE TABLE nested_rows (id int)"))
        yield manager
        with manager.begin() as session:
            session.execute(text("DROP TABLE nested_rows"))


@pytest.fixture
def one(db: ConnectionManager) -> Iterator[IsolatedManager]:
    """The manager of a test."""
    with isolated(db) as manager:
        yield manager


def left_behind(db: ConnectionManager) -> int:
    """Count what is really there."""
    with db.session() as session:
        return int(session.execute(COUNT).scalar_one())


def new_part(**options: Any) -> FastAPI:
    """Make an application that writes, by each kind of dependency."""
    part = FastAPI(**options)

    @part.post("/w")
    def write(session: SessionDep) -> None:
        session.execute(INSERT)

    @part.post("/w/manager")
    async def write_by_manager(manager: ManagerDep) -> None:
        with manager.begin() as session:
            session.execute(INSERT)

    @part.post("/w/factory")
    def write_by_factory(sessions: SessionFactoryDep) -> None:
        with sessions.begin() as session:
            session.execute(INSERT)

    @part.websocket("/w/socket")
    async def write_by_websocket(socket: WebSocket, sessions: SessionFactoryDep) -> None:
        await socket.accept()
        with sessions.begin() as session:
            session.execute(INSERT)
        await socket.close()

    return part


async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Do what a middleware of Starlette's own kind does when it does nothing."""
    return await call_next(request)


def hidden(part: ASGIApp) -> ASGIApp:
    """Wrap *part* into a function, which tells nobody what is in it."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        # As a round through WSGI makes it: all that the first application has noted is gone.
        known = {"type", "path", "root_path", "method", "headers", "query_string", "http_version"}
        await part({name: value for name, value in scope.items() if name in known}, receive, send)

    return call


class Dispatching:
    """A middleware that gives part of the requests to another application."""

    def __init__(self, app: ASGIApp, part: ASGIApp) -> None:
        self.app, self.part = app, part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Go past the routes."""
        is_request = scope["type"] != "lifespan"
        await (self.part if is_request else self.app)(scope, receive, send)


class Hub(FastAPI):
    """An application that looks at a request before FastAPI does."""

    part: FastAPI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Go past everything."""
        is_request = scope["type"] != "lifespan"
        await (self.part if is_request else super().__call__)(scope, receive, send)


Way = Callable[[], tuple[FastAPI, ASGIApp, str]]
"""Returns the application to override, what a client talks to, and the path to where it writes."""


def below(make_route: Callable[[ASGIApp], Any], path: str = "/sub/w") -> Way:
    """Have the part that writes behind one route of the application."""

    def way() -> tuple[FastAPI, ASGIApp, str]:
        app = FastAPI(lifespan=lifespan())
        app.router.routes.append(make_route(new_part()))
        return app, app, path

    return way


def made_for_the_request() -> tuple[FastAPI, ASGIApp, str]:
    """Make the part when it is asked for."""

    async def factory(scope: Scope, receive: Receive, send: Send) -> None:
        await new_part()(scope, receive, send)

    app = FastAPI(lifespan=lifespan())
    app.mount("/sub", factory)
    return app, app, "/sub/w"


def in_a_thread_of_its_own() -> tuple[FastAPI, ASGIApp, str]:
    """Ask the part as a client of it does, which runs it on an event loop in another thread."""
    part = new_part()
    app = FastAPI(lifespan=lifespan())

    @app.post("/gate/{path:path}")
    def gate(path: str) -> None:
        assert TestClient(part).post(f"/{path}").is_success

    return app, app, "/gate/w"


def past_the_routes() -> tuple[FastAPI, ASGIApp, str]:
    """Let a middleware of the application give the request away."""
    app = FastAPI(lifespan=lifespan())
    app.add_middleware(Dispatching, part=new_part())
    return app, app, "/w"


def past_everything() -> tuple[FastAPI, ASGIApp, str]:
    """Let the application itself give the request away."""
    hub = Hub(lifespan=lifespan())
    hub.part = new_part()
    return hub, hub, "/w"


def wrapped() -> tuple[FastAPI, ASGIApp, str]:
    """Wrap the application that is overridden."""
    app = new_part(lifespan=lifespan())
    return app, GZipMiddleware(CORSMiddleware(app)), "/w"


def inside_of_another() -> tuple[FastAPI, ASGIApp, str]:
    """Mount the application that is overridden, and have the part below it."""
    app = FastAPI()
    app.mount("/deep", GZipMiddleware(new_part()))
    outer = FastAPI(lifespan=lifespan())
    outer.mount("/sub", hidden(app))
    return app, outer, "/sub/deep/w"


def started_by_hand() -> tuple[FastAPI, ASGIApp, str]:
    """Start the part inside of the application's own lifespan."""
    part = new_part(lifespan=lifespan())

    @asynccontextmanager
    async def then(app: FastAPI) -> AsyncIterator[None]:
        async with part.router.lifespan_context(part):
            yield

    app = FastAPI(lifespan=lifespan(then=then))
    app.mount("/sub", GZipMiddleware(part))
    return app, app, "/sub/w"


def mounted_twice() -> tuple[FastAPI, ASGIApp, str]:
    """Mount one part in two applications."""
    part = new_part()
    first, second = FastAPI(lifespan=lifespan()), FastAPI(lifespan=lifespan())
    first.mount("/sub", part)
    second.mount("/other", GZipMiddleware(part))
    return second, second, "/other/w"


WAYS: dict[str, Way] = {
    "mounted": below(lambda part: Mount("/sub", part)),
    "behind GZip": below(lambda part: Mount("/sub", GZipMiddleware(part))),
    "behind CORS": below(lambda part: Mount("/sub", CORSMiddleware(part))),
    "behind BaseHTTPMiddleware": below(lambda part: Mount("/sub", BaseHTTPMiddleware(part, pass_on))),
    "behind a function": below(lambda part: Mount("/sub", hidden(part))),
    "a mount with a middleware": below(
        lambda part: Mount("/sub", part, middleware=[Middleware(GZipMiddleware)])
    ),
    "a mount in a mount": below(lambda part: Mount("/v1", routes=[Mount("/sub", part)]), "/v1/sub/w"),
    "a router in a mount": below(lambda part: Mount("/v1", Router([Mount("/sub", part)])), "/v1/sub/w"),
    "two applications deep": below(
        lambda part: Mount("/v1", FastAPI(routes=[Mount("/sub", GZipMiddleware(part))])), "/v1/sub/w"
    ),
    "by its host": below(lambda part: Host("testserver", part), "/w"),
    "by its host, behind a middleware": below(lambda part: Host("testserver", GZipMiddleware(part)), "/w"),
    "made for the request": made_for_the_request,
    "in a thread of its own": in_a_thread_of_its_own,
    "past the routes": past_the_routes,
    "past everything": past_everything,
    "wrapped": wrapped,
    "inside of another": inside_of_another,
    "started by hand": started_by_hand,
    "mounted twice": mounted_twice,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("started", [True, False], ids=["started", "not started"])
def test_nothing_is_committed_however_an_application_is_nested(
    db: ConnectionManager, one: IsolatedManager, way: Way, *, started: bool
) -> None:
    """Each kind of dependency uses the test's manager, and the test sees its row, whatever is in between."""
    app, asked, path = way()
    with override_manager(app, one):
        client = TestClient(asked)
        with client if started else nullcontext():
            answers = [client.post(path + kind) for kind in ("", "/manager", "/factory")]
        assert [answer.status_code for answer in answers] == [200] * 3
        with one.session() as session:
            assert session.execute(COUNT).scalar_one() == 3

    assert left_behind(db) == 0


@pytest.mark.parametrize("name", ["mounted", "a router in a mount", "behind a function"])
def test_a_websocket_obeys_too(db: ConnectionManager, one: IsolatedManager, name: str) -> None:
    """What is written while a socket is open is undone as what a request writes."""
    app, asked, path = WAYS[name]()
    with override_manager(app, one), TestClient(asked) as client:
        with client.websocket_connect(f"{path}/socket"):
            pass
        with one.session() as session:
            assert session.execute(COUNT).scalar_one() == 1

    assert left_behind(db) == 0


def test_an_application_that_was_not_named_is_refused(db: ConnectionManager, one: IsolatedManager) -> None:
    """A request past the application that a test has overridden hears that it would really write."""
    app, another = new_part(), new_part(lifespan=lifespan(db))
    with override_manager(app, one), TestClient(another) as client:
        with pytest.raises(ConfigurationError, match="give override_manager"):
            client.post("/w")
        with pytest.raises(ConfigurationError, match="give override_manager"):
            manager_of(another)
        with override_manager(another, db):
            assert manager_of(another) is db

    assert left_behind(db) == 0


def test_the_one_that_wraps_an_overridden_application_is_refused_by_itself(
    db: ConnectionManager, one: IsolatedManager
) -> None:
    """Beside the part that is overridden, its outer application cannot write for real."""
    part, outer = new_part(), new_part(lifespan=lifespan(db))
    outer.mount("/sub", part)
    with override_manager(part, one), TestClient(outer) as client:
        assert client.post("/sub/w").is_success
        with pytest.raises(ConfigurationError, match="give override_manager"):
            client.post("/w")

    assert left_behind(db) == 0


def test_each_of_two_services_has_its_own(db: ConnectionManager, one: IsolatedManager) -> None:
    """Two applications that are tested together keep their managers, also when one calls the other."""
    inner, outer = FastAPI(), FastAPI()
    seen: list[ConnectionManager] = []

    @inner.get("/")
    def note(manager: ManagerDep) -> None:
        seen.append(manager)

    @outer.get("/")
    def note_and_ask(manager: ManagerDep) -> None:
        seen.append(manager)
        TestClient(inner).get("/")

    with isolated(db) as another, override_manager(inner, another), override_manager(outer, one):
        TestClient(inner).get("/")
        assert seen == [another]
        # What began later goes before: whoever overrides the outer one last means all of it.
        TestClient(outer).get("/")
        assert seen == [another, one, one]


def test_a_real_manager_in_the_place_of_another_refuses_nothing(
    db: ConnectionManager, one: IsolatedManager
) -> None:
    """A test that means to commit may ask whatever application it likes."""
    app, another = FastAPI(), new_part(lifespan=lifespan(db))
    with override_manager(app, db), TestClient(another) as client:
        assert client.post("/w").is_success

    assert left_behind(db) == 1


def test_a_name_that_nobody_overrides_stays(db: ConnectionManager, one: IsolatedManager) -> None:
    """Of several managers the one that is named is the test's, below a middleware too."""
    part = FastAPI()

    @part.get("/")
    def ask(archive: Annotated[Session, session_dependency("archive")], session: SessionDep) -> list[bool]:
        return [each.get_bind().engine is one.engine for each in (archive, session)]

    app = FastAPI(lifespan=lifespan(db, archive=db))
    app.mount("/sub", GZipMiddleware(part))
    with override_manager(app, one, name="archive"), TestClient(app) as client:
        assert client.get("/sub").json() == [True, False]


def test_what_a_lifespan_does_obeys(db: ConnectionManager, one: IsolatedManager) -> None:
    """Rows that an application makes when it starts are undone too, and those of a part below it."""
    part = FastAPI()

    @asynccontextmanager
    async def then(app: FastAPI) -> AsyncIterator[None]:
        for each in (app, part):
            with manager_of(each).begin() as session:
                session.execute(INSERT)
        yield

    app = FastAPI(lifespan=lifespan(db, then=then))
    with override_manager(app, one), TestClient(app), one.session() as session:
        assert session.execute(COUNT).scalar_one() == 2

    assert left_behind(db) == 0


def test_what_goes_on_after_a_test_cannot_write(db: ConnectionManager, one: IsolatedManager) -> None:
    """A thread of a request that outlives the test's block gets neither its manager nor a real one."""
    go_on, ended, seen = threading.Event(), threading.Event(), list[object]()
    app = FastAPI()

    @app.post("/")
    def ask(manager: ManagerDep) -> None:
        def late() -> None:
            go_on.wait(30)
            try:
                seen.append(manager.session())
            except ConfigurationError as error:
                seen.append(str(error))
            ended.set()

        threading.Thread(target=late, daemon=True).start()

    with override_manager(app, one):
        TestClient(app).post("/")
    one.undo()
    go_on.set()
    ended.wait(30)

    assert "is over" in str(seen[0])


def test_what_is_wrapped_is_not_taken_for_the_application(one: IsolatedManager) -> None:
    """A middleware has no place to find a manager in: the test hears what to give instead."""
    with (
        pytest.raises(ConfigurationError, match="GZipMiddleware; give it the FastAPI application itself"),
        override_manager(GZipMiddleware(FastAPI()), one),  # type: ignore[arg-type] # on purpose
    ):
        pass


def test_the_application_is_the_same_afterwards(one: IsolatedManager) -> None:
    """Nothing of a test stays on an application of some other class either."""
    hub = Hub()
    with override_manager(hub, one), override_manager(hub, one):
        assert isinstance(hub, Hub)

    assert type(hub) is Hub
