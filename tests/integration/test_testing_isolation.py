"""Is nothing left of a test, and is what the test sees what production would have shown?"""

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ledger_db import ConfigurationError, ConnectionManager, Settings
from ledger_db.sandbox import Sandbox
from ledger_db.testing import Faults, async_isolated, isolated
from ledger_db.transactions.meaning import Meaning, meaning_of
from tests.support.own_databases import DATABASES, manager_on

TABLES = {
    "isolated_parent": "(id int PRIMARY KEY)",
    "isolated_child": "(parent int REFERENCES isolated_parent DEFERRABLE INITIALLY DEFERRED)",
    "isolated_sibling": "(parent int REFERENCES isolated_parent DEFERRABLE INITIALLY IMMEDIATE)",
}
INSERT = text("INSERT INTO isolated_parent VALUES (:id)")
INSERT_ORPHAN = text("INSERT INTO isolated_child VALUES (99)")
INSERT_ORPHAN_AT_ONCE = text("INSERT INTO isolated_sibling VALUES (99)")
COUNT = text("SELECT count(*) FROM isolated_parent")


def make_tables(manager: ConnectionManager) -> None:
    """Make the tables that the tests use."""
    drop_tables(manager)
    with manager.begin() as session:
        for name, columns in TABLES.items():
            session.execute(text(f"CREATE TABLE {name} {columns}"))


def drop_tables(manager: ConnectionManager) -> None:
    """Drop them again."""
    with manager.begin() as session:
        for name in reversed(TABLES):
            session.execute(text(f"DROP TABLE IF EXISTS {name}"))


@pytest.fixture(scope="module", params=DATABASES)
def db(
    box: Sandbox, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConnectionManager]:
    """An open manager and three tables, for each driver.  Opened on no event loop, as that of the plugin."""
    with manager_on(request.param, box, tmp_path_factory.mktemp("sqlite")) as manager:
        make_tables(manager)
        yield manager
        drop_tables(manager)


POSTGRES_ONLY = pytest.mark.parametrize("db", ["psycopg2 and asyncpg", "psycopg"], indirect=True)


def count(session: Session) -> int:
    """Count the parents."""
    return int(session.execute(COUNT).scalar_one())


async def count_async(session: AsyncSession) -> int:
    """Count the parents, on an event loop."""
    return int((await session.execute(COUNT)).scalar_one())


def insert_four(session: Session) -> None:
    """Work for `run`."""
    session.execute(INSERT, {"id": 4})


def left_behind(db: ConnectionManager) -> int:
    """Count what is really there."""
    with db.session() as session:
        return count(session)


def test_what_is_committed_is_seen_and_then_gone(db: ConnectionManager) -> None:
    """Every way to commit works in a test, and none of it is there after it."""
    with isolated(db) as one:
        with one.session() as session:
            session.execute(INSERT, {"id": 1})
            session.commit()
            session.execute(INSERT, {"id": 2})
        with one.begin() as session:
            session.execute(INSERT, {"id": 3})
        one.run(insert_four)
        with one.engine.begin() as connection:
            connection.execute(INSERT, {"id": 5})
        with one.session() as session:
            assert session.execute(text("SELECT id FROM isolated_parent ORDER BY id")).scalars().all() == [
                1,
                3,
                4,
                5,
            ]

    assert left_behind(db) == 0


async def test_the_same_on_an_event_loop(db: ConnectionManager) -> None:
    """Every way to commit works in an asynchronous test too, and nothing is left."""

    async def work(session: AsyncSession) -> None:
        await session.execute(INSERT, {"id": 4})

    async with async_isolated(db) as one:
        async with one.async_session() as session:
            await session.execute(INSERT, {"id": 1})
            await session.commit()
            await session.execute(INSERT, {"id": 2})
        async with one.async_begin() as session:
            await session.execute(INSERT, {"id": 3})
        await one.async_run(work)
        async with one.async_engine.begin() as connection:
            await connection.execute(INSERT, {"id": 5})
        async with one.async_session() as session:
            assert await count_async(session) == 4
    async with db.async_session() as session:
        assert await count_async(session) == 0


