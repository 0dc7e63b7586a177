"""Does a forked child leave alone what its parent has connected, whatever it does with the manager?"""

import asyncio
import gc
import multiprocessing
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.sandbox import Sandbox


async def connections(db: ConnectionManager) -> tuple[int, int]:
    """Return which session of PostgreSQL, and which connection to Redis, is lent now."""
    async with db.async_session() as session:
        pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    return pid, await db.async_redis.client_id()


def close_at_once(db: ConnectionManager) -> None:
    """Close without having used anything."""
    db.close()


def run_twice(db: ConnectionManager) -> None:
    """Use both halves on loops of its own."""
    asyncio.run(connections(db))
    asyncio.run(connections(db))
    db.close()


def close_the_loop(db: ConnectionManager) -> None:
    """Close the loop that was inherited, as a worker does that wants one of its own."""
    # Really closing it would take the pipe that wakes it from the epoll set that the two share.
    loops[0].is_closed = lambda: True  # type: ignore[method-assign]
    run_twice(db)


def drop_what_was_borrowed(db: ConnectionManager) -> None:
    """Let the garbage collector find it."""
    borrowed.clear()
    gc.collect()


borrowed: list[Any] = []
loops: list[asyncio.AbstractEventLoop] = []


@pytest.fixture(params=["asyncpg", "psycopg"])
async def db(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[ConnectionManager]:
    """A manager that was opened on the test's loop, for each driver."""
    known = settings.model_dump(exclude_unset=True)
    loops[:] = [asyncio.get_running_loop()]
    async with ConnectionManager(Settings(**{**known, "async_database_driver": request.param})) as db:
        yield db


@pytest.mark.parametrize("work", [close_at_once, run_twice, close_the_loop, drop_what_was_borrowed])
async def test_what_the_parent_has_connected_lasts(
    db: ConnectionManager, environment: Sandbox, work: Callable[[ConnectionManager], None]
) -> None:
    """Idle connections stay idle, and a transaction and a subscription go on, on PostgreSQL and Redis."""
    subscriber = db.async_redis.pubsub()
    await subscriber.subscribe("news")
    await subscriber.get_message(timeout=30)
    session_before, client_before = await connections(db)
    async with db.async_session() as session:
        await session.execute(text("CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT 7 AS number"))
        borrowed.append(await db.async_engine.connect())
        second = (await borrowed[0].execute(text("SELECT pg_backend_pid()"))).scalar_one()

        assert await fork_and(work, db) == 0

        assert (await session.execute(text("SELECT number FROM kept"))).scalar_one() == 7
        connection = borrowed.pop()
        assert (await connection.execute(text("SELECT 7"))).scalar_one() == 7
        await connection.close()
    session_after, client_after = await connections(db)
    assert session_after in {session_before, second}
    assert client_after == client_before
    with closing(environment.redis.connect()) as admin:
        admin.publish("news", "arrived")
    assert (await subscriber.get_message(timeout=30))["data"] == b"arrived"
    await subscriber.aclose()  # type: ignore[no-untyped-call] # untyped in redis-py


async def test_a_client_that_was_kept_serves_the_child_too(db: ConnectionManager) -> None:
    """Who has put the client into a variable before the fork has new connections in the child."""
    client = db.async_redis
    here = await client.client_id()

    def use(db: ConnectionManager) -> None:
        assert asyncio.run(client.client_id()) != here  # type: ignore[arg-type]
        assert db.async_redis is client

    assert await fork_and(use, db) == 0
    assert await client.client_id() == here


async def fork_and(work: Callable[[ConnectionManager], None], db: ConnectionManager) -> int | None:
    """Do *work* in a child, and return its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = multiprocessing.get_context("fork").Process(target=work, args=(db,))
        child.start()
    await asyncio.to_thread(child.join, 30)
    return child.exitcode
