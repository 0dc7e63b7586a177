"""Do a program's own listeners see every connection, and does an engine that is not open yet do nothing?"""

import copy
import multiprocessing
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from fastapi import FastAPI
from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool

from ledger_db import ConfigurationError, ConnectionManager, ManagerClosed, Settings
from ledger_db.fastapi import AsyncSessionDep, lifespan, manager_of
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import Client, client_of, is_on_loop
from tests.test_docs import run_script


def prepare(connection: Any, record: object) -> None:
    """Do what a tenant's listener does: the path is set, and stays."""
    cursor = connection.cursor()
    cursor.execute("SET search_path TO tenant_a")
    cursor.close()
    connection.commit()


def path(session: Session) -> str:
    """Ask where tables are looked for."""
    return str(session.scalar(text("SHOW search_path")))


def core(db: ConnectionManager, driver: str) -> Engine:
    """Return the engine that *driver* is the driver of, an asynchronous one's synchronous core."""
    return db.async_engine.sync_engine if is_on_loop(driver) else db.engine


@pytest.fixture
def client(driver: str, direct: Settings) -> Iterator[Client]:
    """An open manager on each driver."""
    with client_of(driver, direct) as client:
        yield client


@pytest.fixture(params=["instance", "pool", "Engine", "Pool"])
def listened_to(request: pytest.FixtureRequest) -> Iterator[Callable[[Engine], None]]:
    """Listens to an engine, its pool, or the class of either; classes are left as they were."""
    target = {"Engine": Engine, "Pool": Pool}.get(request.param)

    def listen(engine: Engine) -> None:
        event.listen(target or (engine.pool if request.param == "pool" else engine), "connect", prepare)

    yield listen
    if target is not None:
        event.remove(target, "connect", prepare)


def test_a_listener_that_comes_right_after_the_start_sees_each_connection(
    client: Client, driver: str, listened_to: Callable[[Engine], None]
) -> None:
    """A quiet service uses its first connection for every request; that one is prepared as well."""
    listened_to(core(client.db, driver))

    assert [client.session(path) for _ in range(3)] == ["tenant_a"] * 3


def test_a_listener_that_comes_before_the_start_sees_each_connection(direct: Settings) -> None:
    """At import, before anything is open, and for each time that it is opened."""
    db, seen = ConnectionManager(direct), []
    event.listen(db.engine, "connect", prepare)
    event.listen(db.engine, "first_connect", lambda *given: seen.append(given))
    for _ in range(2):
        with db, db.session() as session:
            assert path(session) == "tenant_a"

    assert len(seen) == 2


def test_a_service_may_listen_in_its_own_lifespan(direct: Settings, test_client: Any) -> None:
    """Every request has what the listener of `then` has prepared."""

    @asynccontextmanager
    async def mine(app: FastAPI) -> AsyncIterator[None]:
        event.listen(manager_of(app).async_engine.sync_engine, "connect", prepare)
        yield

    app = FastAPI(lifespan=lifespan(direct, then=mine))

    @app.get("/")
    async def ask(session: AsyncSessionDep) -> str:
        return await session.run_sync(path)

    with test_client(app) as client:
        assert [client.get("/").json() for _ in range(3)] == ["tenant_a"] * 3


def test_a_listener_may_change_what_the_driver_is_given(client: Client, driver: str) -> None:
    """What it adds is used, for its connection only; who logs in is none of its business."""
    seen: list[set[str]] = []

    def rename(dialect: object, record: object, cargs: object, cparams: dict[str, Any]) -> None:
        seen.append(set(cparams))
        name = {"application_name": "mine"}
        cparams.update({"server_settings": name} if driver == "asyncpg" else name)

    event.listen(core(client.db, driver), "do_connect", rename)

    assert client.session(lambda session: session.scalar(text("SHOW application_name"))) == "mine"
    assert len(seen) == 1
    assert not seen[0] & {"host", "user", "password"}


def connects(*given: object) -> object:
    """Open a connection of its own, as it may not."""
    return object()


def says_who(dialect: object, record: object, cargs: object, cparams: dict[str, Any]) -> None:
    """Take a password from somewhere else, as it may not."""
    cparams["password"] = "canary"


