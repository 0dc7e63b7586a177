"""
How does a transaction fail below SQLAlchemy, and in which ways is it committed all the same?

Both are written for synchronous code, inside SQLAlchemy's greenlet where the driver is asynchronous.
"""

import asyncio
import inspect
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

Failure = Callable[[Any], object]
Ending = Callable[[Engine], None]

INSERT = "INSERT INTO undone_rows VALUES (1)"
WRONG = "SELECT 1 / 0"


def driver_of(connection: Connection) -> Any:
    """Return the driver's own connection."""
    return connection.connection.driver_connection


def wait(value: Any) -> Any:
    """Return what the driver returns, on whichever side of an event loop."""
    return await_only(value) if inspect.isawaitable(value) else value


def fail(connection: Any) -> None:
    """Fail on a cursor, and catch it; *connection* is a pool's."""
    with suppress(Exception):
        connection.cursor().execute(WRONG)


async def _cancelled(driver: Any) -> None:
    async with asyncio.timeout(0.05):
        await driver.execute("SELECT pg_sleep(30)")


async def _in_a_transaction(driver: Any) -> None:
    async with driver.transaction():
        await driver.execute(INSERT)
        with suppress(Exception):
            await driver.execute(WRONG)


async def _by_cursor(driver: Any) -> None:
    async for _ in driver.cursor(WRONG):
        pass


async def _async_copy(driver: Any) -> None:
    async with driver.cursor() as cursor, cursor.copy("COPY undone_rows FROM STDIN") as copy:
        await copy.write(b"no number\n")


async def _async_pipeline(driver: Any) -> None:
    async with driver.pipeline():
        await driver.execute(WRONG)


async def _async_stream(driver: Any) -> None:
    async with driver.cursor() as cursor:
        async for _ in cursor.stream(WRONG):
            pass


async def _async_server_cursor(driver: Any) -> None:
    async with driver.cursor("named") as cursor:
        await cursor.execute(WRONG)


def _server_cursor(driver: Any) -> None:
    with driver.cursor("named") as cursor:
        cursor.execute(WRONG)


def _copy(driver: Any) -> None:
    with driver.cursor() as cursor, cursor.copy("COPY undone_rows FROM STDIN") as copy:
        copy.write(b"no number\n")


def _pipeline(driver: Any) -> None:
    with driver.pipeline():
        driver.execute(WRONG)


def _stream(driver: Any) -> None:
    with driver.cursor() as cursor:
        list(cursor.stream(WRONG))


_PSYCOPG: dict[str, Failure] = {
    "execute": lambda driver: driver.execute(WRONG),
    "executemany": lambda driver: driver.cursor().executemany("INSERT INTO undone_rows VALUES (%s)", [(1,)]),
    "prepared": lambda driver: driver.execute("SELEC 1", prepare=True),
}

FAILURES: dict[str, dict[str, Failure]] = {
    "psycopg2": {
        "execute": lambda driver: driver.cursor().execute(WRONG),
        "executemany": lambda driver: driver.cursor().executemany(
            "INSERT INTO undone_rows VALUES (%s)", [(1,)]
        ),
        "callproc": lambda driver: driver.cursor().callproc("not_there"),
        "server cursor": lambda driver: driver.cursor("named").execute(WRONG),
        "copy_expert": lambda driver: driver.cursor().copy_expert(
            "COPY undone_rows FROM STDIN", io.StringIO("no number\n")
        ),
    },
    "psycopg": {
        **_PSYCOPG,
        "copy": _copy,
        "pipeline": _pipeline,
        "stream": _stream,
        "server cursor": _server_cursor,
    },
    "psycopg-async": {
        **_PSYCOPG,
        "copy": _async_copy,
        "pipeline": _async_pipeline,
        "stream": _async_stream,
        "server cursor": _async_server_cursor,
    },
    "asyncpg": {
        "execute": lambda driver: driver.execute(WRONG),
        "execute with arguments": lambda driver: driver.execute("SELECT 1 / $1::int", 0),
        "execute in time": lambda driver: driver.execute("SELECT pg_sleep(30)", timeout=0.05),
        "execute, cancelled": _cancelled,
        "executemany": lambda driver: driver.executemany("INSERT INTO undone_rows VALUES ($1)", [(2,), (1,)]),
        "fetch": lambda driver: driver.fetch(WRONG),
        "fetchrow": lambda driver: driver.fetchrow(WRONG),
        "fetchval": lambda driver: driver.fetchval(WRONG),
        "prepare": lambda driver: driver.prepare("SELEC 1"),
        "cursor": _by_cursor,
        "copy_records_to_table": lambda driver: driver.copy_records_to_table("undone_rows", records=[(1,)]),
        "copy_to_table": lambda driver: driver.copy_to_table("undone_rows", source=io.BytesIO(b"no\n")),
        "copy_from_query": lambda driver: driver.copy_from_query(WRONG, output=io.BytesIO()),
    },
}
"""What fails, by driver and by the driver's own name for it; each is given the driver's connection."""


