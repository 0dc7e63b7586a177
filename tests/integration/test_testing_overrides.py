"""Do the requests of a test use the test's manager, and only those?"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import text

from ledger_db import ConfigurationError, ConnectionManager, Settings
from ledger_db.fastapi import (
    AsyncSessionDep,
    AsyncSessionFactoryDep,
    ManagerDep,
    ManualSessionDep,
    ReadOnlySessionDep,
    SessionDep,
    SessionFactoryDep,
    lifespan,
    manager_of,
)
from ledger_db.sandbox import Sandbox
from ledger_db.testing import IsolatedManager, async_isolated, override_manager


@pytest.fixture
def db(environment: Sandbox) -> Iterator[ConnectionManager]:
    """An open manager, as the plugin makes it."""
    with ConnectionManager(Settings(profile="test")) as manager:
        yield manager


@pytest.fixture
async def one(db: ConnectionManager) -> AsyncIterator[IsolatedManager]:
    """The manager of a test."""
    async with async_isolated(db) as manager:
        yield manager


@pytest.fixture
def app() -> FastAPI:
    """A service that tells which manager it uses, by its backends; one of its parts is mounted."""
    service, part = FastAPI(lifespan=lifespan()), FastAPI()
    service.mount("/part", part)

    @service.get("/manager")
    @part.get("/manager")
    async def which(manager: ManagerDep) -> int:
        return id(manager)

    @service.get("/kinds")
    def kinds(session: SessionDep, manual: ManualSessionDep, read_only: ReadOnlySessionDep) -> list[int]:
        return [id(each.get_bind().engine.pool) for each in (session, manual, read_only)]

    @service.get("/factory")
    def factory(sessions: SessionFactoryDep) -> int:
        with sessions.begin() as session:
            return id(session.get_bind())

    @service.get("/async-kinds")
    async def async_kinds(session: AsyncSessionDep, sessions: AsyncSessionFactoryDep) -> list[int]:
        async with sessions.begin() as another:
            return [id(each.get_bind()) for each in (session, another)]

    @service.post("/rows/{name}")
    def write(name: str, session: SessionDep) -> None:
        session.execute(text("INSERT INTO override_rows VALUES (:name)"), {"name": name})
        if name == "wrong":
            raise HTTPException(400)

    return service


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Talk to *app* without a network, and without its lifespan."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def manager_in_use(app: FastAPI, path: str = "/manager") -> int:
    """Ask *app* which manager it uses."""
    async with client_of(app) as client:
        return int((await client.get(path)).json())


async def test_every_dependency_obeys(app: FastAPI, one: IsolatedManager) -> None:
    """Whichever session an endpoint takes, it is one of the test's, in mounted applications too."""
    with override_manager(app, one):
        async with client_of(app) as client:
            assert (await client.get("/kinds")).json() == [id(one.engine.pool)] * 3
            assert (await client.get("/factory")).json() == id(one.engine)
            assert (await client.get("/async-kinds")).json() == [id(one.async_engine.sync_engine)] * 2
        assert await manager_in_use(app) == id(one)
        assert await manager_in_use(app, "/part/manager") == id(one)


async def test_a_request_that_fails_takes_back_its_own_rows_only(app: FastAPI, one: IsolatedManager) -> None:
    """Requests and the test have a transaction each, as in production, and all of it is undone."""
    names = text("SELECT name FROM override_rows ORDER BY name")
    with override_manager(app, one), one.session() as session:
        session.execute(text("CREATE TABLE override_rows (name text)"))
        session.execute(text("INSERT INTO override_rows VALUES ('mine')"))
        session.commit()
        async with client_of(app) as client:
            statuses = [(await client.post(f"/rows/{name}")).status_code for name in ("wrong", "right")]

        assert statuses == [400, 200]
        assert session.execute(names).scalars().all() == ["mine", "right"]


async def test_it_does_not_matter_when_the_service_starts(app: FastAPI, one: IsolatedManager) -> None:
    """The lifespan may have run before, may run inside the block, or never."""
    with override_manager(app, one):
        assert await manager_in_use(app) == id(one)
        async with app.router.lifespan_context(app):
            assert await manager_in_use(app) == id(one)
        assert await manager_in_use(app) == id(one)
    async with app.router.lifespan_context(app):
        with override_manager(app, one):
            assert await manager_in_use(app) == id(one)


async def test_everything_is_as_before_afterwards(app: FastAPI, one: IsolatedManager) -> None:
    """A test does not change the application for the next one, even if it fails."""
    with pytest.raises(ZeroDivisionError), override_manager(app, one):
        raise ZeroDivisionError
    with pytest.raises(ConfigurationError, match="no lifespan"):
        await manager_in_use(app)
    async with app.router.lifespan_context(app):
        own = manager_of(app)
        with override_manager(app, one), override_manager(app, own):
            assert await manager_in_use(app) == id(own)

        assert own is not one
        assert await manager_in_use(app) == id(own)


async def test_one_of_several_managers_is_replaced(db: ConnectionManager, one: IsolatedManager) -> None:
    """The others stay what they are."""
    app = FastAPI(lifespan=lifespan(db, archive=db))
    async with app.router.lifespan_context(app):
        with override_manager(app, one, name="archive"):
            assert manager_of(app, "archive") is one
            assert manager_of(app) is db
