"""Does advanced-alchemy, for those who want more than our repository, work on our sessions?"""

import asyncio
import threading
import warnings
from collections.abc import Iterator

import pytest
from sqlalchemy import MetaData
from sqlalchemy.orm import Mapped, mapped_column

from ledger_db import Base, ConnectionManager, Settings
from ledger_db.orm.base import NAMING_CONVENTION
from ledger_db.sandbox import Sandbox

with warnings.catch_warnings():
    # Its own, at import, with SQLAlchemy 2.1: declarative_mixin is deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from advanced_alchemy.exceptions import IntegrityError
    from advanced_alchemy.filters import LimitOffset
    from advanced_alchemy.repository import SQLAlchemyAsyncRepository, SQLAlchemySyncRepository

ROTATIONS = 3


class VisitBase(Base):
    """Models of these tests, and nothing of others."""

    __abstract__ = True
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Visit(VisitBase):
    """Somebody came by."""

    __tablename__ = "test_orm_visit"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Visits(SQLAlchemySyncRepository[Visit]):
    """Visits."""

    model_type = Visit


class AsyncVisits(SQLAlchemyAsyncRepository[Visit]):
    """Visits, on an event loop."""

    model_type = Visit


@pytest.fixture
def rotating(settings: Settings, environment: Sandbox) -> Iterator[Settings]:
    """Settings that follow rotations quickly, and the table."""
    chosen = settings.model_copy(update={"redis_secret_id": None, "refresh_interval_seconds": 0.2})
    with ConnectionManager(chosen) as db:
        VisitBase.metadata.create_all(db.engine)
        yield chosen
        VisitBase.metadata.drop_all(db.engine)


def rotate(box: Sandbox, done: threading.Event) -> None:
    """Rotate a few times, each with a moment in which the secret is behind the server."""
    for number in range(ROTATIONS):
        box.rotate_database(("single-user", "alternating-users")[number % 2], window_seconds=0.1)
    done.set()


def test_their_repository_works_on_our_sessions_through_rotations(
    rotating: Settings, environment: Sandbox
) -> None:
    """Every transaction succeeds while passwords change; their listing and their errors are theirs."""
    done = threading.Event()
    with ConnectionManager(rotating) as db:
        rotator = threading.Thread(target=rotate, args=(environment, done))
        rotator.start()
        count = 0
        while not done.is_set() or count == 0:
            with db.begin() as session:
                Visits(session=session).add(Visit(name=f"visitor {count}"))
            count += 1
        rotator.join()
        with db.begin() as session:
            found, total = Visits(session=session).get_many_and_count(LimitOffset(5, 0))
        with pytest.raises(IntegrityError), db.begin() as session:
            Visits(session=session).add(Visit(name="visitor 0"))

    assert total == count
    assert len(found) == min(5, count)


async def test_their_asynchronous_repository_does_too(rotating: Settings, environment: Sandbox) -> None:
    """The same on an event loop, with asyncpg."""
    done = threading.Event()
    async with ConnectionManager(rotating) as db:
        rotation = asyncio.create_task(asyncio.to_thread(rotate, environment, done))
        count = 0
        while not done.is_set() or count == 0:
            async with db.async_begin() as session:
                await AsyncVisits(session=session).add(Visit(name=f"visitor {count}"))
            count += 1
        await rotation
        async with db.async_begin() as session:
            found, total = await AsyncVisits(session=session).get_many_and_count(LimitOffset(5, 0))
        with pytest.raises(IntegrityError):
            async with db.async_begin() as session:
                await AsyncVisits(session=session).add(Visit(name="visitor 0"))

    assert total == count
    assert len(found) == min(5, count)
