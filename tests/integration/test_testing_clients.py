"""Does each fixture work with each client, or say by name why it does not, and is nothing left either way?"""

import re
import subprocess
from pathlib import Path

import pytest

from ledger_db.sandbox import Sandbox
from tests.support.left_over import nothing_left
from tests.support.neighbours import STRICT
from tests.support.pytest_runs import run_pytest

# A server of the project's own, as far as the fixtures are concerned: it is in the environment.
CONFTEST = """
import pytest
from sqlalchemy import text
from ledger_db import Settings

@pytest.fixture(scope="session")
def ledger_db_settings():
    return Settings(profile="test", database_driver="{sync}", async_database_driver="{driver}")

@pytest.fixture(scope="session")
def ledger_db_schema(ledger_db_manager):
    with ledger_db_manager.begin() as session:
        session.execute(text("CREATE TABLE client_rows (id int)"))
    yield
    with ledger_db_manager.begin() as session:
        left = session.execute(text("SELECT count(*) FROM client_rows")).scalar_one()
        session.execute(text("DROP TABLE client_rows"))
    assert left == 0, "a test has really committed"

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""
SERVICE = """
from fastapi import FastAPI
from sqlalchemy import text
from ledger_db.fastapi import (
    AsyncRedisDep, AsyncSessionDep, AsyncSessionFactoryDep, RedisDep, SessionDep, async_session, lifespan
)

INSERT = text("INSERT INTO client_rows VALUES (1)")
COUNT = text("SELECT count(*) FROM client_rows")
app = FastAPI(lifespan=lifespan())

@app.post("/def")
def write(session: SessionDep) -> int:
    session.execute(INSERT)
    return session.execute(COUNT).scalar_one()

@app.post("/async")
async def async_write(session: AsyncSessionDep) -> int:
    await session.execute(INSERT)
    return (await session.execute(COUNT)).scalar_one()

@app.post("/factory")
async def write_by_factory(sessions: AsyncSessionFactoryDep) -> int:
    async with sessions.begin() as session:
        await session.execute(INSERT)
    return 1

@app.get("/redis")
def ping(redis: RedisDep) -> bool:
    return redis.ping()

@app.get("/async-redis")
async def async_ping(redis: AsyncRedisDep) -> bool:
    return await redis.ping()
"""
# Starlette regrets at import that it uses httpx.
PRELUDE = """
import asyncio
import warnings
import httpx
import pytest
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient
from sqlalchemy import text
from ledger_db import ConfigurationError
from ledger_db.testing import override_manager
from service import COUNT, INSERT, app, async_session

ANOTHER_LOOP = "another.*event loop|event loop.*another"

def refused():
    return pytest.raises(ConfigurationError, match=f"({ANOTHER_LOOP}).*httpx.AsyncClient")

def asgi(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")

async def by_hand(path):
    sent = []
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode(),
        "root_path": "", "scheme": "http", "query_string": b"", "headers": [], "client": None,
        "server": ("test", 80), "asgi": {"version": "3.0"},
    }
    await asyncio.create_task(app(scope, receive, send))
    return sent[0]["status"]
"""
SYNCHRONOUS = """
@pytest.fixture
def client(ledger_db_isolated):
    with override_manager(app, ledger_db_isolated):
        yield TestClient(app)

@pytest.fixture(scope="module")
def started_client(ledger_db_schema):
    with TestClient(app) as client:
        yield client

def test_client_and_def(client, ledger_db_session):
    assert client.post("/def").json() == 1
    assert client.post("/def").json() == 2
    assert ledger_db_session.execute(COUNT).scalar_one() == 2

def test_client_and_async_def_without_the_fixture(client):
    with pytest.raises(ConfigurationError, match="ledger_db_async_isolated"):
        client.post("/async")

def test_client_and_async_def(client, ledger_db_async_isolated):
    for path in ("/async", "/factory"):
        with refused():
            client.post(path)
    assert client.post("/def").json() == 1

def test_client_and_session(client, ledger_db_async_session):
    app.dependency_overrides[async_session] = lambda: ledger_db_async_session
    with refused():
        client.post("/async")
    app.dependency_overrides.clear()

def test_client_and_redis(client):
    for path in ("/redis", "/async-redis", "/async-redis"):
        assert client.get(path).json()

@pytest.mark.parametrize("turn", [1, 2])
def test_a_client_for_all_tests(started_client, ledger_db_async_isolated, turn):
    with override_manager(app, ledger_db_async_isolated):
        assert started_client.post("/def").json() == 1
        with refused():
            started_client.post("/async")
        assert started_client.get("/async-redis").json()
        assert started_client.get("/redis").json()

def test_a_client_that_starts_the_service(ledger_db_isolated):
    with override_manager(app, ledger_db_isolated), TestClient(app) as client:
        assert client.post("/def").json() == 1
        assert client.get("/async-redis").json()

