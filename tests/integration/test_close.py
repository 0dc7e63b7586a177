"""Is nothing left when a manager is closed, whenever and however that happens?"""

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, ManagerClosed, Settings
from ledger_db.credentials.secrets_manager import SecretsManagerSource
from ledger_db.sandbox import Sandbox
from tests.support.left_over import nothing_left, sessions


def test_what_is_borrowed_is_closed_when_it_is_returned(settings: Settings, environment: Sandbox) -> None:
    """A request that outlives the manager finishes; its connection goes when it is done."""
    with ConnectionManager(settings) as db:
        borrowed = db.engine.connect()
        borrowed.execute(text("SELECT 1"))
    borrowed.execute(text("SELECT 1"))
    assert sessions(environment) == 1
    borrowed.close()

    nothing_left(environment)


async def test_the_same_on_an_event_loop(settings: Settings, environment: Sandbox) -> None:
    """An asynchronous connection too is closed when it is returned."""
    async with ConnectionManager(settings) as db:
        borrowed = await db.async_engine.connect()
        await db.async_redis.ping()
    await borrowed.execute(text("SELECT 1"))
    await borrowed.close()

    await asyncio.to_thread(nothing_left, environment)


def test_a_kept_engine_opens_nothing_any_more(settings: Settings, environment: Sandbox) -> None:
    """Whoever kept the engine or the client of a closed manager hears that it is closed."""
    with ConnectionManager(settings) as db:
        engine, redis = db.engine, db.redis
    with pytest.raises(ManagerClosed):
        engine.connect()
    with pytest.raises(ManagerClosed):
        redis.ping()

    nothing_left(environment)


async def test_closing_the_wrong_way_says_so_and_closes_nothing(
    settings: Settings, environment: Sandbox
) -> None:
    """close() on the loop of the asynchronous half would wait for itself: refused, and nothing is lost."""
    async with ConnectionManager(settings) as db:
        with pytest.raises(ManagerClosed, match="await async_close"):
            db.close()
        assert await db.async_redis.ping()


async def test_a_thread_may_close_what_a_loop_has_opened(settings: Settings, environment: Sandbox) -> None:
    """From another thread both halves are closed, the asynchronous one on its loop."""
    db = await ConnectionManager(settings).async_open()
    await asyncio.to_thread(db.close)

    await asyncio.to_thread(nothing_left, environment)


async def use(db: ConnectionManager) -> None:
    """Leave idle connections of both halves in the pools."""
    async with db.async_session() as session:
        await session.execute(text("SELECT 1"))
    await db.async_redis.ping()