def test_a_rollback_takes_back_its_own_transaction_and_no_other(db: ConnectionManager) -> None:
    """What was committed before stays, after an error, a rollback, and one to a savepoint."""
    with isolated(db) as one, one.session() as session:
        session.execute(INSERT, {"id": 1})
        session.commit()
        with pytest.raises(IntegrityError) as duplicate:
            session.execute(INSERT, {"id": 1})
        session.rollback()
        session.execute(INSERT, {"id": 2})
        session.rollback()
        session.execute(INSERT, {"id": 3})
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            session.execute(INSERT, {"id": 4})
            raise ZeroDivisionError
        session.commit()
        session.rollback()

        assert meaning_of(duplicate.value) is Meaning.DUPLICATE
        assert session.execute(text("SELECT id FROM isolated_parent")).scalars().all() == [1, 3]


async def test_a_rollback_on_an_event_loop(db: ConnectionManager) -> None:
    """The asynchronous half takes back the same."""
    async with async_isolated(db) as one, one.async_session() as session:
        await session.execute(INSERT, {"id": 1})
        await session.commit()
        with pytest.raises(IntegrityError):
            await session.execute(INSERT, {"id": 1})
        await session.rollback()
        with pytest.raises(ZeroDivisionError):
            async with session.begin_nested():
                await session.execute(INSERT, {"id": 2})
                raise ZeroDivisionError
        await session.commit()

        assert await count_async(session) == 1


def test_a_deferred_constraint_fails_where_commit_would(db: ConnectionManager) -> None:
    """A test sees the error that the service's COMMIT would meet, and none of that transaction's rows."""
    with isolated(db) as one:
        with pytest.raises(IntegrityError) as refused, one.begin() as session:
            session.execute(INSERT, {"id": 1})
            session.execute(INSERT_ORPHAN)
        with one.begin() as session:
            session.execute(INSERT_ORPHAN)
            session.execute(INSERT, {"id": 99})

        with one.session() as session:
            assert meaning_of(refused.value) is Meaning.REFERENCE
            assert count(session) == 1


async def test_a_deferred_constraint_on_an_event_loop(db: ConnectionManager) -> None:
    """The asynchronous half fails there too."""
    async with async_isolated(db) as one:
        with pytest.raises(IntegrityError) as refused:
            async with one.async_begin() as session:
                await session.execute(INSERT, {"id": 1})
                await session.execute(INSERT_ORPHAN)
        async with one.async_session() as session:
            assert meaning_of(refused.value) is Meaning.REFERENCE
            assert await count_async(session) == 0


def test_constraints_are_deferred_again_after_a_commit(db: ConnectionManager) -> None:
    """The second transaction may be inconsistent for a while, as the first; what is not deferred may not."""
    with isolated(db) as one:
        for id_ in (98, 99):
            with one.begin() as session:
                session.execute(text("INSERT INTO isolated_child VALUES (:id)"), {"id": id_})
                session.execute(INSERT, {"id": id_})
        with pytest.raises(IntegrityError), one.session() as session:
            session.execute(text("DELETE FROM isolated_child"))
            session.execute(text("DELETE FROM isolated_parent"))
            session.execute(INSERT_ORPHAN_AT_ONCE)


@POSTGRES_ONLY
def test_what_a_transaction_defers_by_itself_is_forgotten_by_the_next(db: ConnectionManager) -> None:
    """SET CONSTRAINTS ends with the transaction that said it."""
    with isolated(db) as one:
        with one.begin() as session:
            session.execute(text("SET CONSTRAINTS ALL DEFERRED"))
            session.execute(INSERT_ORPHAN_AT_ONCE)
            session.execute(INSERT, {"id": 99})
        with pytest.raises(IntegrityError), one.session() as session:
            session.execute(text("INSERT INTO isolated_sibling VALUES (100)"))


def test_read_only_sessions_refuse_writes_and_the_next_one_does_not(db: ConnectionManager) -> None:
    """An option of one session holds for that one, whether it is committed or not."""
    with isolated(db) as one:
        with pytest.raises(DBAPIError) as refused, one.begin(read_only=True) as session:
            session.execute(INSERT, {"id": 1})
        with one.begin(read_only=True) as session:
            assert count(session) == 0
        with one.begin() as session:
            session.execute(INSERT, {"id": 1})
        with one.begin(read_only=True) as session:
            assert count(session) == 1

    assert meaning_of(refused.value) is Meaning.READ_ONLY


