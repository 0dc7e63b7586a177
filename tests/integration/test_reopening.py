"""May a manager that was closed be opened again, and is what was kept of it still good?"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger_db import ConnectionManager, ManagerClosed, Settings
from ledger_db.credentials.secrets_manager import SecretsManagerSource
from ledger_db.fastapi import AsyncSessionDep, SessionDep, lifespan
from ledger_db.sandbox import Sandbox
from tests.support.left_over import nothing_left, sessions
from tests.support.waiting import eventually


async def answers(db: ConnectionManager, engine: AsyncEngine) -> None:
    """Use the asynchronous half, and an engine that somebody has kept."""
    async with db.async_begin() as session, engine.connect() as connection:
        await session.execute(text("SELECT 1"))
        await connection.execute(text("SELECT 1"))
    assert await db.async_redis.ping()


def test_engines_and_clients_are_the_same_objects(settings: Settings, environment: Sandbox) -> None:
    """A name that was bound while the manager was open works whenever it is open again."""
    db = ConnectionManager(settings).open()
    kept = engine, redis, on_loop, _ = db.engine, db.redis, db.async_engine, db.async_redis
    for _ in range(3):
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        assert redis.ping()
        asyncio.run(answers(db, on_loop))
        db.close()
        nothing_left(environment)
        for closed in (engine.connect, redis.ping, db.engine.connect):
            with pytest.raises(ManagerClosed, match="closed"):
                closed()
        db.open()
        assert (db.engine, db.redis, db.async_engine, db.async_redis) == kept
    db.close()

    nothing_left(environment)


async def test_it_opens_again_on_another_loop_than_it_was_closed_on(settings: Settings) -> None:
    """Whoever asks a closed manager for a connection does not bind it to that loop."""
    db = await ConnectionManager(settings).async_open()
    engine = db.async_engine
    await answers(db, engine)
    await db.async_close()
    with pytest.raises(ManagerClosed):
        await engine.connect()

    async def life() -> None:
        async with db:
            await answers(db, engine)

    for _ in range(2):
        await asyncio.to_thread(asyncio.run, life())
    await life()


def test_a_password_that_changed_meanwhile_is_read(settings: Settings, environment: Sandbox) -> None:
    """Nobody followed the secret while the manager was closed; it is followed again afterwards."""
    with ConnectionManager(settings) as db:
        before = user(db)
    environment.rotate_database("alternating-users")
    environment.rotate_redis()
    with db:
        assert user(db) != before
        assert db.redis.ping()
        environment.rotate_database("alternating-users")
        db.look_now()
        eventually(lambda: user(db) == before, "the rotation is followed")


def user(db: ConnectionManager) -> str:
    """Return the role that sessions have now."""
    with db.session() as session:
        return str(session.execute(text("SELECT session_user")).scalar_one())


def test_what_was_borrowed_in_an_earlier_life_is_closed(settings: Settings, environment: Sandbox) -> None:
    """Its place is in a pool that is no more: kept there, its session would never end."""
    with ConnectionManager(settings) as db:
        borrowed = db.engine.connect()
        borrowed.execute(text("SELECT 1"))
    with db:
        borrowed.execute(text("SELECT 1"))
        borrowed.close()
        eventually(lambda: sessions(environment) == 0, "nothing is left, the start's own included")

    nothing_left(environment)


async def test_the_same_on_an_event_loop(settings: Settings, environment: Sandbox) -> None:
    """For asyncpg and Redis as well."""
    async with ConnectionManager(settings) as db:
        borrowed = await db.async_engine.connect()
        pubsub = db.async_redis.pubsub()
        await pubsub.subscribe("somewhere")
    async with db:
        await borrowed.execute(text("SELECT 1"))
        await borrowed.close()
        await pubsub.aclose()  # type: ignore[no-untyped-call] # untyped in redis-py
        await answers(db, db.async_engine)

    await asyncio.to_thread(nothing_left, environment)


def test_whoever_was_opening_it_before_does_not_disturb(environment: Sandbox) -> None:
    """Closed while it was being opened and opened again: the first opener fails, and closes nothing."""
    reading, go_on = threading.Event(), threading.Event()

    class SlowAtFirst(SecretsManagerSource):
        def fetch(self, stage: Any) -> Any:
            if not reading.is_set():
                reading.set()
                assert go_on.wait(60)
            return super().fetch(stage)

    source = SlowAtFirst(environment.database_secret_id, "PostgreSQL")
    db = ConnectionManager(Settings(redis_secret_id=None), database_source=source)
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
    with db:
        go_on.set()
        opening.join(60)
        assert "while it was being opened" in str(raised[0])
        assert user(db).startswith("ledger_app")


def test_a_service_may_be_tested_twice(settings: Settings, environment: Sandbox, test_client: Any) -> None:
    """Each TestClient has a loop and a lifespan of its own; the manager is the module's."""
    db, kept = ConnectionManager(settings), []

    @asynccontextmanager
    async def keep(app: FastAPI) -> AsyncIterator[None]:
        kept.append((db.engine, db.async_engine, db.redis, db.async_redis))
        yield

    app = FastAPI(lifespan=lifespan(db, then=keep))

    @app.get("/both")
    async def both(session: AsyncSessionDep) -> Any:
        await kept[0][3].ping()
        async with kept[0][1].connect() as connection:
            await connection.execute(text("SELECT 1"))
        return (await session.execute(text("SELECT 1"))).scalar_one()

    @app.get("/one")
    def one(session: SessionDep) -> Any:
        kept[0][2].ping()
        return session.execute(text("SELECT 1")).scalar_one()

    for _ in range(3):
        with test_client(app) as client:
            assert [client.get(path).json() for path in ("/both", "/one", "/both")] == [1, 1, 1]
        nothing_left(environment)
    assert kept == [kept[0]] * 3


def test_a_service_that_finds_it_open_may_be_tested_twice(settings: Settings, test_client: Any) -> None:
    """Whoever opened it closes it; the loops of the tests come and go meanwhile."""
    with ConnectionManager(settings) as db:
        app = FastAPI(lifespan=lifespan(db))

        @app.get("/")
        async def ask(session: AsyncSessionDep) -> Any:
            return (await session.execute(text("SELECT 1"))).scalar_one()

        for _ in range(3):
            with test_client(app) as client:
                assert client.get("/").json() == 1


def test_sqlite_opens_again() -> None:
    """In development as well; memory begins anew."""
    db = ConnectionManager(Settings(profile="test", database_url="sqlite://"))
    for _ in range(2):
        with db, db.begin() as session:
            session.execute(text("CREATE TABLE once (n int)"))
        with pytest.raises(ManagerClosed, match="closed"):
            db.engine.connect()


def test_a_second_life_has_the_threads_of_one(settings: Settings) -> None:
    """Nobody watches or listens twice."""

    def ours() -> list[str]:
        return sorted(each.name for each in threading.enumerate() if each.name.startswith("ledger_db-"))

    db = ConnectionManager(settings)
    seen = []
    for _ in range(3):
        with db:
            eventually(lambda: len(ours()) == 3, "two watchers and a listener")
            seen.append(ours())
        eventually(lambda: ours() == [], "none is left")

    assert seen == [seen[0]] * 3
