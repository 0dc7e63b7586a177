"""Can the code under test end the transaction of its test, so that a write of it stays?"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.util import greenlet_spawn

from ledger_db import ConfigurationError, ConnectionManager
from ledger_db.sandbox import Sandbox
from ledger_db.testing import IsolatedManager, async_isolated, isolated
from tests.support.own_databases import DATABASES, manager_on

INSERT = text("INSERT INTO ended_rows VALUES (1)")
COUNT = text("SELECT count(*) FROM ended_rows")


@pytest.fixture(scope="module", params=DATABASES)
def db(
    box: Sandbox, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConnectionManager]:
    """An open manager and a table, for each driver."""
    with manager_on(request.param, box, tmp_path_factory.mktemp("sqlite")) as manager:
        with manager.begin() as session:
            session.execute(text("CREATE TABLE ended_rows (id int)"))
        yield manager
        with manager.begin() as session:
            session.execute(text("DROP TABLE ended_rows"))


SERVERS = pytest.mark.parametrize("db", ["psycopg2 and asyncpg", "psycopg"], indirect=True)


def rows(db: ConnectionManager) -> Any:
    """Count what can be seen."""
    with db.session() as session:
        return session.execute(COUNT).scalar_one()


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "commit and chain",
        " -- stored\n/* for good */ END",
        "ROLLBACK",
        "ABORT WORK",
        "BEGIN; INSERT INTO ended_rows VALUES (2); COMMIT",
        "START TRANSACTION",
        "PREPARE TRANSACTION 'one'",
    ],
)
def test_a_transaction_is_not_ended_in_sql(db: ConnectionManager, statement: str) -> None:
    """A migration that writes COMMIT itself, as many do before ALTER TYPE, does not commit the test."""
    with isolated(db) as one:
        with one.engine.connect() as connection:
            connection.execute(INSERT)
            with pytest.raises(ConfigurationError, match="ledger_db_manager"):
                connection.execute(text(statement))
            connection.commit()
        assert rows(one) == 1

    assert rows(db) == 0


async def test_a_transaction_is_not_ended_in_sql_on_an_event_loop(db: ConnectionManager) -> None:
    """The same on asyncpg and psycopg, asynchronously."""
    async with async_isolated(db) as one, one.async_engine.begin() as connection:
        await connection.execute(INSERT)
        with pytest.raises(ConfigurationError, match="ledger_db_manager"):
            await connection.execute(text("COMMIT"))

    assert rows(db) == 0


def test_savepoints_that_are_written_out_are_left_alone(db: ConnectionManager) -> None:
    """ROLLBACK TO ends no transaction."""
    with isolated(db) as one:
        with one.engine.begin() as connection:
            connection.execute(text("SAVEPOINT own"))
            connection.execute(INSERT)
            connection.execute(text("ROLLBACK TO SAVEPOINT own"))
            connection.execute(text("ROLLBACK TRANSACTION TO own"))
        assert rows(one) == 0


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_raw_connection_does_not_end_it(db: ConnectionManager, end: str) -> None:
    """Who loads rows with a driver's own cursor, and commits them there, hears that it would be for good."""
    with isolated(db) as one:
        raw = one.engine.raw_connection()
        cursor = raw.cursor()
        cursor.execute(INSERT.text)
        cursor.close()
        with pytest.raises(ConfigurationError, match="ledger_db_manager"):
            getattr(raw, end)()
        raw.close()
        assert rows(one) == 1

    assert rows(db) == 0


def test_who_ends_it_on_the_driver_s_own_connection_is_told_at_the_end(db: ConnectionManager) -> None:
    """A write that stays in spite of everything is not found by another test, but by the one that made it."""
    with isolated(db) as one:
        raw: Any = one.engine.raw_connection()
        raw.driver_connection.cursor().execute(INSERT.text)
        raw.driver_connection.commit()
        raw.close()
        with pytest.raises(ConfigurationError, match="stays; clean up"):
            one.undo()

    with db.begin() as session:
        session.execute(text("DELETE FROM ended_rows"))


async def test_the_same_is_told_on_an_event_loop(db: ConnectionManager) -> None:
    """As `test_who_ends_it_on_the_driver_s_own_connection_is_told_at_the_end`."""
    with isolated(db) as one:
        one.async_isolate(asyncio.get_running_loop())
        raw: Any = await one.async_engine.raw_connection()
        await raw.driver_connection.execute("COMMIT")
        await greenlet_spawn(raw.close)
        with pytest.raises(ConfigurationError, match="stays; clean up"):
            await one.async_undo()


@SERVERS
async def test_two_that_come_first_have_one_connection(db: ConnectionManager) -> None:
    """A test whose first two requests come at once leaves no transaction that locks its rows for ever."""
    async with async_isolated(db) as one:
        await asyncio.gather(borrowed(one), borrowed(one))

    assert sessions(db) == 1


@SERVERS
def test_two_threads_that_come_first_have_one_connection(db: ConnectionManager) -> None:
    """The same in threads."""
    with isolated(db) as one:
        with ThreadPoolExecutor(2) as pool:
            raw = list(pool.map(lambda _: one.engine.raw_connection(), range(2)))
        for each in raw:
            each.close()
        assert sessions(db) == 2  # that of the test, and who asks

    assert sessions(db) == 1


async def borrowed(one: IsolatedManager) -> None:
    """Borrow a connection, and give it back."""
    raw = await one.async_engine.raw_connection()
    await greenlet_spawn(raw.close)


def sessions(db: ConnectionManager) -> Any:
    """Count the sessions of this database, the one that asks included."""
    with db.session() as session:
        return session.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE usename = session_user"))
