"""Is a row that is written under AUTOCOMMIT stored in a test as in production, and undone after it?"""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from ledger_db import ConfigurationError, ConnectionManager
from ledger_db.sandbox import Sandbox
from ledger_db.testing import async_isolated, isolated
from ledger_db.testing.home import Home
from ledger_db.testing.undone import Undone
from tests.support.own_databases import DATABASES, manager_on

INSERT = text("INSERT INTO alone_rows VALUES (:id)")
COUNT = text("SELECT count(*) FROM alone_rows")
AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}


@pytest.fixture(scope="module", params=DATABASES)
def db(
    box: Sandbox, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConnectionManager]:
    """An open manager and a table, for each driver."""
    with manager_on(request.param, box, tmp_path_factory.mktemp("sqlite")) as manager:
        with manager.begin() as session:
            session.execute(text("CREATE TABLE alone_rows (id int PRIMARY KEY)"))
        yield manager
        with manager.begin() as session:
            session.execute(text("DROP TABLE alone_rows"))


POSTGRES_ONLY = pytest.mark.parametrize("db", ["psycopg2 and asyncpg", "psycopg"], indirect=True)


def rows(engine: Engine) -> int:
    """Count what another session sees."""
    with engine.connect() as connection:
        return int(connection.execute(COUNT).scalar_one())


def test_a_row_is_stored_at_once(db: ConnectionManager) -> None:
    """Nobody has to commit it, no rollback takes it back, and it is gone after the test."""
    with isolated(db) as one:
        with one.engine.connect().execution_options(**AUTOCOMMIT) as connection:
            connection.execute(INSERT, {"id": 1})
            connection.rollback()
            connection.execute(INSERT, [{"id": 2}, {"id": 3}])
        with Session(one.engine.execution_options(**AUTOCOMMIT)) as session:
            session.execute(INSERT, {"id": 4})
            session.rollback()
        assert rows(one.engine) == 4

    assert rows(db.engine) == 0


async def test_a_row_is_stored_at_once_on_an_event_loop(db: ConnectionManager) -> None:
    """The asynchronous half stores it too."""
    async with async_isolated(db) as one:
        engine = one.async_engine.execution_options(**AUTOCOMMIT)
        async with engine.connect() as connection:
            await connection.execute(INSERT, {"id": 1})
            await connection.rollback()
        async with one.async_session() as session:
            assert (await session.execute(COUNT)).scalar_one() == 1

    assert rows(db.engine) == 0


def test_a_statement_that_fails_takes_back_itself_alone(db: ConnectionManager) -> None:
    """What was stored before stays, and the connection can be used, as in production."""
    with isolated(db) as one:
        with one.engine.connect().execution_options(**AUTOCOMMIT) as connection:
            connection.execute(INSERT, {"id": 1})
            with pytest.raises(IntegrityError):
                connection.execute(INSERT, {"id": 1})
            connection.execute(INSERT, {"id": 2})
        assert rows(one.engine) == 2


@POSTGRES_ONLY
def test_a_deferred_constraint_fails_with_the_statement(db: ConnectionManager) -> None:
    """There is no COMMIT that it could wait for."""
    with isolated(db) as one:
        with one.begin() as session:
            session.execute(
                text(
                    "CREATE TABLE alone_children (p int REFERENCES alone_rows DEFERRABLE INITIALLY DEFERRED)"
                )
            )
        with (
            one.engine.connect().execution_options(**AUTOCOMMIT) as connection,
            pytest.raises(IntegrityError),
        ):
            connection.execute(text("INSERT INTO alone_children VALUES (99)"))
        with one.session() as session:
            assert session.execute(text("SELECT count(*) FROM alone_children")).scalar_one() == 0


def test_a_write_inside_of_another_transaction_is_refused(db: ConnectionManager) -> None:
    """It would be undone with that one, which production does not do; a read is no matter."""
    with isolated(db) as one, one.session() as outer:
        outer.execute(COUNT)
        with one.engine.connect().execution_options(**AUTOCOMMIT) as connection:
            assert connection.execute(COUNT).scalar_one() == 0
            with pytest.raises(ConfigurationError, match="another transaction of this test is open"):
                connection.execute(INSERT, {"id": 1})
            outer.rollback()
            connection.execute(INSERT, {"id": 1})

        assert outer.execute(COUNT).scalar_one() == 1


@POSTGRES_ONLY
def test_what_postgresql_refuses_in_a_transaction_is_refused(db: ConnectionManager) -> None:
    """VACUUM hears of the transaction around it, and the test goes on."""
    with (
        isolated(db) as one,
        one.engine.connect().execution_options(**AUTOCOMMIT) as connection,
    ):
        with pytest.raises(DBAPIError, match="cannot run inside a transaction block"):
            connection.execute(text("VACUUM alone_rows"))
        connection.execute(INSERT, {"id": 1})


@pytest.mark.parametrize("given", ["isolation_level", "execution_options"])
@POSTGRES_ONLY
def test_an_engine_that_commits_each_statement_leaves_nothing_either(
    db: ConnectionManager, box: Sandbox, given: str
) -> None:
    """Whichever way all of an engine is set to AUTOCOMMIT, its rows are seen, and undone."""
    level: dict[str, Any] = AUTOCOMMIT if given == "isolation_level" else {given: AUTOCOMMIT}
    url = db.engine.url
    real = create_engine(url, creator=lambda: _connection_of(db), **level)
    undone = Undone(real, Home())
    for number in (1, 2):
        with undone.engine.connect() as connection:
            connection.execute(INSERT, {"id": number})
            connection.rollback()
    seen = rows(undone.engine)
    with undone.engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        connection.execute(INSERT, {"id": 3})
        connection.rollback()
    assert rows(undone.engine) == seen == 2
    undone.close()
    left = rows(real)
    with real.connect() as connection:
        connection.execute(INSERT, {"id": 1})
        connection.rollback()
        assert connection.execute(COUNT).scalar_one() == 1
        connection.execute(text("DELETE FROM alone_rows"))
    real.dispose()

    assert left == 0


def _connection_of(db: ConnectionManager) -> Any:
    """Open a connection of the driver's, which its pool does not know any more."""
    borrowed = db.engine.raw_connection()
    borrowed.detach()
    return borrowed.dbapi_connection
