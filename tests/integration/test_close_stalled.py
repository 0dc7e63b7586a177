"""Does closing end although PostgreSQL has stalled, and whatever else is busy?"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.connections.cancelled import can_be_told
from ledger_db.fastapi import lifespan, manager_of
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.ports import free_port
from tests.support.any_driver import choice_of, direct_settings, is_on_loop
from tests.support.asgi import serving
from tests.support.stalling_proxy import StallingProxy
from tests.support.waiting import eventually

CONNECTIONS = 5
# All connections of a close together; none of them is waited for, so this is the machine's own slowness.
AT_MOST_SECONDS = 15.0


@pytest.fixture(scope="module")
def tls_box() -> Iterator[Sandbox]:
    """A server that speaks TLS."""
    with Sandbox(tls=True) as box:
        yield box


@pytest.fixture(params=["plain", "TLS"])
def server(request: pytest.FixtureRequest, box: Sandbox) -> Sandbox:
    """A server, with TLS and without."""
    chosen: Sandbox = request.getfixturevalue("tls_box") if request.param == "TLS" else box
    return chosen


@pytest.fixture
def door(server: Sandbox) -> Iterator[StallingProxy]:
    """A proxy in front of it that can stall."""
    with StallingProxy(server.postgres.host, server.postgres.port) as door:
        yield door


@pytest.fixture
def far(driver: str, server: Sandbox, door: StallingProxy) -> Settings:
    """Settings that lead through it, by this driver."""
    known = direct_settings(server).model_dump(exclude_unset=True)
    return Settings(**{**known, **choice_of(driver), "database_port": door.port})


def fill(db: ConnectionManager) -> None:
    """Let the pool have idle connections."""
    with ExitStack() as borrowed:
        for _ in range(CONNECTIONS):
            borrowed.enter_context(db.engine.connect()).execute(text("SELECT 1"))


async def async_fill(db: ConnectionManager) -> None:
    """Same as `fill`, on an event loop."""
    borrowed = [await db.async_engine.connect() for _ in range(CONNECTIONS)]
    for connection in borrowed:
        await connection.close()


async def open_and_fill(settings: Settings) -> ConnectionManager:
    """Open a manager whose pools have idle connections of the driver that is asked for."""
    db = await ConnectionManager(settings).async_open()
    await async_fill(db)
    return db


def test_closing_does_not_wait_for_it(driver: str, far: Settings, door: StallingProxy) -> None:
    """Idle connections are hung up on, on every driver, by close and async_close."""
    if is_on_loop(driver):

        async def live() -> float:
            db = await open_and_fill(far)
            door.stall()
            began = time.monotonic()
            await db.async_close()
            return time.monotonic() - began

        took = asyncio.run(live())
    else:
        db = ConnectionManager(far).open()
        fill(db)
        assert db.probe().ok
        door.stall()
        began = time.monotonic()
        db.close()
        took = time.monotonic() - began

    assert took < AT_MOST_SECONDS


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg-async"])
async def test_nor_does_a_thread_that_closes(far: Settings, door: StallingProxy) -> None:
    """A thread may close what a loop has opened, in the same time."""
    db = await open_and_fill(far)
    door.stall()
    async with asyncio.timeout(AT_MOST_SECONDS):
        await asyncio.to_thread(db.close)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg-async"])
async def test_nor_does_whoever_disposes_of_the_engine(far: Settings, door: StallingProxy) -> None:
    """An engine is SQLAlchemy's own, and may be disposed of by hand."""
    db = await open_and_fill(far)
    door.stall()
    async with asyncio.timeout(AT_MOST_SECONDS):
        await db.async_engine.dispose()
        await db.async_close()


@pytest.mark.parametrize("driver", ["asyncpg"])
async def test_nor_does_a_service(far: Settings, door: StallingProxy) -> None:
    """A lifespan ends in the same time."""
    app = FastAPI(lifespan=lifespan(far))
    async with asyncio.timeout(20), serving(app):
        await async_fill(manager_of(app))
        door.stall()
        began = time.monotonic()

    assert time.monotonic() - began < AT_MOST_SECONDS


