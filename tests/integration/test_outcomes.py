"""Is every real error of a statement understood, the same on each driver?"""

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from ledger_db import Settings
from ledger_db.sandbox import Sandbox
from ledger_db.transactions.meaning import Meaning, constraint_of, meaning_of
from tests.support.any_driver import DRIVERS, Client, client_of, direct_settings
from tests.support.waiting import eventually

M = Meaning

TABLES = """
CREATE TABLE outcome_parent (
    id int PRIMARY KEY, n int NOT NULL CONSTRAINT positive CHECK (n > 0), s varchar(3), u int UNIQUE,
    during int4range, CONSTRAINT overlap EXCLUDE USING gist (during WITH &&)
);
CREATE TABLE outcome_child (
    now_id int CONSTRAINT fk_now REFERENCES outcome_parent,
    later_id int CONSTRAINT fk_later REFERENCES outcome_parent DEFERRABLE INITIALLY DEFERRED
);
INSERT INTO outcome_parent VALUES (1, 1, 'a', 1, '[1,5)'), (2, 2, 'b', 2, '[5,9)');
INSERT INTO outcome_child VALUES (1, 1);
GRANT ALL ON outcome_parent, outcome_child TO PUBLIC;
CREATE TABLE outcome_private (id int);
GRANT SET ON PARAMETER deadlock_timeout TO PUBLIC;
"""
NO_TABLES = """
DROP TABLE outcome_child, outcome_parent, outcome_private;
REVOKE SET ON PARAMETER deadlock_timeout FROM PUBLIC;
"""


@pytest.fixture(scope="module")
def admin(box: Sandbox) -> Iterator[Any]:
    """A superuser's connection to a database with the tables."""
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(TABLES)
        try:
            yield connection
        finally:
            cursor.execute(NO_TABLES)


@pytest.fixture
def client(driver: str, direct: Settings, admin: object) -> Iterator[Client]:
    """A manager on each of the drivers, with at most one connection."""
    few = {"pool_size": 1, "max_overflow": 0, "pool_timeout_seconds": 0.1}
    with client_of(driver, direct, **few) as client:
        yield client


def execute(connection: Any, statement: str, *values: object) -> None:
    """Run a statement as the superuser."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)


CASES = [
    ("INSERT INTO outcome_parent VALUES (1, 1)", M.DUPLICATE, "outcome_parent_pkey"),
    ("INSERT INTO outcome_parent VALUES (9, 1, 'a', 1)", M.DUPLICATE, "outcome_parent_u_key"),
    ("INSERT INTO outcome_parent VALUES (9, 1, 'a', 9, '[4,6)')", M.DUPLICATE, "overlap"),
    ("INSERT INTO outcome_child VALUES (99, NULL)", M.REFERENCE, "fk_now"),
    ("INSERT INTO outcome_child VALUES (NULL, 99)", M.REFERENCE, "fk_later"),
    ("DELETE FROM outcome_parent WHERE id = 1", M.REFERENCE, "fk_now"),
    ("INSERT INTO outcome_parent VALUES (9, NULL)", M.INVALID, None),
    ("INSERT INTO outcome_parent VALUES (9, 0)", M.INVALID, "positive"),
    ("INSERT INTO outcome_parent VALUES (9, 1, 'too long')", M.INVALID, None),
    ("SELECT 2147483647 + 1", M.INVALID, None),
    ("SELECT 'x'::int", M.INVALID, None),
    ("SELECT 1 / 0", M.INVALID, None),
    ("SELECT '2026-02-30'::date", M.INVALID, None),
    ("SELECT * FROM outcome_nowhere", M.FAULT, None),
    ("SELECT nothing FROM outcome_parent", M.FAULT, None),
    ("SELECT * FROM outcome_private", M.FAULT, None),
    ("SELEC 1", M.FAULT, None),
]


def test_what_the_server_says_of_a_statement(client: Client) -> None:
    """Constraints, values, missing tables: one meaning each, a deferred constraint's at COMMIT included."""

    def answer(statement: str) -> tuple[str, Meaning, str | None]:
        with pytest.raises(SQLAlchemyError) as caught:
            client.begin(lambda session: session.execute(text(statement)))
        return statement, meaning_of(caught.value), constraint_of(caught.value)

    assert [answer(statement) for statement, _, _ in CASES] == CASES


def test_a_value_that_the_driver_itself_refuses_is_invalid(client: Client) -> None:
    """A number that is too big for its column is bad input, whether the driver or the server finds out."""
    query = text("SELECT id FROM outcome_parent WHERE id = CAST(:id AS integer)")
    with pytest.raises(SQLAlchemyError) as caught:
        client.begin(lambda session: session.execute(query, {"id": 2**80}))

    assert meaning_of(caught.value) is M.INVALID


def test_a_statement_that_takes_too_long_has_timed_out(client: Client) -> None:
    """It is told from a lost connection: only the statement was cancelled."""
    with pytest.raises(SQLAlchemyError) as caught:
        client.begin(
            lambda session: session.execute(text("SELECT pg_sleep(9)")), statement_timeout_seconds=0.05
        )

    assert meaning_of(caught.value) is M.TIMED_OUT


