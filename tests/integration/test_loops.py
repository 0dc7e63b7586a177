"""Does one manager serve one event loop after another, whatever way they end, and never two at once?"""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SAWarning

from ledger_db import ConfigurationError, ConnectionManager, Settings
from ledger_db.sandbox import Sandbox
from tests.support.left_over import nothing_left, sessions
from tests.support.pytest_runs import run_pytest
from tests.support.waiting import eventually

ON_LOOP = ("asyncpg", "psycopg")


@pytest.fixture(params=ON_LOOP)
def db(request: pytest.FixtureRequest, settings: Settings) -> Iterator[ConnectionManager]:
    """A manager that was opened on no loop, for each driver."""
    known = settings.model_dump(exclude_unset=True)
    with ConnectionManager(Settings(**{**known, "async_database_driver": request.param})) as db:
        yield db


@pytest.fixture
def idle(db: ConnectionManager, environment: Sandbox) -> Callable[[], None]:
    """Waits until the servers have no more of this manager than after its start, and nothing is borrowed."""
    before = sessions(environment), commanding(environment)

    def wait() -> None:
        eventually(lambda: sessions(environment) <= before[0], "the loop's sessions have ended")
        eventually(lambda: commanding(environment) <= before[1], "and its connections to Redis")
        pools = [pool for server in db.health().servers for pool in server.pools]
        assert not any(pool.checked_out for pool in pools)

    return wait


def commanding(box: Sandbox) -> int:
    """Count the service's connections to Redis, but for the manager's own that listens."""
    admin: Any = box.redis.connect()
    with closing(admin):
        ours = [client for client in admin.client_list() if client["user"] == "ledger_app"]
        return sum(client["sub"] == "0" for client in ours)


async def use_database(db: ConnectionManager) -> int:
    """Use PostgreSQL once; return which session it was."""
    async with db.async_begin() as session:
        pid: int = (await session.execute(text("SELECT pg_backend_pid() FROM pg_sleep(0.01)"))).scalar_one()
    return pid


async def use_redis(db: ConnectionManager) -> None:
    """Use Redis once."""
    assert await db.async_redis.ping()


async def one(db: ConnectionManager) -> int:
    """Use both servers once; return which session of PostgreSQL it was."""
    await use_redis(db)
    return await use_database(db)


async def many(db: ConnectionManager) -> set[int]:
    """Use both servers more often at once than there are places in the pool."""
    return set(await asyncio.gather(*(one(db) for _ in range(20))))