def test_really_committed(ledger_db_manager, ledger_db_schema):
    with override_manager(app, ledger_db_manager):
        for client in (TestClient(app), TestClient(app)):
            assert client.post("/async").is_success
            assert client.post("/def").is_success
    with override_manager(app, ledger_db_manager), TestClient(app) as client:
        assert client.post("/async").is_success
        assert client.post("/factory").is_success
    with ledger_db_manager.begin() as session:
        assert session.execute(COUNT).scalar_one() == 6
        session.execute(text("DELETE FROM client_rows"))
"""
ASYNCHRONOUS = """
{mark}
async def test_async_client(ledger_db_async_isolated, ledger_db_async_session):
    with override_manager(app, ledger_db_async_isolated):
        async with asgi(app) as client:
            assert (await client.post("/def")).json() == 1
            assert (await client.post("/async")).json() == 1
            assert (await client.get("/async-redis")).json()
        assert await by_hand("/async") == 200
        assert await by_hand("/factory") == 200
    assert (await ledger_db_async_session.execute(COUNT)).scalar_one() == 3

{mark}
async def test_test_client_first(ledger_db_async_isolated):
    with override_manager(app, ledger_db_async_isolated):
        with refused():
            TestClient(app).post("/async")
        assert TestClient(app).post("/def").json() == 1
        assert await by_hand("/async") == 200

{mark}
async def test_test_client_last(ledger_db_async_isolated, ledger_db_async_session):
    await ledger_db_async_session.execute(INSERT)
    with override_manager(app, ledger_db_async_isolated):
        with TestClient(app) as client, refused():
            client.post("/factory")
        app.dependency_overrides[async_session] = lambda: ledger_db_async_session
        with refused():
            TestClient(app).post("/async")
        app.dependency_overrides.clear()
    assert (await ledger_db_async_session.execute(COUNT)).scalar_one() == 1

{mark}
async def test_redis_on_two_loops(ledger_db_async_isolated):
    with override_manager(app, ledger_db_async_isolated):
        assert TestClient(app).get("/async-redis").json()
        assert await ledger_db_async_isolated.async_redis.ping()
        with refused():
            TestClient(app).get("/async-redis")
        with TestClient(app) as client, refused():
            client.get("/async-redis")
        assert await ledger_db_async_isolated.async_redis.ping()

{mark}
async def test_a_session_that_another_loop_closes(ledger_db_async_isolated):
    session = ledger_db_async_isolated.async_session()
    await session.execute(INSERT)
    await asyncio.to_thread(asyncio.run, session.close())

{mark}
async def test_a_session_that_another_loop_begins(ledger_db_async_isolated):
    session = ledger_db_async_isolated.async_session()
    async def use():
        with pytest.raises(ConfigurationError, match=ANOTHER_LOOP):
            await session.execute(INSERT)
        with pytest.raises(ConfigurationError, match=ANOTHER_LOOP):
            async with ledger_db_async_isolated.async_begin() as another:
                await another.execute(INSERT)
    await asyncio.to_thread(asyncio.run, use())
    await session.close()

{mark}
async def test_really_committed_on_a_loop(ledger_db_manager, ledger_db_schema):
    with override_manager(app, ledger_db_manager):
        async with asgi(app) as client:
            assert (await client.post("/async")).is_success
        assert TestClient(app).post("/async").is_success
    async with ledger_db_manager.async_begin() as session:
        assert (await session.execute(COUNT)).scalar_one() == 2
        await session.execute(text("DELETE FROM client_rows"))
"""
# A fixture on one loop, and its test on another.
MISPLACED = """
import pytest_asyncio

@pytest_asyncio.fixture(loop_scope="session")
async def account(ledger_db_async_session):
    with pytest.raises(ConfigurationError, match=f"({{ANOTHER_LOOP}}).*loop scope"):
        await ledger_db_async_session.execute(INSERT)

@pytest_asyncio.fixture(loop_scope="{scope}")
async def well_placed(ledger_db_async_session):
    await ledger_db_async_session.execute(INSERT)

@pytest.mark.asyncio(loop_scope="{scope}")
async def test_a_fixture_on_another_loop(account, ledger_db_async_session):
    assert (await ledger_db_async_session.execute(COUNT)).scalar_one() == 0

@pytest.mark.asyncio(loop_scope="{scope}")
async def test_a_fixture_on_the_same_loop(well_placed, ledger_db_async_session):
    assert (await ledger_db_async_session.execute(COUNT)).scalar_one() == 1
