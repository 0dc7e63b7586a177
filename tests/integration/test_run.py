"""Does a transaction that met an accident happen exactly once, or say that nobody knows?"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from ledger_db import ConnectionManager, Settings
from ledger_db.errors import OutcomeUnknown, RetriesExhausted
from ledger_db.sandbox import Sandbox
from ledger_db.transactions.tally import TransactionCounters
from tests.support.any_driver import Client, client_of, direct_settings
from tests.support.commit_cutter import CommitCutter, Cut
from tests.support.waiting import eventually

TABLE = """
CREATE TABLE run_counters (id int PRIMARY KEY, n int NOT NULL);
INSERT INTO run_counters VALUES (1, 0), (2, 0);
GRANT ALL ON run_counters TO PUBLIC;
"""
WORKERS, TIMES = 8, 40


class Base(DeclarativeBase):
    """The tables of this module."""


class Counter(Base):
    """A number that is read and written."""

    __tablename__ = "run_counters"

    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]


@pytest.fixture
def admin(box: Sandbox) -> Iterator[Any]:
    """A superuser's cursor, in a database with two counters."""
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(TABLE)
        try:
            yield cursor
        finally:
            cursor.execute("DROP TABLE run_counters")


@pytest.fixture
def client(driver: str, direct: Settings, admin: object) -> Iterator[Client]:
    """A manager on each of the drivers."""
    with client_of(driver, direct) as client:
        yield client


@pytest.fixture(params=["psycopg2", "asyncpg"])
def any_client(request: pytest.FixtureRequest, direct: Settings, admin: object) -> Iterator[Client]:
    """Same as *client*, on a thread and on a loop: where no driver makes a difference."""
    with client_of(request.param, direct) as client:
        yield client


@pytest.fixture
def far_client(driver: str, direct: Settings, admin: object, cutter: CommitCutter) -> Iterator[Client]:
    """Same as *client*, behind the proxy."""
    with client_of(driver, direct, database_port=cutter.port) as client:
        yield client


def count(admin: Any, key: int = 1) -> int:
    """Return a counter as it is committed."""
    admin.execute("SELECT n FROM run_counters WHERE id = %s", (key,))
    return int(admin.fetchone()[0])


def increment(session: Session) -> int:
    """Read, then write what was read plus one: wrong if anybody else writes in between."""
    counter = session.get_one(Counter, 1)
    counter.n += 1
    return counter.n


def counters(db: ConnectionManager) -> TransactionCounters:
    """Ask the manager what has become of its transactions."""
    return db.health().transactions


def test_threads_that_conflict_all_succeed(direct: Settings, admin: Any) -> None:
    """Eight threads that read, add one and write, forty times each: not one addition is lost."""
    with ConnectionManager(direct) as db, ThreadPoolExecutor(WORKERS) as pool:

        def add(worker: int) -> None:
            for _ in range(TIMES):
                db.run(increment, isolation_level="SERIALIZABLE", patience_seconds=60)

        list(pool.map(add, range(WORKERS)))

        assert count(admin) == WORKERS * TIMES
        assert counters(db).committed == WORKERS * TIMES
        assert counters(db).retried > 0
        assert counters(db).exhausted == 0


async def test_tasks_that_conflict_all_succeed(direct: Settings, admin: Any) -> None:
    """The same on an event loop."""

    async def increment_once(session: AsyncSession) -> int:
        return await session.run_sync(increment)

    async with ConnectionManager(direct) as db:

        async def add() -> None:
            for _ in range(TIMES):
                await db.async_run(increment_once, isolation_level="SERIALIZABLE", patience_seconds=60)

        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(add())

        assert count(admin) == WORKERS * TIMES
        assert counters(db).committed == WORKERS * TIMES
        assert counters(db).retried > 0


def test_two_that_lock_each_other_out_both_succeed(direct: Settings, admin: Any) -> None:
    """PostgreSQL ends one of the two; it comes again when the other has finished."""
    met = threading.Barrier(2)

    def transfer(first: int, second: int) -> Callable[[Session], None]:
        def work(session: Session) -> None:
            session.execute(text("UPDATE run_counters SET n = n + 1 WHERE id = :id"), {"id": first})
            if session.info["attempt"] == 1:
                met.wait(60)
            session.execute(text("UPDATE run_counters SET n = n + 1 WHERE id = :id"), {"id": second})

        return work

    with ConnectionManager(direct) as db, ThreadPoolExecutor(2) as pool:
        list(pool.map(db.run, [transfer(1, 2), transfer(2, 1)]))

        assert (count(admin, 1), count(admin, 2)) == (2, 2)
        assert counters(db) == TransactionCounters(committed=2, retried=1)


