"""What becomes of a manager that nobody closes?"""

import asyncio
import gc
import threading
import warnings
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.manager.view import ManagerView
from ledger_db.sandbox import Sandbox
from tests.integration.test_default_manager import run_script
from tests.support.left_over import nothing_left
from tests.support.waiting import eventually

FORGOTTEN = r"ConnectionManager \(PostgreSQL=[\w-]+, Redis=[\w-]+\) was dropped while it was open"


@pytest.fixture
def no_thread_more() -> Iterator[None]:
    """As many threads of ours at the end as at the beginning."""

    def ours() -> int:
        return sum(thread.name.startswith("ledger_db-") for thread in threading.enumerate())

    before = ours()
    yield
    eventually(lambda: ours() <= before, "its threads have ended")


def use(db: ConnectionManager) -> None:
    """Leave idle connections of the synchronous half in the pools, and an answer of a probe."""
    with db.begin() as session:
        session.execute(text("SELECT 1"))
    assert db.redis.ping()
    assert db.probe().ok


async def async_use(db: ConnectionManager) -> None:
    """The same of the other half."""
    async with db.async_begin() as session:
        await session.execute(text("SELECT 1"))
    assert await db.async_redis.ping()


@pytest.mark.usefixtures("no_thread_more")
def test_it_is_told_and_closed(settings: Settings, environment: Sandbox) -> None:
    """Dropped, it ends its threads and sessions, and says which one it was and how to close it."""
    db = ConnectionManager(settings).open()
    use(db)
    with pytest.warns(ResourceWarning, match=FORGOTTEN + r".*async with.*close\(\)"):
        del db

    nothing_left(environment)


@pytest.mark.usefixtures("no_thread_more")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_on_a_loop_that_goes_on(settings: Settings, environment: Sandbox, driver: str) -> None:
    """Its asynchronous connections say goodbye on the loop."""
    chosen = Settings(**{**settings.model_dump(exclude_unset=True), "async_database_driver": driver})
    db = await ConnectionManager(chosen).async_open()
    await async_use(db)
    with pytest.warns(ResourceWarning, match=FORGOTTEN):
        del db

    await asyncio.to_thread(nothing_left, environment)


@pytest.mark.usefixtures("no_thread_more")
def test_after_its_loop_has_ended(settings: Settings, environment: Sandbox) -> None:
    """Nobody is there to say goodbye; nothing is left all the same."""

    async def forget() -> ConnectionManager:
        db = await ConnectionManager(settings).async_open()
        await async_use(db)
        return db

    loop = asyncio.new_event_loop()
    db = loop.run_until_complete(forget())
    loop.close()
    with pytest.warns(ResourceWarning, match=FORGOTTEN):
        del db
    nothing_left(environment)
    gc.collect()


def test_one_that_was_closed_or_never_opened_says_nothing(settings: Settings) -> None:
    """Only who leaves something behind is told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ConnectionManager(settings)
        with ConnectionManager(settings):
            pass
        db = ConnectionManager(settings).open()
        db.close()
        with db:
            pass
        del db
        gc.collect()

    assert [str(each.message) for each in caught if "ConnectionManager" in str(each.message)] == []


def test_whoever_looks_through_a_view_has_not_forgotten_it(settings: Settings, environment: Sandbox) -> None:
    """A view is the same manager: it is open for as long as one of them is there."""
    db = ConnectionManager(settings).open()
    view = ManagerView(db)
    del db
    gc.collect()
    use(view)
    with pytest.warns(ResourceWarning, match=FORGOTTEN):
        del view

    nothing_left(environment)


AT_EXIT = """
from sqlalchemy import text
from ledger_db import ConnectionManager, default_manager
%s
with db.begin() as session:
    session.execute(text("SELECT 1"))
db.redis.ping()
"""


def test_at_the_end_of_the_interpreter_it_is_told_too(environment: Sandbox) -> None:
    """A script that never closes hears of it if it listens to warnings; the default manager closes itself."""
    forgetful = run_script(AT_EXIT % "db = ConnectionManager().open()")
    default = run_script(AT_EXIT % "db = default_manager()")

    assert "ResourceWarning: a ConnectionManager" in forgetful.stderr
    assert (default.stderr, default.returncode) == ("", 0)
    nothing_left(environment)


FORKED = """
import os
from sqlalchemy import text
from ledger_db import ConnectionManager
with ConnectionManager() as db:
    child = os.fork()
    with db.begin() as session:
        session.execute(text("SELECT 1"))
    if child == 0:
        db.close()
        os._exit(0)
    print(os.waitpid(child, 0)[1])
    with db.begin() as session:
        session.execute(text("SELECT 1"))
"""


def test_a_forked_child_closes_its_own(environment: Sandbox) -> None:
    """Neither hears of the other's end."""
    ended = run_script(FORKED)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("0\n", "", 0)
    nothing_left(environment)


TASKS = """
import asyncio, atexit, logging, os
from sqlalchemy import text
from ledger_db import default_manager

async def task():
    async with default_manager().async_begin() as session:
        await session.execute(text("SELECT 1"))
    return await default_manager().async_redis.ping()

logging.getLogger("asyncio").setLevel(logging.ERROR)  # how long a step took is no news here
asyncio.run(task())
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        ok = all(asyncio.run(task()) for _ in range(3))
        # As multiprocessing ends: OpenSSL's own end may wait for a lock that a thread of the parent held.
        atexit._run_exitfuncs()
        os._exit(0 if ok else 1)
    children.append(child)
statuses = [os.waitpid(child, 0)[1] for child in children]
print(statuses, asyncio.run(task()))
"""


def test_workers_run_each_task_on_a_loop_of_its_own(environment: Sandbox) -> None:
    """A prefork queue with the default manager: each worker has connections of its own, task after task."""
    ended = run_script(TASKS)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("[0, 0] True\n", "", 0)
    nothing_left(environment)