def run_and_close(work: Awaitable[Any]) -> None:
    """Run *work* on a loop that is closed without a farewell, as old scripts do."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


@contextmanager
def living_loop() -> Iterator[Callable[[Any], Any]]:
    """A loop that runs in a thread of its own; gives what runs a coroutine there."""
    with ThreadPoolExecutor(1) as thread:
        loop = asyncio.new_event_loop()
        turning = thread.submit(loop.run_forever)
        try:
            yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(20)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            turning.result(60)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


def test_each_run_has_connections_of_its_own(db: ConnectionManager, idle: Callable[[], None]) -> None:
    """A task queue that runs each task on a new loop needs one manager; no run leaves anything behind."""
    seen: list[set[int]] = []
    for _ in range(4):
        seen.append(asyncio.run(many(db)))
        idle()

    assert all(1 <= len(pids) <= 15 for pids in seen)
    assert len(set.union(*seen)) == sum(map(len, seen))


def test_each_thread_may_run_a_loop_after_the_other(db: ConnectionManager, idle: Callable[[], None]) -> None:
    """Workers that are threads take turns."""
    for _ in range(3):
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(asyncio.run, many(db)).result(30)
        idle()


def test_a_loop_that_ends_without_a_farewell_is_left_behind(
    db: ConnectionManager, idle: Callable[[], None]
) -> None:
    """What it has opened is dead; the next loop has new connections, and the server is rid of the old."""
    for _ in range(3):
        run_and_close(many(db))
        gc.collect()
    db.close()

    idle()


def test_what_a_dead_loop_had_borrowed_ends_too(db: ConnectionManager, idle: Callable[[], None]) -> None:
    """A session that was never closed, in the middle of a transaction, does not outlive its loop for long."""
    kept: list[object] = []

    async def leave_open() -> None:
        session = db.async_session()
        await session.execute(text("SELECT 1"))
        pubsub = db.async_redis.pubsub()
        await pubsub.subscribe("somewhere")
        kept.extend((session, pubsub))

    for _ in range(3):
        run_and_close(leave_open())
    asyncio.run(many(db))

    idle()
    with warnings.catch_warnings():
        # SQLAlchemy tells whoever drops a session without closing it.
        warnings.simplefilter("ignore", SAWarning)
        kept.clear()
        gc.collect()


def test_a_full_pool_of_an_ended_loop_keeps_nobody_waiting(settings: Settings) -> None:
    """Whoever waited on one loop is forgotten on the next."""
    for driver in ON_LOOP:
        narrow = {
            "pool_size": 1,
            "max_overflow": 0,
            "redis_max_connections": 1,
            "async_database_driver": driver,
        }
        with ConnectionManager(Settings(**{**settings.model_dump(exclude_unset=True), **narrow})) as db:
            for runs in (asyncio.run, run_and_close, asyncio.run, asyncio.run):
                runs(many(db))


def test_a_second_living_loop_is_refused(db: ConnectionManager) -> None:
    """It hears what to do, wherever it asks for a connection, and the first loop notices nothing."""
    with living_loop() as first:
        mine = first(one(db))
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=r"another event loop.*LEDGER_DB_POOL=none"):
                asyncio.run(use_database(db))
            with pytest.raises(ConfigurationError, match="another event loop"):
                asyncio.run(use_redis(db))
            assert first(one(db)) == mine

    assert asyncio.run(one(db)) != mine


def test_a_loop_that_only_pauses_has_not_ended(db: ConnectionManager) -> None:
    """A notebook or a test runner may come back to it, and to its connections."""
    with asyncio.Runner() as paused:
        mine = paused.run(one(db))
        with pytest.raises(ConfigurationError, match="has not ended"):
            asyncio.run(use_database(db))

        assert paused.run(one(db)) == mine


def test_a_rotation_between_two_loops_is_followed(db: ConnectionManager, environment: Sandbox) -> None:
    """While no loop runs there is none to renew connections on, and nothing to renew."""
    asyncio.run(many(db))
    environment.rotate_database("alternating-users")
    environment.rotate_redis()

    asyncio.run(many(db))


def test_a_generator_that_the_loop_ends_may_still_commit(
    db: ConnectionManager, idle: Callable[[], None]
) -> None:
    """A stream that nobody reads to its end gives its connection back while the loop is shut down."""
    ended = []

    async def stream() -> AsyncIterator[int]:
        async with db.async_session() as session:
            try:
                yield (await session.execute(text("SELECT 1"))).scalar_one()
            finally:
                await session.execute(text("SELECT 2"))
                await session.commit()
                async with db.async_session() as another:
                    ended.append((await another.execute(text("SELECT 3"))).scalar_one())

    async def read_one() -> None:
        await one(db)
        streams.append(stream())
        await anext(streams[0])

    streams: list[AsyncIterator[int]] = []
    asyncio.run(read_one())

    assert ended == [3]
    asyncio.run(many(db))
    idle()


def test_without_a_pool_two_living_loops_are_served(settings: Settings) -> None:
    """Nothing is kept, so there is nothing to take from the other."""
    for driver in ON_LOOP:
        none = {"pool": "none", "async_database_driver": driver}
        unpooled = Settings(**{**settings.model_dump(exclude_unset=True), **none})
        with ConnectionManager(unpooled) as db, living_loop() as first:
            for _ in range(3):
                assert first(use_database(db)) != asyncio.run(use_database(db))


def test_over_tls_nothing_is_left_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that ends without a farewell leaves no connection, and no complaint, over TLS."""
    with Sandbox(tls=True) as box:
        for name, value in box.environment.items():
            monkeypatch.setenv(name, value)
        with ConnectionManager() as db:
            for runs in (run_and_close, run_and_close, asyncio.run):
                runs(many(db))
        gc.collect()

        nothing_left(box)


LOOP_A_TEST = """
import pytest
from ledger_db import ConnectionManager, Settings

@pytest.fixture(scope="session")
def db():
    with ConnectionManager(Settings()) as db:
        yield db

@pytest.mark.parametrize("number", range(3))
async def test_it(db, number):
    async with db.async_begin() as session:
        await session.connection()
    assert await db.async_redis.ping()
"""


def test_a_loop_for_each_test_is_served(environment: Sandbox, tmp_path: Path) -> None:
    """pytest-asyncio gives each test its own; a manager for the whole run serves all of them."""
    (tmp_path / "test_loops.py").write_text(LOOP_A_TEST)
    options = (
        "asyncio_mode = auto",
        "asyncio_default_fixture_loop_scope = function",
        "filterwarnings = error",
    )
    (tmp_path / "pytest.ini").write_text("\n".join(("[pytest]", *options)))

    ended = run_pytest(tmp_path, environment=environment.environment)

    assert ended.returncode == 0, ended.stdout
    assert "3 passed" in ended.stdout
