"""Is a unit of work all or nothing, and are its callbacks called for what is committed only?"""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError
from sqlalchemy.orm import sessionmaker

from ledger_db import AsyncUnitOfWork, ConnectionManager, Settings, UnitOfWork
from tests.support.events import event_of, fields_of
from tests.support.shop import START, Article, Articles, AsyncArticles, Place, Places, StockBase


class OnPurposeError(Exception):
    """Raised by tests."""


@pytest.fixture(params=["postgresql", "sqlite"])
def db(request: pytest.FixtureRequest, settings: Settings) -> Iterator[ConnectionManager]:
    """A manager of each kind of database, with the tables of the stock in it."""
    if request.param == "sqlite":
        chosen = Settings(database_secret_id=None, redis_secret_id=None, database_url="sqlite://")
    else:
        chosen = settings.model_copy(update={"redis_secret_id": None})
    with ConnectionManager(chosen) as manager:
        StockBase.metadata.create_all(manager.engine)
        yield manager
        StockBase.metadata.drop_all(manager.engine)


def article(shelf: str) -> Article:
    """Make an article."""
    return Article(shelf=shelf, arrived=START)


def shelves(db: ConnectionManager) -> list[str]:
    """Return what is committed, in order."""
    with db.session() as session:
        return [found.shelf for found in Articles(session).page(order_by=Article.shelf).items]


def test_what_several_repositories_do_is_committed_together(db: ConnectionManager) -> None:
    """One transaction, one session, one repository of each kind."""
    with UnitOfWork(db) as work:
        work.repository(Articles).add(article("a"))
        work.repository(Places).add(Place(aisle=1, level=1))

        assert shelves_in(work) == ["a"]
        assert work.repository(Articles) is work.repository(Articles)
        assert work.repository(Articles).session is work.session

    assert shelves(db) == ["a"]


def shelves_in(work: UnitOfWork) -> list[str]:
    """Return what the unit sees itself."""
    return [found.shelf for found in work.repository(Articles).page().items]


def test_an_error_undoes_everything(db: ConnectionManager) -> None:
    """Nothing is committed, nobody is told, and the error reaches the caller."""
    told: list[str] = []
    with pytest.raises(OnPurposeError), UnitOfWork(db) as work:
        work.repository(Articles).add(article("a"))
        work.after_commit(lambda: told.append("a"))
        raise OnPurposeError

    assert shelves(db) == []
    assert told == []


def test_a_savepoint_is_undone_alone(db: ConnectionManager) -> None:
    """A violated constraint inside of it leaves the rest, and what is done next, as they are."""
    told: list[str] = []
    with UnitOfWork(db) as work:
        first = work.repository(Articles).add(article("a"))
        work.after_commit(lambda: told.append("a"))
        with pytest.raises(IntegrityError), work.savepoint():
            work.after_commit(lambda: told.append("never"))
            work.repository(Articles).add(Article(shelf="b", arrived=START, tag=first.tag))
        with work.savepoint():
            work.repository(Articles).add(article("c"))
            work.after_commit(lambda: told.append("c"))
            with pytest.raises(OnPurposeError), work.savepoint():
                work.repository(Articles).add(article("d"))
                work.after_commit(lambda: told.append("never"))
                raise OnPurposeError
        assert told == []

    assert shelves(db) == ["a", "c"]
    assert told == ["a", "c"]


def test_callbacks_see_what_is_committed(db: ConnectionManager) -> None:
    """A cache that is filled after the commit is filled with what others see too."""
    seen: list[list[str]] = []
    with UnitOfWork(db) as work:
        work.repository(Articles).add(article("a"))
        work.after_commit(lambda: seen.append(shelves(db)))

    assert seen == [["a"]]


