"""Does a repository do on real servers what it promises, page by page?"""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Numeric, update
from sqlalchemy.exc import IntegrityError, MultipleResultsFound
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column

from ledger_db import AsyncRepository, ConnectionManager, Page, Repository, Settings
from ledger_db.errors import CursorInvalid, NotFound
from ledger_db.orm.pages import OrderBy
from tests.support.shop import START, Article, Articles, AsyncArticles, Place, Places, StockBase, articles

ORDERS: dict[str, tuple[OrderBy, ...]] = {
    "primary key": (),
    "newest first": (Article.arrived.desc(),),
    "text, then time": (Article.shelf, Article.arrived),
    "mixed": (Article.shelf.desc(), Article.arrived),
    "mixed, key named": (Article.arrived, Article.id.desc()),
    "uuid": (Article.tag,),
}


class Amount(StockBase):
    """An amount of money; SQLite keeps it as a float."""

    __tablename__ = "test_orm_repository_amount"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))


class Amounts(Repository[Amount]):
    """Amounts."""


class AsyncAmounts(AsyncRepository[Amount]):
    """Amounts, on an event loop."""


def amounts() -> list[Amount]:
    """Make amounts in order, each of them twice; most have no float that is equal to them."""
    return [Amount(amount=Decimal(number // 2) / 10 - 1) for number in range(30)]


@pytest.fixture(params=["psycopg2", "psycopg", "sqlite"])
def db(request: pytest.FixtureRequest, settings: Settings) -> Iterator[ConnectionManager]:
    """A manager of each kind of database, with the tables of the stock in it."""
    if request.param == "sqlite":
        chosen = Settings(database_secret_id=None, redis_secret_id=None, database_url="sqlite://")
    else:
        chosen = settings.model_copy(update={"database_driver": request.param, "redis_secret_id": None})
    with ConnectionManager(chosen) as manager:
        StockBase.metadata.create_all(manager.engine)
        yield manager
        StockBase.metadata.drop_all(manager.engine)


@pytest.fixture
def session(db: ConnectionManager) -> Iterator[Session]:
    """A session that is never committed, with forty articles."""
    with db.session() as session:
        session.add_all(articles(40))
        session.flush()
        yield session


def walk(repository: Articles, limit: int, **how: Any) -> Iterator[Page[Article]]:
    """Go through all pages of a listing."""
    after = None
    for _ in range(100):
        page = repository.page(after=after, limit=limit, **how)
        yield page
        after = page.next
        if after is None:
            return
    raise AssertionError("a listing without an end")


@pytest.mark.parametrize("order", ORDERS)
def test_pages_hold_every_row_once_and_in_order(session: Session, order: str) -> None:
    """Whatever the order and the size of a page: with ties, backwards, in mixed directions."""
    repository = Articles(session)
    whole = repository.page(order_by=ORDERS[order], limit=1000).items
    assert len(whole) == 40
    for limit in (1, 7, 40, 100):
        pages = list(walk(repository, limit, order_by=ORDERS[order]))

        assert tuple(item for page in pages for item in page.items) == whole
        assert {len(page.items) for page in pages[:-1]} <= {limit}


@pytest.mark.filterwarnings("ignore:Dialect sqlite.*Decimal:sqlalchemy.exc.SAWarning")
def test_an_amount_can_be_paged_by(session: Session) -> None:
    """Exactly, on every driver."""
    repository = Amounts(session)
    expected = [row.id for row in repository.add_all(amounts())]
    paged: list[int] = []
    after = None
    for _ in range(10):
        page = repository.page(order_by=Amount.amount, after=after, limit=3)
        paged += [row.id for row in page.items]
        after = page.next

    assert after is None
    assert paged == expected


def test_rows_that_come_and_go_meanwhile_neither_repeat_nor_hide_others(session: Session) -> None:
    """An offset would show one row twice and skip another."""
    repository = Articles(session)
    first = repository.page(order_by=Article.arrived, limit=10)
    before = Article(shelf="new", arrived=START - timedelta(days=1))
    after = Article(shelf="new", arrived=START + timedelta(days=1))
    repository.add_all([before, after])
    for item in first.items:
        repository.delete(item)
    second = repository.page(order_by=Article.arrived, after=first.next, limit=1000)

    assert len(second.items) == 31
    assert after in second.items
    assert before not in second.items


def test_a_page_ends_where_the_server_says_and_not_where_an_object_was_changed_to(session: Session) -> None:
    """A sort value that is changed in memory, or by somebody else, does not move the cursor."""
    repository = Articles(session)
    whole = [item.id for item in repository.page(limit=1000).items]
    first = repository.page(order_by=Article.arrived, limit=10)
    expected = repository.page(order_by=Article.arrived, after=first.next, limit=10)
    last = first.items[-1]
    session.execute(
        update(Article).where(Article.id == last.id).values(arrived=START + timedelta(days=9)),
        execution_options={"synchronize_session": False},
    )
    again = repository.page(order_by=Article.arrived, limit=10)

    assert len(whole) == 40
    assert last not in again.items
    assert again.items[-1] == expected.items[0]
    assert repository.page(order_by=Article.arrived, after=again.next, limit=9).items == expected.items[1:]


def test_conditions_hold_on_every_page(session: Session) -> None:
    """The client sends the cursor back, and the service its conditions."""
    repository = Articles(session)
    first = repository.page(Article.shelf == "shelf-1", limit=6)
    rest = repository.page(Article.shelf == "shelf-1", after=first.next, limit=100)

    assert {item.shelf for item in first.items + rest.items} == {"shelf-1"}
    assert len(first.items + rest.items) == 10
    assert rest.next is None


def test_a_forged_cursor_is_the_client_s_mistake(session: Session) -> None:
    """One clear error, and the transaction goes on."""
    repository = Articles(session)
    with pytest.raises(CursorInvalid):
        repository.page(after="forged", limit=10)

    assert len(repository.page(limit=10).items) == 10


def test_a_key_of_several_columns_is_paged_and_found(session: Session) -> None:
    """Composite keys are keys like others."""
    repository = Places(session)
    repository.add_all(Place(aisle=number % 3, level=number) for number in range(9))
    first = repository.page(limit=4)
    rest = repository.page(after=first.next)

    assert [(place.aisle, place.level) for place in first.items + rest.items] == sorted(
        (number % 3, number) for number in range(9)
    )
    assert repository.require((2, 5)) is not None
    assert repository.get((2, 6)) is None


def test_one_row_is_added_found_changed_and_deleted(session: Session) -> None:
    """What a service does with one row is one line each; keys and defaults are there at once."""
    repository = Articles(session)
    added = repository.add(Article(shelf="top", arrived=START))
    found = repository.find(Article.shelf == "top")
    repository.update(added, note="fragile")
    session.expire_all()

    assert found is added
    assert repository.require(added.id).note == "fragile"

    repository.delete(added)

    assert repository.get(added.id) is None
    assert repository.find(Article.shelf == "top") is None
    with pytest.raises(NotFound, match="no Article with this key"):
        repository.require(added.id)


def test_mistakes_show_where_they_are_made(session: Session) -> None:
    """A typing error, an ambiguous condition, a violated constraint: each is an error of its own line."""
    repository = Articles(session)
    article = repository.add(Article(shelf="top", arrived=START))

    with pytest.raises(TypeError, match="Article has no attribute nota"):
        repository.update(article, nota="fragile")
    with pytest.raises(MultipleResultsFound):
        repository.find(Article.shelf == "shelf-1")
    with pytest.raises(IntegrityError):
        repository.add(Article(shelf="top", arrived=START, tag=article.tag))


def test_a_row_that_is_locked_is_read_anew(db: ConnectionManager) -> None:
    """What is decided on a locked row is decided on what it is now; nobody loses a change."""
    with db.begin() as session:
        key = Articles(session).add(Article(shelf="old", arrived=START, note="old")).id
    with db.session() as session:
        repository = Articles(session)
        stale = repository.require(key)
        session.commit()
        with db.begin() as other:
            Articles(other).update(Articles(other).require(key), shelf="new")
        stale.note = "mine"
        locked = repository.require(key, for_update=True)

        assert locked is stale
        assert (locked.shelf, locked.note) == ("new", "mine")


@pytest_asyncio.fixture
async def async_session(settings: Settings) -> AsyncIterator[AsyncSession]:
    """A session on an event loop that is never committed, with forty articles."""
    async with ConnectionManager(settings.model_copy(update={"redis_secret_id": None})) as db:
        async with db.async_engine.begin() as connection:
            await connection.run_sync(StockBase.metadata.create_all)
        async with db.async_session() as session:
            session.add_all(articles(40))
            await session.flush()
            yield session
        async with db.async_engine.begin() as connection:
            await connection.run_sync(StockBase.metadata.drop_all)


@pytest.mark.parametrize("order", ORDERS)
async def test_the_asynchronous_twin_pages_likewise(async_session: AsyncSession, order: str) -> None:
    """The same rows in the same order, through asyncpg, which binds by type."""
    repository = AsyncArticles(async_session)
    paged: list[Article] = []
    after = None
    for _ in range(10):
        page = await repository.page(order_by=ORDERS[order], after=after, limit=7)
        paged += page.items
        after = page.next
        if after is None:
            break
    whole = await repository.page(order_by=ORDERS[order], limit=1000)

    assert paged == list(whole.items)
    assert len(paged) == 40


async def test_the_asynchronous_twin_pages_by_an_amount(async_session: AsyncSession) -> None:
    """Also asyncpg compares what it was given exactly."""
    repository = AsyncAmounts(async_session)
    expected = [row.id for row in await repository.add_all(amounts())]
    paged: list[int] = []
    after = None
    for _ in range(10):
        page = await repository.page(order_by=Amount.amount, after=after, limit=3)
        paged += [row.id for row in page.items]
        after = page.next

    assert after is None
    assert paged == expected


async def test_the_asynchronous_twin_does_the_same_with_one_row(async_session: AsyncSession) -> None:
    """Nothing that it returns has to be read again, which an attribute could not."""
    repository = AsyncArticles(async_session)
    added = await repository.add(Article(shelf="top", arrived=START))
    await repository.update(added, note="fragile")

    assert await repository.find(Article.shelf == "top") is added
    assert (await repository.require(added.id, for_update=True)).note == "fragile"

    await repository.delete(added)

    assert await repository.get(added.id) is None
    with pytest.raises(NotFound):
        await repository.require(added.id)
    with pytest.raises(TypeError, match="nota"):
        await repository.update(added, nota="fragile")
    assert len(await repository.add_all(articles(2))) == 2