@pytest.mark.parametrize(
    ("listener", "first", "words"),
    [
        (connects, False, r"test_listeners\.connects returns a connection of its own, which no rotation"),
        (connects, True, "returns a connection of its own, which no rotation"),
        (says_who, False, "cannot give 'password': each login takes it from the credentials"),
        (says_who, True, "cannot give 'password': each login takes it from the credentials"),
    ],
)
def test_a_listener_that_would_undo_rotations_is_refused(
    direct: Settings, listener: Any, words: str, *, first: bool
) -> None:
    """It is never skipped, and never obeyed: the message says what it may do instead."""
    db = ConnectionManager(direct)
    event.listen(db.engine, "do_connect", listener, insert=first)

    with pytest.raises(ConfigurationError, match=words) as refused, db:
        pass
    assert "canary" not in str(refused.value)


def fails(connection: object, record: object) -> None:
    """Fail, as a listener with a mistake does."""
    raise LookupError("no such codec")


def test_a_listener_that_fails_is_named(driver: str, direct: Settings) -> None:
    """The start blames neither certificate nor permissions, and leaves nothing open."""
    event.listen(Engine, "connect", fails)
    try:
        with (
            pytest.raises(ConfigurationError, match=r"test_listeners\.fails, .*: LookupError: no such codec"),
            client_of(driver, direct),
        ):
            pass
    finally:
        event.remove(Engine, "connect", fails)


async def test_an_engine_that_is_not_open_does_nothing(direct: Settings) -> None:
    """It can be named at import; whoever uses it hears what to do; it serves as soon as it is open."""
    threads = set(threading.enumerate())
    db = ConnectionManager(direct)
    kept, own = (db.engine, db.async_engine), async_sessionmaker(db.async_engine)
    assert set(threading.enumerate()) == threads

    with pytest.raises(ManagerClosed, match=r"not opened yet.*open the manager first"):
        db.engine.connect()
    with pytest.raises(ManagerClosed, match=r"not opened yet.*open the manager first"):
        await db.async_engine.connect()
    async with db, own() as session:
        assert await session.scalar(text("SELECT 1")) == 1
    assert (db.engine, db.async_engine) == kept


def test_an_engine_of_sqlite_that_is_not_open_makes_no_file(tmp_path: Path) -> None:
    """In development as with a server."""
    db = ConnectionManager(Settings(database_url=f"sqlite:///{tmp_path}/dev.db"))

    with pytest.raises(ManagerClosed, match="not opened yet"):
        db.engine.connect()
    assert list(tmp_path.iterdir()) == []


FORKING = """
import os
from sqlalchemy import event, text
from ledger_db import ConnectionManager

db, seen = ConnectionManager(), []
event.listen(db.engine, "connect", lambda *given: seen.append(os.getpid()))
child = os.fork()
with db, db.session() as session:
    assert session.scalar(text("SELECT 1")) == 1 and set(seen) == {os.getpid()}
if not child:
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_may_fork_before_it_opens_its_manager(environment: Sandbox, tmp_path: Path) -> None:
    """Parent and child each open what was made at import, listeners included."""
    assert run_script(FORKING, box=environment, folder=tmp_path) == "0\n"


def opened(settings: Settings) -> None:
    """Do what a spawned process should."""
    with ConnectionManager(settings):
        pass


def test_a_manager_is_neither_sent_nor_copied(direct: Settings) -> None:
    """Whoever tries hears what to send instead."""
    db = ConnectionManager(direct)
    process = multiprocessing.get_context("spawn").Process(target=opened, args=(db,))
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy, lambda _: process.start()):
        with pytest.raises(TypeError, match="send its settings to a spawned process, and open"):
            attempt(db)


def test_who_wraps_create_engine_sees_each_engine(direct: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instrumentation replaces SQLAlchemy's function after ours was imported, and still has its spans."""
    made: list[Engine] = []
    original = sqlalchemy.create_engine

    def traced(*arguments: Any, **named: Any) -> Engine:
        made.append(original(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(sqlalchemy, "create_engine", traced)
    db, statements = ConnectionManager(direct), []
    assert db.engine in made
    event.listen(made[0], "before_cursor_execute", lambda *given: statements.append(given[2]))
    with db, db.session() as session:
        session.execute(text("SELECT 7"))

    assert statements[-1] == "SELECT 7"