async def test_read_only_sessions_on_an_event_loop(db: ConnectionManager) -> None:
    """The asynchronous half refuses writes too, and only then."""
    async with async_isolated(db) as one:
        with pytest.raises(DBAPIError) as refused:
            async with one.async_begin(read_only=True) as session:
                await session.execute(INSERT, {"id": 1})
        async with one.async_begin(read_only=True) as session:
            assert await count_async(session) == 0
        async with one.async_begin() as session:
            await session.execute(INSERT, {"id": 1})

    assert meaning_of(refused.value) is Meaning.READ_ONLY


@POSTGRES_ONLY
def test_a_time_limit_holds_for_its_session_only(db: ConnectionManager) -> None:
    """A slow statement is cancelled, in the second transaction too, and the next session has no limit."""
    with isolated(db) as one:
        with one.session(statement_timeout_seconds=0.1) as session:
            session.commit()
            with pytest.raises(DBAPIError) as cancelled:
                session.execute(text("SELECT pg_sleep(30)"))
            session.rollback()
            session.execute(INSERT, {"id": 1})
            session.commit()
        with one.session() as session:
            limit = session.execute(text("SHOW statement_timeout")).scalar_one()

    assert meaning_of(cancelled.value) is Meaning.TIMED_OUT
    assert limit == "0"


def test_an_engine_knows_its_server(environment: Sandbox) -> None:
    """What asks for the version or the schema is answered, though the real engine was never used before."""

    async def look(db: ConnectionManager) -> None:
        async with async_isolated(db) as one, one.async_engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

            assert one.async_engine.dialect.server_version_info
            assert one.async_engine.dialect.default_schema_name == "public"

    with ConnectionManager(Settings(profile="test", redis_secret_id=None)) as db:
        asyncio.run(look(db))


def test_every_isolation_level_may_be_asked_for(db: ConnectionManager) -> None:
    """Code that wants SERIALIZABLE runs in a test as it is."""
    with isolated(db) as one:
        with one.begin(isolation_level="SERIALIZABLE") as session:
            session.execute(INSERT, {"id": 1})
        with one.begin(isolation_level="REPEATABLE READ", read_only=True) as session:
            assert count(session) == 1


def test_transactions_that_overlap_are_told_so(db: ConnectionManager) -> None:
    """Two at once cannot be had on one connection: the test hears that, not a riddle about savepoints."""
    with isolated(db) as one, one.session() as first, one.session() as second:
        first.execute(INSERT, {"id": 1})
        second.execute(INSERT, {"id": 2})
        with pytest.raises(ConfigurationError, match="overlap"):
            first.commit()


def test_a_rollback_around_another_transaction_is_told_to_that_one(db: ConnectionManager) -> None:
    """A transaction that was undone with the one around it cannot be taken for committed."""
    with isolated(db) as one, one.session() as outer, one.session() as inner:
        outer.execute(INSERT, {"id": 1})
        inner.execute(INSERT, {"id": 2})
        outer.rollback()
        with pytest.raises(ConfigurationError, match="overlap"):
            inner.commit()
        inner.rollback()

        assert count(outer) == 0


def test_one_transaction_inside_another_is_fine(db: ConnectionManager) -> None:
    """A test whose own session is in the middle of a transaction can call the code that it tests."""
    with isolated(db) as one, one.session() as outer:
        outer.execute(INSERT, {"id": 1})
        with one.begin() as inner:
            inner.execute(INSERT, {"id": 2})
        with pytest.raises(ZeroDivisionError), one.begin() as inner:
            inner.execute(INSERT, {"id": 3})
            raise ZeroDivisionError
        outer.commit()

        assert count(outer) == 2


@POSTGRES_ONLY
def test_a_test_may_cut_its_own_connection(db: ConnectionManager, box: Sandbox) -> None:
    """The error is seen where it happens; the end of the test is not a second one, and nothing is left."""
    with isolated(db) as one, one.session() as session:
        session.execute(INSERT, {"id": 1})
        Faults(box).postgres.kill_sessions()
        with pytest.raises(DBAPIError) as lost:
            session.execute(COUNT)

    assert meaning_of(lost.value) is Meaning.LOST
    assert left_behind(db) == 0


