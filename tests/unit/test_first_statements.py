"""What becomes of an error that asyncpg meets where SQLAlchemy asks it for types?"""

import asyncio
from typing import Any

import pytest
from asyncpg.exceptions import QueryCanceledError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from ledger_db.connections.first_statements import tell_first_statements
from ledger_db.transactions.meaning import Meaning, meaning_of


class Driver:
    """asyncpg's connection, where asking for a type ends otherwise."""

    def __init__(self, end: BaseException) -> None:
        self._end = end
        self.has_hung_up = False

    def is_closed(self) -> bool:
        """Say whether it has ended."""
        return self.has_hung_up

    def terminate(self) -> None:
        """Hang up."""
        self.has_hung_up = True

    async def close(self, **options: Any) -> None:
        """Hang up, too."""
        assert self.has_hung_up, "nobody has, where SQLAlchemy 2.0 leaves it open"

    async def set_type_codec(self, *args: Any, **options: Any) -> None:
        """Ask the server, as each login did before asyncpg 0.31."""
        raise self._end


async def connect(driver: Driver) -> None:
    """Open a connection with *driver*."""

    async def create() -> Driver:
        return driver

    engine = create_async_engine("postgresql+asyncpg://", async_creator=create)
    tell_first_statements(engine.sync_engine)
    async with engine.connect():
        pytest.fail("it is connected")


def test_asyncpg_s_error_is_told_as_a_later_statement_s() -> None:
    """Whoever catches SQLAlchemy's errors meets it, with the meaning it has anywhere; nothing stays open."""
    driver = Driver(QueryCanceledError("canceling statement due to statement timeout"))
    with pytest.raises(DBAPIError, match="statement timeout") as failed:
        asyncio.run(connect(driver))

    assert meaning_of(failed.value) is Meaning.TIMED_OUT
    assert driver.has_hung_up


def test_a_cancellation_there_stays_one() -> None:
    """Nothing takes its place, and nothing stays open."""
    driver = Driver(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(connect(driver))

    assert driver.has_hung_up