def leave_running(db: ConnectionManager) -> asyncio.AbstractEventLoop:
    """Use *db* on a loop that is neither running nor closed afterwards."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(use(db))
    return loop


def close_it(db: ConnectionManager) -> None:
    """Close *db* where no loop runs."""
    db.close()


def close_it_elsewhere(db: ConnectionManager) -> None:
    """Close *db* on a loop that is not its own."""
    asyncio.run(db.async_close())


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("close", [close_it, close_it_elsewhere])
def test_closing_closes_whatever_became_of_the_loop(
    settings: Settings, environment: Sandbox, driver: str, close: Callable[[ConnectionManager], None]
) -> None:
    """A loop that has ended, was only closed, or pauses, keeps nobody from closing all that it had."""
    chosen = Settings(**{**settings.model_dump(exclude_unset=True), "async_database_driver": driver})
    ended, closed, paused = (ConnectionManager(chosen).open() for _ in range(3))
    asyncio.run(use(ended))
    leave_running(closed).close()
    pausing = leave_running(paused)
    for db in (ended, closed, paused):
        close(db)
        assert db.health().state == "closed"

    nothing_left(environment)
    pausing.run_until_complete(asyncio.sleep(0))
    pausing.run_until_complete(pausing.shutdown_asyncgens())
    pausing.close()


def test_a_block_around_a_run_leaves_nothing(settings: Settings, environment: Sandbox) -> None:
    """Opened on no loop, used on one, closed on none."""
    with ConnectionManager(settings) as db:
        asyncio.run(use(db))

    nothing_left(environment)


def test_a_loop_that_runs_elsewhere_closes_its_own(settings: Settings, environment: Sandbox) -> None:
    """async_close() on another loop asks the first one, which lives on in its thread."""
    loop = asyncio.new_event_loop()
    turning = threading.Thread(target=loop.run_forever)
    turning.start()
    db = asyncio.run_coroutine_threadsafe(ConnectionManager(settings).async_open(), loop).result(20)
    asyncio.run(db.async_close())

    nothing_left(environment)
    loop.call_soon_threadsafe(loop.stop)
    turning.join(60)
    loop.close()


def test_a_loop_that_is_blocked_does_not_keep_its_connections(
    settings: Settings, environment: Sandbox
) -> None:
    """Synchronous work on the loop delays its goodbye, not the end of the sessions."""
    go_on, loop = threading.Event(), asyncio.new_event_loop()
    turning = threading.Thread(target=loop.run_forever)
    turning.start()
    db = asyncio.run_coroutine_threadsafe(ConnectionManager(settings).async_open(), loop).result(20)
    loop.call_soon_threadsafe(go_on.wait, 30)
    db.close()

    nothing_left(environment)
    go_on.set()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.1), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    turning.join(60)
    loop.close()


def test_a_second_close_finishes_what_the_first_began(settings: Settings, environment: Sandbox) -> None:
    """The loop ended in the middle of closing: whoever closes again, anywhere, gets to the end."""
    db = ConnectionManager(settings)

    async def begin_to_close() -> None:
        await db.async_open()
        await use(db)
        closing = asyncio.create_task(db.async_close())
        await asyncio.sleep(0)
        assert not closing.done()

    asyncio.run(begin_to_close())
    db.close()
    db.close()

    assert db.health().state == "closed"
    nothing_left(environment)


async def test_closing_is_finished_although_it_is_cancelled(settings: Settings, environment: Sandbox) -> None:
    """A shutdown that is cut short leaves no session."""
    db = await ConnectionManager(settings).async_open()
    task = asyncio.create_task(db.async_close())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await asyncio.to_thread(nothing_left, environment)
    await db.async_close()


def test_closing_while_it_is_being_opened(environment: Sandbox) -> None:
    """Whoever opens hears that it was closed; it does not come alive afterwards."""
    reading, go_on = threading.Event(), threading.Event()

    class Slow(SecretsManagerSource):
        def fetch(self, stage: Any) -> Any:
            reading.set()
            assert go_on.wait(60)
            return super().fetch(stage)

    db = ConnectionManager(
        Settings(redis_secret_id=None), database_source=Slow(environment.database_secret_id, "PostgreSQL")
    )
    raised: list[Exception] = []

    def open_it() -> None:
        try:
            db.open()
        except ManagerClosed as error:
            raised.append(error)

    opening = threading.Thread(target=open_it)
    opening.start()
    assert reading.wait(60)
    db.close()
    go_on.set()
    opening.join(60)

    assert len(raised) == 1
    assert not db.health().ok
    nothing_left(environment)


async def test_a_fork_does_not_disturb_the_parents_event_loop(settings: Settings) -> None:
    """A child that drops what it inherited takes nothing from the parent's epoll set."""
    import multiprocessing  # noqa: PLC0415 - here only
    import warnings  # noqa: PLC0415 - here only

    context = multiprocessing.get_context("fork")
    async with ConnectionManager(settings) as db:
        await db.async_redis.ping()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = context.Process(target=gc.collect)
            child.start()
        await asyncio.to_thread(child.join, 20)

        async with asyncio.timeout(30):
            assert await db.async_redis.ping()
            async with db.async_session() as session:
                await session.execute(text("SELECT 1"))
        assert child.exitcode == 0