def test_a_callback_that_fails_is_an_error_in_the_log_and_not_of_the_transaction(
    db: ConnectionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever met an error here would repeat what is committed; the others are called all the same."""
    told: list[str] = []

    def tell_nobody() -> None:
        raise OnPurposeError

    with UnitOfWork(db) as work:
        work.repository(Articles).add(article("a"))
        work.after_commit(tell_nobody)
        work.after_commit(lambda: told.append("a"))

    assert told == ["a"]
    (record,) = [r for r in caplog.records if event_of(r) == "unit_of_work.callback_failed"]
    assert record.levelno == logging.ERROR
    assert "tell_nobody" in fields_of(record)["callback"]


def test_nobody_is_told_of_what_the_body_rolled_back_without_an_error(db: ConnectionManager) -> None:
    """The end of the block is not what counts; the commit is."""
    told: list[str] = []
    with UnitOfWork(db) as work:
        work.repository(Articles).add(article("a"))
        work.after_commit(lambda: told.append("a"))
        with work.savepoint():
            work.repository(Articles).add(article("b"))
        work.session.rollback()

    assert shelves(db) == []
    assert told == []


def test_a_commit_that_fails_tells_nobody(settings: Settings) -> None:
    """A constraint that is checked at the commit: the caller gets the error, others hear nothing."""
    told: list[str] = []
    with ConnectionManager(settings.model_copy(update={"redis_secret_id": None})) as db:
        with db.begin() as session:
            session.execute(
                text("CREATE TABLE test_orm_late (id bigint UNIQUE DEFERRABLE INITIALLY DEFERRED)")
            )
        with pytest.raises(IntegrityError), UnitOfWork(db) as work:
            work.session.execute(text("INSERT INTO test_orm_late VALUES (1), (1)"))
            work.after_commit(lambda: told.append("a"))
        with db.begin() as session:
            session.execute(text("DROP TABLE test_orm_late"))

    assert told == []


def test_options_reach_the_transaction(settings: Settings) -> None:
    """A unit of work takes what `begin` takes."""
    with (
        ConnectionManager(settings.model_copy(update={"redis_secret_id": None})) as db,
        UnitOfWork(db, read_only=True, isolation_level="SERIALIZABLE") as work,
    ):
        found = work.session.execute(text("SHOW transaction_isolation")).scalar_one()
        with pytest.raises(DBAPIError, match="read-only"), work.savepoint():
            work.session.execute(text("CREATE TABLE test_orm_never (id bigint)"))

    assert found == "serializable"


def test_a_unit_in_somebody_else_s_session_leaves_the_commit_to_them(db: ConnectionManager) -> None:
    """Repositories and savepoints work in the session of a request; who opened it ends it."""
    with db.session() as session:
        work = UnitOfWork.over(session)
        work.repository(Articles).add(article("a"))
        with UnitOfWork.over(session) as inner, inner.savepoint():
            inner.repository(Articles).add(article("b"))
        assert session.in_transaction()
        with pytest.raises(RuntimeError, match="somebody else commits"):
            work.after_commit(lambda: None)
        session.rollback()

    assert shelves(db) == []


def test_a_unit_is_used_once_and_inside_its_block(db: ConnectionManager) -> None:
    """A session that is used after its end would take a connection that nobody returns."""
    work = UnitOfWork(db)
    with pytest.raises(RuntimeError, match="not under way"):
        _ = work.session
    with work:
        articles = work.repository(Articles)
    with pytest.raises(RuntimeError, match="not under way"):
        work.repository(Articles)
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        articles.page()
    with pytest.raises(RuntimeError, match="make another"), work:
        pass


def test_a_unit_takes_any_factory_of_sessions(db: ConnectionManager) -> None:
    """SQLAlchemy's own sessionmaker will do."""
    factory: Any = sessionmaker(db.engine)
    with UnitOfWork(factory) as work:
        work.repository(Articles).add(article("a"))

    assert shelves(db) == ["a"]


def test_a_unit_can_be_repeated_as_a_whole(db: ConnectionManager) -> None:
    """`run` begins and commits; the unit works inside of it."""
    key = db.run(lambda session: UnitOfWork.over(session).repository(Articles).add(article("a")).id)

    with db.session() as session:
        assert Articles(session).require(key).shelf == "a"


@pytest_asyncio.fixture(params=["asyncpg", "psycopg", "sqlite"])
async def async_db(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[ConnectionManager]:
    """A manager on an event loop, with the tables of the stock in it."""
    if request.param == "sqlite":
        chosen = Settings(database_secret_id=None, redis_secret_id=None, database_url="sqlite://")
    else:
        update = {"redis_secret_id": None, "async_database_driver": request.param}
        chosen = settings.model_copy(update=update)
    async with ConnectionManager(chosen) as manager:
        async with manager.async_engine.begin() as connection:
            await connection.run_sync(StockBase.metadata.create_all)
        yield manager
        async with manager.async_engine.begin() as connection:
            await connection.run_sync(StockBase.metadata.drop_all)


async def async_shelves(db: ConnectionManager) -> list[str]:
    """Return what is committed, in order."""
    async with db.async_session() as session:
        page = await AsyncArticles(session).page(order_by=Article.shelf)
        return [found.shelf for found in page.items]


async def test_the_asynchronous_twin_does_the_same(
    async_db: ConnectionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Savepoints, callbacks that are awaited, one that fails, and nothing told of what is undone."""
    told: list[str] = []

    async def tell(what: str) -> None:
        assert "a" in await async_shelves(async_db)
        told.append(what)

    async def fail() -> None:
        raise OnPurposeError

    async with AsyncUnitOfWork(async_db) as work:
        first = await work.repository(AsyncArticles).add(article("a"))
        work.after_commit(lambda: tell("a"))
        with pytest.raises(IntegrityError):
            async with work.savepoint():
                work.after_commit(lambda: tell("never"))
                await work.repository(AsyncArticles).add(Article(shelf="b", arrived=START, tag=first.tag))
        async with work.savepoint():
            await work.repository(AsyncArticles).add(article("c"))
        work.after_commit(fail)
        work.after_commit(lambda: told.append("c"))

    assert told == ["a", "c"]
    assert "unit_of_work.callback_failed" in [event_of(record) for record in caplog.records]
    assert await async_shelves(async_db) == ["a", "c"]


async def test_the_asynchronous_twin_is_all_or_nothing(async_db: ConnectionManager) -> None:
    """An error undoes everything; a session of somebody else's is left to them."""
    told: list[str] = []
    with pytest.raises(OnPurposeError):
        async with AsyncUnitOfWork(async_db) as work:
            await work.repository(AsyncArticles).add(article("a"))
            work.after_commit(lambda: told.append("a"))
            raise OnPurposeError
    async with async_db.async_session() as session:
        over = AsyncUnitOfWork.over(session)
        await over.repository(AsyncArticles).add(article("b"))
        async with AsyncUnitOfWork.over(session) as inner, inner.savepoint():
            await inner.repository(AsyncArticles).add(article("c"))
        with pytest.raises(RuntimeError, match="somebody else commits"):
            over.after_commit(lambda: None)
        await session.rollback()

    assert await async_shelves(async_db) == []
    assert told == []
