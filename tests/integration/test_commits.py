"""
Is a COMMIT that was a rollback told, on every driver, whatever has failed and whoever has caught it?

The tables are `FAILURES` and `ENDINGS`, driver by way; the result is the same in each cell: nothing is
stored, `PendingRollbackError` says so, and the same connection does the next transaction.
"""

from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.orm import Session

from ledger_db import Settings
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import DRIVERS, Client, client_of
from tests.support.idle_sessions import pid
from tests.support.pgbouncer import pgbouncer
from tests.support.undoing import ENDINGS, FAILURES, INSERT, caught, driver_of, endings_of, wait

ONE_CONNECTION = {"pool_size": 1, "max_overflow": 0}


@pytest.fixture(scope="module")
def admin(box: Sandbox) -> Iterator[Any]:
    """A superuser's cursor, in a database with an empty table."""
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE undone_rows (id int PRIMARY KEY); GRANT ALL ON undone_rows TO PUBLIC")
        try:
            yield cursor
        finally:
            cursor.execute("DROP TABLE undone_rows")


@pytest.fixture
def client(driver: str, direct: Settings, admin: object) -> Iterator[Client]:
    """A manager on each of the drivers, with one connection: the next borrower gets the last one's."""
    with client_of(driver, direct, **ONE_CONNECTION) as client:
        yield client


def rows(admin: Any) -> int:
    """Count what is committed."""
    admin.execute("SELECT count(*) FROM undone_rows")
    return int(admin.fetchone()[0])


def engine_of(session: Session) -> Engine:
    """Return the engine, of which the session has not used a connection yet."""
    engine = session.get_bind()
    assert isinstance(engine, Engine)
    return engine


@pytest.mark.parametrize(("driver", "way"), [(driver, way) for driver in DRIVERS for way in FAILURES[driver]])
def test_whatever_fails_on_the_drivers_own_connection_is_told(
    client: Client, admin: Any, driver: str, way: str
) -> None:
    """SQLAlchemy has heard nothing of it, and its error was caught: nobody hears of success."""
    before = client.begin(pid)
    for attempt in (client.begin, client.run):
        with pytest.raises(PendingRollbackError, match="savepoint"):
            attempt(caught(FAILURES[driver][way]))

    assert rows(admin) == 0
    assert client.begin(pid) == before


@pytest.mark.parametrize(
    ("driver", "way"), [(driver, way) for driver in DRIVERS for way in endings_of(driver)]
)
def test_every_way_to_commit_is_told_about(client: Client, admin: Any, driver: str, way: str) -> None:
    """Also those that SQLAlchemy has no part in."""
    before = client.begin(pid)
    with pytest.raises(PendingRollbackError, match="nothing of it is committed"):
        client.session(lambda session: ENDINGS[way](engine_of(session)))

    assert rows(admin) == 0
    assert client.begin(pid) == before


def test_a_pipeline_that_has_failed_is_told_at_the_end_of_its_transaction(
    direct: Settings, admin: Any
) -> None:
    """psycopg's transaction would commit what the server has not even looked at."""

    def careless(session: Session) -> None:
        driver = driver_of(session.connection())
        with driver.pipeline(), driver.transaction():
            driver.execute(INSERT)
            with pytest.raises(Exception, match="division by zero"):
                driver.execute("SELECT 1 / 0").fetchall()

    with client_of("psycopg", direct, **ONE_CONNECTION) as client:
        with pytest.raises(PendingRollbackError):
            client.session(careless)
        assert rows(admin) == 0
        assert client.begin(lambda session: session.scalar(text("SELECT 1"))) == 1


def test_it_is_told_behind_a_pooler(box: Sandbox, direct: Settings, driver: str, admin: Any) -> None:
    """What answers COMMIT is the server, through whatever stands before it."""
    with pgbouncer(box, "transaction") as pooler:
        settings = {"database_port": pooler.port, "pooler": "transaction"}
        with client_of(driver, direct, **ONE_CONNECTION, **settings) as client:
            for way in ("execute", "executemany"):
                with pytest.raises(PendingRollbackError):
                    client.begin(caught(FAILURES[driver][way]))
            for way, end in endings_of(driver).items():
                with pytest.raises(PendingRollbackError):
                    client.session(lambda session: end(engine_of(session)))  # noqa: B023
                assert rows(admin) == 0, way


def test_a_rollback_that_was_asked_for_is_none_of_these(client: Client, driver: str, admin: Any) -> None:
    """Each driver's own, and one that is written out."""

    def roll_back(session: Session) -> None:
        connection = session.connection()
        raw = driver_of(connection)
        connection.execute(text(INSERT))
        wait((raw if hasattr(raw, "execute") else raw.cursor()).execute("ROLLBACK"))
        connection.execute(text("rollback"))

    client.begin(roll_back)

    assert rows(admin) == 0


def test_what_is_good_is_stored_by_every_way(
    client: Client, driver: str, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is refused for the way that it takes."""
    monkeypatch.setattr("tests.support.undoing.WRONG", "SELECT 1")
    for way, end in endings_of(driver).items():
        if "words" in way or way == "text":
            continue  # these commit twice
        client.session(lambda session: end(engine_of(session)))  # noqa: B023

        assert rows(admin) == 1, way
        admin.execute("DELETE FROM undone_rows")


# Not psycopg on a loop: SQLAlchemy leaves a connection of it open that was detached.
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "asyncpg"])
def test_a_detached_connection_is_told_the_same(client: Client, driver: str, admin: Any) -> None:
    """The pool knows it no longer, as that of a migration which must not be lent again."""

    def work(session: Session) -> None:
        with engine_of(session).connect() as connection:
            connection.detach()
            with pytest.raises(PendingRollbackError), connection.begin():
                connection.execute(text(INSERT))
                with suppress(DBAPIError):
                    connection.execute(text("SELECT 1/0"))
            with connection.begin():
                connection.execute(text(INSERT))

    client.session(work)

    assert rows(admin) == 1
    admin.execute("DELETE FROM undone_rows")
