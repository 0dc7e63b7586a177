"""What does a test hear whose transactions want its one connection at the same time?"""

import asyncio
import threading
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from ledger_db import ConfigurationError, ConnectionManager, Settings
from ledger_db.errors import LedgerDBError
from ledger_db.testing import async_isolated, isolated
from tests.support.any_driver import choice_of

pytestmark = pytest.mark.usefixtures("overlapping")

INSERT = text("INSERT INTO overlapping VALUES (:id)")
AT_ONCE = 8
ROUNDS = 5


@pytest.fixture
def overlapping(box: Any) -> Any:
    """A table with a key."""
    connection = box.postgres.connect()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE overlapping (id int PRIMARY KEY); GRANT ALL ON overlapping TO PUBLIC")
        yield
        cursor.execute("SELECT count(*) FROM overlapping")
        left = cursor.fetchone()
        cursor.execute("DROP TABLE overlapping")
    connection.close()
    assert left == (0,)


def named(error: BaseException) -> bool:
    """Whether an error says what is the matter."""
    return isinstance(error, ConfigurationError) and "overlap" in str(error)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg-async"])
async def test_tasks_at_once_hear_that_they_overlap(direct: Settings, driver: str) -> None:
    """Whoever is in the way of another gets the one error that says so, never a driver's."""

    async def work(db: Any, number: int) -> None:
        async with db.async_begin() as session:
            await session.execute(INSERT, {"id": number})
            await session.execute(INSERT, {"id": number + 1000 * (1 + number % 3 // 2)})

    async with ConnectionManager(direct.model_copy(update=choice_of(driver))) as real:
        for _ in range(ROUNDS):
            async with async_isolated(real) as db:
                came = await asyncio.gather(
                    *(work(db, number) for number in range(AT_ONCE)), return_exceptions=True
                )
                assert [error for error in came if error is not None and not named(error)] == []
                await work(db, 100)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_threads_at_once_hear_that_they_overlap(direct: Settings, driver: str) -> None:
    """The same for threads, such as those of ``def`` endpoints."""
    came: list[BaseException] = []

    def work(db: Any, number: int) -> None:
        try:
            with db.begin() as session:
                session.execute(INSERT, {"id": number})
                session.execute(INSERT, {"id": number + 1000})
        except (LedgerDBError, SQLAlchemyError) as error:
            came.append(error)

    with ConnectionManager(direct.model_copy(update=choice_of(driver))) as real:
        for _ in range(ROUNDS):
            with isolated(real) as db:
                threads = [threading.Thread(target=work, args=(db, number)) for number in range(AT_ONCE)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert [error for error in came if not named(error)] == []
                came.clear()
                work(db, 100)
                assert came == []


async def test_a_test_whose_statement_was_cancelled_hears_of_it(direct: Settings) -> None:
    """The connection went with the statement: what comes later says so, and the next test has another."""
    async with ConnectionManager(direct) as real:
        async with async_isolated(real) as db:
            async with db.async_begin() as session:
                await session.execute(INSERT, {"id": 1})
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2), db.async_session() as session:
                    await session.execute(text("SELECT pg_sleep(60)"))
            with pytest.raises(ConfigurationError, match="was cancelled"):
                async with db.async_begin() as session:
                    await session.execute(INSERT, {"id": 2})
        async with async_isolated(real) as db, db.async_begin() as session:
            await session.execute(INSERT, {"id": 1})