def test_a_write_in_a_read_only_transaction_is_refused(client: Client) -> None:
    """What a failover to a replica does too."""
    with pytest.raises(SQLAlchemyError) as caught:
        client.begin(lambda session: session.execute(text("DELETE FROM outcome_child")), read_only=True)

    assert meaning_of(caught.value) is M.READ_ONLY


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM outcome_parent WHERE id = 2 FOR UPDATE NOWAIT",
        "SET LOCAL lock_timeout = 20; UPDATE outcome_parent SET n = 9 WHERE id = 2",
    ],
)
def test_a_lock_that_somebody_else_holds(client: Client, admin: Any, statement: str) -> None:
    """Not waiting for it and waiting in vain are the same."""

    def take(session: Session) -> None:
        for part in statement.split(";"):
            session.execute(text(part))

    execute(admin, "BEGIN")
    try:
        execute(admin, "SELECT * FROM outcome_parent WHERE id = 2 FOR UPDATE")
        with pytest.raises(SQLAlchemyError) as caught:
            client.begin(take)
    finally:
        execute(admin, "ROLLBACK")

    assert meaning_of(caught.value) is M.LOCKED


def test_a_transaction_that_cannot_be_serialized_is_in_conflict(client: Client, admin: Any) -> None:
    """Somebody has changed what this one has read."""

    def read_then_write(session: Session) -> None:
        session.execute(text("SELECT n FROM outcome_parent WHERE id = 2")).all()
        execute(admin, "UPDATE outcome_parent SET n = n + 1 WHERE id = 2")
        session.execute(text("UPDATE outcome_parent SET n = n + 1 WHERE id = 2"))

    with pytest.raises(SQLAlchemyError) as caught:
        client.begin(read_then_write, isolation_level="REPEATABLE READ")

    assert meaning_of(caught.value) is M.CONFLICT


def test_the_victim_of_a_deadlock_is_in_conflict(client: Client, box: Sandbox, admin: Any) -> None:
    """Two wait for each other; the one that PostgreSQL ends may try again."""
    with closing(box.postgres.connect()) as other:
        execute(other, "SET deadlock_timeout = '1h'")
        waiter = threading.Thread(
            target=execute, args=(other, "UPDATE outcome_parent SET n = 7 WHERE id = 1"), daemon=True
        )
        pid = other.get_backend_pid()

        def meet(session: Session) -> None:
            session.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
            session.execute(text("UPDATE outcome_parent SET n = 8 WHERE id = 1"))
            execute(other, "BEGIN")
            execute(other, "UPDATE outcome_parent SET n = 7 WHERE id = 2")
            waiter.start()
            eventually(lambda: is_waiting(admin, pid), "the other one waits for the row")
            session.execute(text("UPDATE outcome_parent SET n = 8 WHERE id = 2"))

        with pytest.raises(SQLAlchemyError) as caught:
            client.begin(meet)
        waiter.join()
        execute(other, "ROLLBACK")

    assert meaning_of(caught.value) is M.CONFLICT


def is_waiting(admin: Any, pid: int) -> bool:
    """Say whether a server process waits for a lock."""
    with admin.cursor() as cursor:
        cursor.execute("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", (pid,))
        return bool(cursor.fetchone()[0])


def test_a_connection_that_is_killed_while_idle_is_lost(client: Client, admin: Any) -> None:
    """The next statement says so, and the transaction is gone with the connection."""

    def be_killed(session: Session) -> None:
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        execute(admin, "SELECT pg_terminate_backend(%s, 5000)", pid)
        session.execute(text("SELECT 1"))

    with pytest.raises(SQLAlchemyError) as caught:
        client.begin(be_killed)

    assert meaning_of(caught.value) is M.LOST
    assert client.begin(lambda session: session.execute(text("SELECT 1")).scalar_one()) == 1


def test_a_connection_that_is_killed_in_a_statement_is_lost(client: Client, admin: Any, box: Sandbox) -> None:
    """Nobody waits for an answer that will not come."""
    pids: list[int] = []

    def kill() -> None:
        eventually(lambda: bool(pids) and is_asleep(admin, pids[0]), "the statement runs")
        execute(admin, "SELECT pg_terminate_backend(%s)", pids[0])

    def sleep(session: Session) -> None:
        pids.append(session.execute(text("SELECT pg_backend_pid()")).scalar_one())
        session.execute(text("SELECT pg_sleep(30)"))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(SQLAlchemyError) as caught:
        client.begin(sleep)
    killer.join()

    assert meaning_of(caught.value) is M.LOST


def is_asleep(admin: Any, pid: int) -> bool:
    """Say whether a server process is inside of pg_sleep."""
    with admin.cursor() as cursor:
        cursor.execute("SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = %s", (pid,))
        return bool(cursor.fetchone()[0])


def test_a_pool_without_a_free_connection_is_saturated(client: Client) -> None:
    """The server is fine, and was not asked."""

    def hold(session: Session) -> None:
        session.execute(text("SELECT 1"))
        pool = session.get_bind().engine.pool
        pool.connect().close()

    with pytest.raises(SQLAlchemyError) as caught:
        client.begin(hold)

    assert meaning_of(caught.value) is M.SATURATED


def test_a_server_that_crashes_is_lost_and_then_unavailable() -> None:
    """First the connections break, then none can be made; both heal by themselves."""
    with Sandbox() as own:
        for driver in DRIVERS:
            with client_of(driver, direct_settings(own)) as client:

                def crash(session: Session) -> None:
                    session.execute(text("SELECT 1"))
                    own.postgres.kill()
                    session.execute(text("SELECT 1"))

                with pytest.raises(SQLAlchemyError) as lost:
                    client.begin(crash)
                with pytest.raises(OperationalError) as unavailable:
                    client.begin(lambda session: session.execute(text("SELECT 1")))
                own.postgres.start()

                assert meaning_of(lost.value) is M.LOST, driver
                assert meaning_of(unavailable.value) is M.UNAVAILABLE, driver
                assert client.begin(lambda session: session.execute(text("SELECT 1")).scalar_one()) == 1