def caught(failure: Failure) -> Callable[[Session], None]:
    """Return work that inserts a row, and catches what *failure* raises on the driver's own connection."""

    def work(session: Session) -> None:
        session.execute(text(INSERT))
        with suppress(Exception):
            wait(failure(driver_of(session.connection())))

    return work


def _by_block(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(INSERT))
        fail(connection.connection)


def _by_savepoint_that_is_kept(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(INSERT))
        with suppress(Exception), connection.begin_nested():
            fail(connection.connection)


def _by_session(engine: Engine) -> None:
    with Session(engine) as session:
        session.execute(text(INSERT))
        fail(session.connection().connection)
        session.commit()


def _by_two_phases(engine: Engine) -> None:
    with engine.connect() as connection:
        transaction = connection.begin_twophase("undone")
        connection.execute(text(INSERT))
        fail(connection.connection)
        transaction.commit()


def _by_text(statement: str) -> Ending:
    def commit(engine: Engine) -> None:
        with engine.connect() as connection:
            for _ in range(2):  # what was prepared once is not prepared again
                connection.execute(text(INSERT))
                fail(connection.connection)
                try:
                    connection.execute(text(statement))
                finally:
                    connection.rollback()

    return commit


def _by_raw_connection(engine: Engine) -> None:
    with _raw(engine) as raw:
        raw.cursor().execute(INSERT)
        fail(raw)
        raw.commit()


def _by_the_drivers_text(engine: Engine) -> None:
    with _raw(engine) as raw:
        raw.cursor().execute(INSERT)
        fail(raw)
        driver = raw.driver_connection
        wait((driver if hasattr(driver, "execute") else driver.cursor()).execute("COMMIT"))


def _by_fetching(name: str) -> Ending:
    def commit(engine: Engine) -> None:
        with _raw(engine) as raw:
            raw.cursor().execute(INSERT)
            fail(raw)
            wait(getattr(raw.driver_connection, name)("COMMIT"))

    return commit


def _by_the_drivers_transaction(engine: Engine) -> None:
    with Session(engine) as session:
        driver = driver_of(session.connection())
        if engine.dialect.is_async:
            wait(_in_a_transaction(driver))
            return
        with driver.transaction():
            driver.execute(INSERT)
            with suppress(Exception):
                driver.execute(WRONG)


@contextmanager
def _raw(engine: Engine) -> Iterator[Any]:
    raw = engine.raw_connection()
    try:
        yield raw
    finally:
        raw.close()


ENDINGS: dict[str, Ending] = {
    "engine.begin()": _by_block,
    "begin_nested() that is kept": _by_savepoint_that_is_kept,
    "Session.commit()": _by_session,
    "begin_twophase()": _by_two_phases,
    "text": _by_text("COMMIT"),
    "text with words around it": _by_text("-- so be it\n /* at\n last */ end transaction"),
    "raw_connection().commit()": _by_raw_connection,
    "the driver's execute": _by_the_drivers_text,
    "the driver's transaction()": _by_the_drivers_transaction,
    **{f"asyncpg's {name}": _by_fetching(name) for name in ("fetch", "fetchrow", "fetchval")},
}
"""How a transaction ends that has failed, and whose failure was caught."""


def endings_of(driver: str) -> dict[str, Ending]:
    """Return those that *driver* has; psycopg2 has no transactions of its own, and asyncpg alone fetches."""
    return {
        name: ending
        for name, ending in ENDINGS.items()
        if (driver != "psycopg2" or name != "the driver's transaction()")
        and (driver == "asyncpg" or not name.startswith("asyncpg's"))
    }