def test_a_backend_that_is_killed_before_commit_costs_one_repetition(client: Client, admin: Any) -> None:
    """Nothing was committed, which is known, so it is done again: once in all."""
    seen: list[int] = []

    def be_killed_once(session: Session) -> int:
        result = increment(session)
        session.flush()
        seen.append(session.info["attempt"])
        if seen == [1]:
            pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        return result

    assert client.run(be_killed_once) == 1
    assert seen == [1, 2]
    assert count(admin) == 1
    assert counters(client.db) == TransactionCounters(committed=1, retried=1)


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_commit_whose_answer_got_lost_is_not_repeated(
    far_client: Client, cutter: CommitCutter, admin: Any, cut: Cut
) -> None:
    """It may be there already, so it is said that nobody knows, and done at most once."""
    attempts: list[int] = []

    def increment_in_the_dark(session: Session) -> None:
        attempts.append(session.info["attempt"])
        increment(session)
        cutter.arm(cut)

    with pytest.raises(OutcomeUnknown):
        far_client.run(increment_in_the_dark)
    if cut == "after":
        eventually(lambda: count(admin) == 1, "the server has done it")

    assert attempts == [1]
    assert count(admin) == (1 if cut == "after" else 0)
    assert counters(far_client.db) == TransactionCounters()


def test_a_read_whose_commit_got_lost_is_repeated(far_client: Client, cutter: CommitCutter) -> None:
    """Reading twice does no harm."""

    def read(session: Session) -> tuple[int, object]:
        if session.info["attempt"] == 1:
            cutter.arm("after")
        return session.get_one(Counter, 1).n, session.info["attempt"]

    assert far_client.run(read, read_only=True) == (0, 2)
    assert cutter.cut == 1


def test_what_the_work_returns_can_be_used_afterwards(any_client: Client) -> None:
    """An ORM object keeps its values without its session."""
    counter = any_client.run(lambda session: session.get_one(Counter, 2))

    assert (counter.id, counter.n) == (2, 0)


def test_the_works_own_error_rolls_back_and_passes(any_client: Client, admin: Any) -> None:
    """It is not a matter of trying again."""

    def fail(session: Session) -> None:
        increment(session)
        session.flush()
        raise LookupError("no such customer")

    with pytest.raises(LookupError, match="no such customer"):
        any_client.run(fail)

    assert count(admin) == 0


def test_a_constraint_that_fails_is_not_repeated(any_client: Client) -> None:
    """The same row would be there the next time, too."""
    attempts: list[int] = []

    def duplicate(session: Session) -> None:
        attempts.append(session.info["attempt"])
        session.add(Counter(id=1, n=1))

    with pytest.raises(IntegrityError):
        any_client.run(duplicate)

    assert attempts == [1]


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_a_full_pool_is_not_waited_for_twice(driver: str, direct: Settings) -> None:
    """Who has waited for a connection as long as one may is told so at once."""
    with client_of(driver, direct, pool_size=1, max_overflow=0, pool_timeout_seconds=0.05) as client:

        def hold(session: Session) -> None:
            session.get_bind().engine.pool.connect().close()

        with pytest.raises(PoolTimeoutError):
            client.run(hold)

        assert counters(client.db).retried == 0


def test_options_hold_in_each_attempt(any_client: Client, admin: Any) -> None:
    """A repetition is as serializable and as limited as the first attempt."""
    query = text("SELECT current_setting('transaction_isolation'), current_setting('statement_timeout')")
    states: list[tuple[object, ...]] = []

    def conflict_once(session: Session) -> None:
        states.append(tuple(session.execute(query).one()))
        session.get_one(Counter, 1)
        if session.info["attempt"] == 1:
            admin.execute("UPDATE run_counters SET n = n + 1 WHERE id = 1")
        increment(session)

    any_client.run(conflict_once, isolation_level="REPEATABLE READ", statement_timeout_seconds=3)

    assert states == [("repeatable read", "3s")] * 2
    assert count(admin) == 2


def test_a_server_that_restarts_is_waited_for_as_long_as_patience_lasts() -> None:
    """A restart in mid-transaction is not noticed by its caller; a longer absence ends in time."""
    with Sandbox() as own:
        with closing(own.postgres.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(TABLE)
        for number, driver in enumerate(("psycopg2", "asyncpg"), start=1):
            with client_of(driver, direct_settings(own)) as client:
                starter = threading.Timer(0.3, own.postgres.start)

                def restart_once(session: Session, starter: threading.Timer = starter) -> int:
                    if session.info["attempt"] == 1:
                        increment(session)
                        session.flush()
                        own.postgres.kill()
                        starter.start()
                    return increment(session)

                assert client.run(restart_once, patience_seconds=30) == number
                starter.join()
                own.postgres.stop()
                with pytest.raises(
                    RetriesExhausted, match=r"nothing was committed; .* unavailable"
                ) as caught:
                    client.run(increment, patience_seconds=0.3)
                own.postgres.start()

                assert caught.value.attempts > 1
                assert caught.value.seconds < 15
                assert counters(client.db).exhausted == 1