@pytest.mark.parametrize("server", ["plain"], indirect=True)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg-async"])
async def test_nor_does_a_statement_that_is_cancelled(far: Settings, door: StallingProxy) -> None:
    """Somebody's time limit is kept, and what was cancelled is told by no other error."""
    async with ConnectionManager(far) as db:
        async with db.async_begin() as session:
            await session.execute(text("SELECT 1"))
        door.stall()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), db.async_begin() as session:
                await session.execute(text("SELECT 1"))
        seconds = time.monotonic() - began
        door.close()

    assert seconds < AT_MOST_SECONDS


@pytest.mark.parametrize("server", ["plain"], indirect=True)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg-async"])
async def test_a_healthy_server_ends_a_statement_that_is_cancelled(
    far: Settings, server: Sandbox, driver: str
) -> None:
    """Nobody waits for it any more, so it is to stop."""
    if driver == "psycopg-async" and not can_be_told():
        pytest.skip("this libpq cannot cancel without standing still")
    mark = f"/* {uuid.uuid4()} */"

    def is_running() -> bool:
        with closing(server.postgres.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE state = 'active' AND query LIKE %s AND pid <> pg_backend_pid()",
                (f"%sleep(60) {mark}%",),
            )
            return bool(cursor.fetchone()[0] > 0)

    async def sleep(db: ConnectionManager) -> None:
        async with db.async_begin() as session:
            await session.execute(text(f"SELECT pg_sleep(60) {mark}"))

    async with ConnectionManager(far) as db:
        task = asyncio.create_task(sleep(db))
        await asyncio.to_thread(eventually, is_running, "it runs")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(eventually, lambda: not is_running(), "it has ended")
        async with db.async_begin() as session:
            assert await session.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize(("driver", "server"), [("asyncpg", "plain")], indirect=["server"])
def test_no_thread_of_the_loop_is_needed(far: Settings) -> None:
    """Threads of the loop's executor may all be busy, for as long as they like."""
    free = threading.Event()

    async def live() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        busy = asyncio.create_task(asyncio.to_thread(free.wait))
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(4 * AT_MOST_SECONDS):
                db = await open_and_fill(far)
                await db.async_close()
        finally:
            free.set()
            await busy

    asyncio.run(live())


@pytest.mark.parametrize(("driver", "server"), [("asyncpg", "plain")], indirect=["server"])
async def test_a_healthy_server_hears_of_it(far: Settings, server: Sandbox) -> None:
    """Hanging up without waiting is a goodbye all the same: no session is left."""
    db = await ConnectionManager(far).async_open()
    async with db.async_session() as session:
        number = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    await db.async_close()

    def is_left() -> bool:
        with closing(server.postgres.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (number,))
            return cursor.fetchone() is not None

    await asyncio.to_thread(eventually, lambda: not is_left(), "the session has ended")


SERVICE = """
from fastapi import FastAPI
from sqlalchemy import text
from ledger_db.fastapi import AsyncSessionDep, SessionDep, lifespan

app = FastAPI(lifespan=lifespan())

@app.get("/")
async def ask(session: AsyncSessionDep):
    return (await session.execute(text("SELECT 1"))).scalar()

@app.get("/sync")
def ask_in_a_thread(session: SessionDep):
    return session.execute(text("SELECT 1")).scalar()
"""


@pytest.mark.parametrize("server", ["plain"], indirect=True)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg-async"])
@pytest.mark.parametrize("in_flight", [None, "", "sync"])
def test_a_service_ends_after_sigterm(
    far: Settings, door: StallingProxy, tmp_path: Path, in_flight: str | None
) -> None:
    """uvicorn has ended within 20 s, also if requests of either half were in the middle of a statement."""
    (tmp_path / "stalled_service.py").write_text(SERVICE)
    known = far.model_dump(exclude_unset=True, exclude_none=True)
    known["database_password"] = known["database_password"].get_secret_value()
    variables = {f"LEDGER_DB_{name.upper()}": str(value) for name, value in known.items()}
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "stalled_service:app", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--log-level", "warning", "--timeout-graceful-shutdown", "3"],
        env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(tmp_path)])},
        cwd=tmp_path,
    ) as service:
        try:
            for path in ("", "sync"):
                eventually(partial(answers, port, path), "it answers", timeout_seconds=30)
            door.stall()
            if in_flight is not None:
                threading.Thread(target=answers, args=(port, in_flight), daemon=True).start()
                time.sleep(0.5)
            service.send_signal(signal.SIGTERM)
            service.wait(20)
        finally:
            service.kill()


def answers(port: int, path: str) -> bool:
    """Say whether the service answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