@POSTGRES_ONLY
def test_a_connection_that_is_cut_unnoticed_is_no_error(db: ConnectionManager, box: Sandbox) -> None:
    """A test that did not look at the database again passes."""
    with isolated(db) as one:
        with one.begin() as session:
            session.execute(INSERT, {"id": 1})
        Faults(box).postgres.kill_sessions()

    assert left_behind(db) == 0


@POSTGRES_ONLY
async def test_a_connection_that_is_cut_on_an_event_loop(db: ConnectionManager, box: Sandbox) -> None:
    """The asynchronous half too survives what a test does to its connection, seen or unseen."""
    async with async_isolated(db) as one:
        async with one.async_begin() as session:
            await session.execute(INSERT, {"id": 1})
        await asyncio.to_thread(Faults(box).postgres.kill_sessions)
    async with async_isolated(db) as one, one.async_session() as session:
        await session.execute(INSERT, {"id": 1})
        await asyncio.to_thread(Faults(box).postgres.kill_sessions)
        with pytest.raises(DBAPIError) as lost:
            await session.execute(COUNT)

    assert meaning_of(lost.value) is Meaning.LOST


@pytest.mark.parametrize("drivers", ["psycopg2 and asyncpg", "psycopg"])
async def test_a_connection_that_was_cut_does_not_go_back_to_the_pool(
    environment: Sandbox, drivers: str
) -> None:
    """Where connections are pooled, the next test does not get a broken one."""
    settings = Settings(redis_secret_id=None, **DATABASES[drivers])
    async with ConnectionManager(settings) as db:
        async with async_isolated(db) as one:
            with one.engine.begin() as connection:
                connection.execute(text("SELECT 1"))
            async with one.async_engine.begin() as connection_on_loop:
                await connection_on_loop.execute(text("SELECT 1"))
            await asyncio.to_thread(Faults(environment).postgres.kill_sessions)
        with db.session() as session:
            assert session.execute(text("SELECT 1")).scalar_one() == 1
        async with db.async_session() as session_on_loop:
            assert (await session_on_loop.execute(text("SELECT 1"))).scalar_one() == 1


@POSTGRES_ONLY
def test_only_one_connection_is_used_and_it_is_given_back(db: ConnectionManager) -> None:
    """However many sessions a test opens, the server sees one connection, and none after it."""
    backends = text("SELECT pg_backend_pid()")
    with isolated(db) as one:
        seen = set()
        for _ in range(3):
            with one.session() as session:
                seen.add(session.execute(backends).scalar_one())
    with db.session() as session:
        alive = session.execute(
            text("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(:seen)"), {"seen": list(seen)}
        ).scalar_one()

    assert len(seen) == 1
    assert alive == 0


def test_a_manager_whose_test_is_over_says_so(db: ConnectionManager) -> None:
    """Code that keeps the manager of one test cannot write for real in the next one."""
    with isolated(db) as one:
        pass
    with pytest.raises(ConfigurationError, match="over"):
        one.session()


def test_without_an_event_loop_the_asynchronous_half_is_closed(db: ConnectionManager) -> None:
    """Code that goes around the isolation by the other engine hears what to ask for."""
    with isolated(db) as one, pytest.raises(ConfigurationError, match="ledger_db_async_isolated"):
        one.async_session()


def test_an_isolated_manager_is_closed_by_who_opened_it(db: ConnectionManager) -> None:
    """Code under test that closes its manager does not close everybody's."""
    with isolated(db) as one:
        one.close()
        with one.session() as session:
            assert count(session) == 0

    assert db.health().ok


def test_redis_works_on_one_event_loop_after_the_other(environment: Sandbox) -> None:
    """Each test has a client of its own, because a connection belongs to the loop that opened it."""

    async def ping(db: ConnectionManager) -> bool:
        async with async_isolated(db) as one:
            return bool(await one.async_redis.ping())

    with ConnectionManager(Settings(profile="test")) as db:
        assert [asyncio.run(ping(db)) for _ in range(2)] == [True, True]