"""

OWN_LOOPS = ("-o", "asyncio_default_fixture_loop_scope=function")
ONE_LOOP = (
    *("-o", "asyncio_default_fixture_loop_scope=session"),
    *("-o", "asyncio_default_test_loop_scope=session"),
)
AUTO = ("-o", "asyncio_mode=auto")
BY_ANYIO = ("-p", "no:asyncio")
PROJECTS = {
    "a loop for each test": ([SYNCHRONOUS, ASYNCHRONOUS.format(mark="")], (*AUTO, *OWN_LOOPS)),
    "a loop for all": ([SYNCHRONOUS, ASYNCHRONOUS.format(mark="")], (*AUTO, *ONE_LOOP)),
    "a loop for a module": (
        [SYNCHRONOUS, ASYNCHRONOUS.format(mark='@pytest.mark.asyncio(loop_scope="module")')],
        OWN_LOOPS,
    ),
    "fixtures on other loops": ([MISPLACED.format(scope="function")], OWN_LOOPS),
    "fixtures on other loops than a module's": ([MISPLACED.format(scope="module")], OWN_LOOPS),
    "anyio": ([ASYNCHRONOUS.format(mark="@pytest.mark.anyio")], BY_ANYIO),
}


def run_project(
    folder: Path, box: Sandbox, tests: list[str], *arguments: str, driver: str = "asyncpg"
) -> subprocess.CompletedProcess[str]:
    """Run *tests* against the servers of *box*, with warnings as errors."""
    sync = "psycopg" if driver == "psycopg" else "psycopg2"
    (folder / "conftest.py").write_text(CONFTEST.format(sync=sync, driver=driver), encoding="utf-8")
    (folder / "service.py").write_text(SERVICE, encoding="utf-8")
    (folder / "test_it.py").write_text("".join([PRELUDE, *tests]), encoding="utf-8")
    return run_pytest(folder, *STRICT, *arguments, environment=box.environment)


BOTH_DRIVERS = ("a loop for each test", "fixtures on other loops")
RUNS = [
    pytest.param(driver, *PROJECTS[name], id=f"{name}, {driver}")
    for name in PROJECTS
    for driver in (("asyncpg", "psycopg") if name in BOTH_DRIVERS else ("asyncpg",))
]


@pytest.mark.parametrize(("driver", "tests", "arguments"), RUNS)
def test_each_client_works_or_is_refused(
    own_box: Sandbox, tmp_path: Path, driver: str, tests: list[str], arguments: tuple[str, ...]
) -> None:
    """Whichever loop is whose, no test meets a riddle, no teardown fails, and the servers are as before."""
    run = run_project(tmp_path, own_box, tests, *arguments, driver=driver)

    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^=+ \d+ passed in", run.stdout, re.MULTILINE), run.stdout
    nothing_left(own_box)


def test_a_test_that_is_refused_fails_once(own_box: Sandbox, tmp_path: Path) -> None:
    """Who does not know yet of the two loops hears of them, in the test, and of nothing else after it."""
    tests = """
def ask(manager):
    with override_manager(app, manager), TestClient(app) as client:
        client.post("/async")

def test_synchronous(ledger_db_async_isolated):
    ask(ledger_db_async_isolated)

async def test_asynchronous(ledger_db_async_isolated, ledger_db_async_session):
    await ledger_db_async_session.execute(INSERT)
    ask(ledger_db_async_isolated)

def test_afterwards(ledger_db_schema, ledger_db_session):
    assert ledger_db_session.execute(COUNT).scalar_one() == 0
"""
    run = run_project(tmp_path, own_box, [tests], *AUTO, *OWN_LOOPS)
    refusals = re.findall(r"^E +ledger_db.ConfigurationError: (.*)$", run.stdout, re.MULTILINE)

    assert "2 failed, 1 passed in" in run.stdout, run.stdout + run.stderr
    assert len(refusals) == 2
    assert all("event loop (" in line and "httpx.AsyncClient" in line for line in refusals)
    nothing_left(own_box)


def test_on_sqlite_a_test_client_works(own_box: Sandbox, tmp_path: Path) -> None:
    """Its driver serves whichever loop asks, so nothing has to be refused."""
    tests = """
@pytest.fixture(scope="session")
def ledger_db_settings():
    from ledger_db import Settings
    return Settings(profile="test", database_url="sqlite://", database_secret_id=None, redis_secret_id=None)

def test_synchronous(ledger_db_schema, ledger_db_async_isolated):
    with override_manager(app, ledger_db_async_isolated):
        assert TestClient(app).post("/async").json() == 1
        assert TestClient(app).post("/async").json() == 2

async def test_asynchronous(ledger_db_schema, ledger_db_async_isolated):
    with override_manager(app, ledger_db_async_isolated):
        assert TestClient(app).post("/async").json() == 1
    async with ledger_db_async_isolated.async_session() as session:
        assert (await session.execute(COUNT)).scalar_one() == 1
"""
    run = run_project(tmp_path, own_box, [tests], *AUTO, *OWN_LOOPS)

    assert "2 passed in" in run.stdout, run.stdout + run.stderr


def test_another_kind_of_loop_is_named(own_box: Sandbox, tmp_path: Path) -> None:
    """The drivers need asyncio: a test that anyio would run on something else is told so."""
    tests = """
@pytest.fixture
def anyio_backend_name():
    return "trio"

@pytest.mark.anyio
async def test_it(ledger_db_async_session):
    pass
"""
    run = run_project(tmp_path, own_box, [tests], *BY_ANYIO)

    assert "need asyncio, and this test runs on trio" in run.stdout, run.stdout + run.stderr
    assert "1 error in" in run.stdout
