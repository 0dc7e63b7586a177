"""Do many threads, tasks and processes get along on one SQLite database?"""

import asyncio
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, TimeoutError as PoolTimeoutError

from ledger_db import ConnectionManager, Settings

READ = text("SELECT n FROM counter")
WRITE = text("UPDATE counter SET n = :n")


@pytest.fixture(params=["file", "memory"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A database of the test's own, with a small pool."""
    url = f"sqlite:///{tmp_path}/dev.db" if request.param == "file" else "sqlite://"
    return Settings(profile="development", echo=False, database_url=url, pool_timeout_seconds=20)


def make_counter(db: ConnectionManager) -> None:
    """Make the counter that everybody adds to."""
    with db.begin() as session:
        session.execute(text("CREATE TABLE counter (n int)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))


def add_one(db: ConnectionManager) -> None:
    """Read the counter, and write one more."""
    with db.begin() as session:
        session.execute(WRITE, {"n": session.execute(READ).scalar_one() + 1})


def add_ten(db: ConnectionManager) -> None:
    """Do that ten times."""
    for _ in range(10):
        add_one(db)


async def add_one_async(db: ConnectionManager) -> None:
    """Same as `add_one`, on an event loop."""
    async with db.async_begin() as session:
        await session.execute(WRITE, {"n": (await session.execute(READ)).scalar_one() + 1})


def count(db: ConnectionManager) -> int:
    """Return the counter."""
    with db.session(read_only=True) as session:
        return int(session.execute(READ).scalar_one())


def test_eight_threads_write_and_nothing_is_lost(settings: Settings) -> None:
    """Requests that read and then write wait for each other; none fails with "database is locked"."""
    with ConnectionManager(settings) as db, ThreadPoolExecutor(8) as threads:
        make_counter(db)
        list(threads.map(lambda _: add_one(db), range(200)))

        assert count(db) == 200


async def test_tasks_and_threads_write_and_nothing_is_lost(settings: Settings) -> None:
    """The two halves wait for each other too."""
    async with ConnectionManager(settings) as db:
        await asyncio.to_thread(make_counter, db)
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(asyncio.to_thread(add_ten, db))
            for _ in range(40):
                group.create_task(add_one_async(db))

        assert await asyncio.to_thread(count, db) == 80


async def test_cancelled_tasks_leave_no_lock_and_no_connection(settings: Settings) -> None:
    """Clients that hang up in the middle of a transaction do not keep others from writing."""
    async with ConnectionManager(settings) as db:
        await asyncio.to_thread(make_counter, db)
        tasks = [asyncio.create_task(add_one_async(db)) for _ in range(40)]
        for task in random.sample(tasks, 20):
            await asyncio.sleep(0)
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await add_one_async(db)

        done = sum(outcome is None for outcome in outcomes)
        assert {type(outcome) for outcome in outcomes} <= {type(None), asyncio.CancelledError}
        # One that was cancelled after its COMMIT was sent is done all the same.
        assert done + 1 <= await asyncio.to_thread(count, db) <= 41
        assert [pool.checked_out for pool in db.health().servers[0].pools] == [0, 0]


def test_a_writer_waits_only_as_long_as_a_request_may(settings: Settings) -> None:
    """Whoever finds a transaction that does not end hears so after pool_timeout_seconds; nothing is stuck."""
    patient = settings.model_copy(update={"pool_timeout_seconds": 0.1})
    with ConnectionManager(patient) as db:
        make_counter(db)
        with db.begin() as session:
            session.execute(READ)
            with pytest.raises(OperationalError, match="locked"):
                add_one(db)
        add_one(db)

        assert count(db) == 1


def test_readers_and_the_writer_of_a_file_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """A page that only reads is served from what was committed before it began, whoever writes meanwhile."""
    url = f"sqlite:///{tmp_path}/dev.db"
    settings = Settings(profile="test", database_url=url, pool_timeout_seconds=0.1)
    with ConnectionManager(settings) as db:
        make_counter(db)
        with db.session(read_only=True) as reader:
            assert reader.execute(READ).scalar_one() == 0
            with db.begin() as session:
                session.execute(WRITE, {"n": 5})
                assert count(db) == 0
            assert reader.execute(READ).scalar_one() == 0

        assert count(db) == 5


def test_the_pool_bounds_what_is_open(tmp_path: Path) -> None:
    """A leak of sessions shows in development as it would in production."""
    url = f"sqlite:///{tmp_path}/dev.db"
    limits = {"pool_size": 1, "max_overflow": 1, "pool_timeout_seconds": 0.05}
    with ConnectionManager(Settings(database_url=url, profile="development", echo=False, **limits)) as db:
        with db.engine.connect(), db.engine.connect(), pytest.raises(PoolTimeoutError):
            db.engine.connect()
        assert db.health().servers[0].pools[0].checked_out == 0


def test_a_file_that_another_process_has_locked_is_waited_for(tmp_path: Path) -> None:
    """Starting while a migration of another process runs takes longer, and does not fail."""
    file = tmp_path / "dev.db"
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    settings = Settings(profile="test", database_url=f"sqlite:///{file}", pool_timeout_seconds=0.05)
    opened = threading.Event()

    def open_it() -> None:
        with ConnectionManager(settings):
            opened.set()

    opening = threading.Thread(target=open_it)
    opening.start()
    assert not opened.wait(0.3)
    other.execute("COMMIT")
    other.close()

    assert opened.wait(60)
    opening.join(60)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_workers_write_to_one_file(tmp_path: Path) -> None:
    """A child writes to the same file with connections of its own, and the parent sees it."""
    settings = Settings(profile="development", echo=False, database_url=f"sqlite:///{tmp_path}/dev.db")
    context = multiprocessing.get_context("fork")
    with ConnectionManager(settings) as db:
        make_counter(db)

        def work() -> None:
            for _ in range(20):
                add_one(db)
            asyncio.run(add_one_async(db))

        children = [context.Process(target=work) for _ in range(3)]
        for child in children:
            child.start()
        for _ in range(20):
            add_one(db)
        for child in children:
            child.join(30)

        assert [child.exitcode for child in children] == [0, 0, 0]
        assert count(db) == 20 + 3 * 21


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_goes_on_when_its_parent_has_closed(tmp_path: Path) -> None:
    """The parent does not take the file's log away from a child that still writes to it."""
    settings = Settings(profile="test", database_url=f"sqlite:///{tmp_path}/dev.db")
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def work() -> None:
        while theirs.recv():
            add_one(db)
            theirs.send(count(db))

    def ask_child() -> int:
        ours.send(True)
        assert ours.poll(20)
        return int(ours.recv())

    with ConnectionManager(settings) as db:
        make_counter(db)
        child = context.Process(target=work)
        child.start()
        assert ask_child() == 1
    with closing(ours), closing(theirs):
        assert ask_child() == 2
        with ConnectionManager(settings) as again:
            assert count(again) == 2
            add_one(again)
            assert ask_child() == 4
        ours.send(False)
        child.join(20)

    with ConnectionManager(settings) as again:
        assert count(again) == 4


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_does_not_wait_for_what_its_parent_has_borrowed(tmp_path: Path) -> None:
    """A pool that is empty at the fork is full in the child: what was lent out is the parent's."""
    settings = Settings(
        profile="development",
        echo=False,
        database_url=f"sqlite:///{tmp_path}/dev.db",
        pool_size=1,
        max_overflow=0,
        pool_timeout_seconds=1,
    )
    context = multiprocessing.get_context("fork")
    with ConnectionManager(settings) as db:
        make_counter(db)
        with db.engine.connect():
            child = context.Process(target=add_one, args=(db,))
            child.start()
            child.join(20)

        assert child.exitcode == 0
        assert count(db) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_worker_has_memory_of_its_own() -> None:
    """A child begins with what there was at the fork, and from then on there are two databases."""
    context = multiprocessing.get_context("fork")
    with ConnectionManager(Settings(profile="test", database_url="sqlite://")) as db:
        make_counter(db)
        add_one(db)

        def work() -> None:
            add_one(db)
            assert count(db) == 2

        child = context.Process(target=work)
        child.start()
        child.join(30)

        assert child.exitcode == 0
        assert count(db) == 1


SCRIPT = """
import sys, time
from sqlalchemy import text
from ledger_db import ConnectionManager, Settings

with ConnectionManager(Settings()) as warm:
    pass
began = time.perf_counter()
with ConnectionManager(Settings()) as db:
    seconds = time.perf_counter() - began
    with db.begin() as session:
        session.execute(text("SELECT 1"))
loaded = [name for name in ("boto3", "botocore", "redis", "psycopg2", "asyncpg") if name in sys.modules]
print(*loaded)
sys.exit(seconds > 0.5)
"""


def test_it_starts_at_once_and_needs_no_aws_and_no_driver() -> None:
    """Trying things out costs neither credentials, nor a network, nor seconds."""
    script = [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT]
    env = {**os.environ, "LEDGER_DB_DATABASE_URL": "sqlite://", "LEDGER_DB_PROFILE": "test"}
    ended = subprocess.run(script, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert (ended.stdout.split(), ended.stderr, ended.returncode) == ([], "", 0)
