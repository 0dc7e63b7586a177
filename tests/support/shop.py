"""What do tests of repositories share: a model, its two repositories, and rows that are hard to page."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import MetaData
from sqlalchemy.orm import Mapped, mapped_column

from ledger_db import AsyncRepository, Base, Repository
from ledger_db.orm.base import NAMING_CONVENTION

START = datetime(2030, 1, 1, tzinfo=UTC)


class StockBase(Base):
    """Models of a stock, and nothing of other tests."""

    __abstract__ = True
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Article(StockBase):
    """Something on a shelf."""

    __tablename__ = "test_orm_article"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf: Mapped[str]
    arrived: Mapped[datetime]
    tag: Mapped[UUID] = mapped_column(default=uuid4, unique=True)
    note: Mapped[str | None]


class Place(StockBase):
    """A place in the stock, known by two numbers."""

    __tablename__ = "test_orm_place"
    aisle: Mapped[int] = mapped_column(primary_key=True)
    level: Mapped[int] = mapped_column(primary_key=True)


class Articles(Repository[Article]):
    """Articles."""


class Places(Repository[Place]):
    """Places."""


class AsyncArticles(AsyncRepository[Article]):
    """Articles, on an event loop."""


def articles(count: int) -> list[Article]:
    """Make articles on four shelves; three of them arrive at each moment, so that ties are everywhere."""
    return [
        Article(shelf=f"shelf-{number % 4}", arrived=START + timedelta(seconds=number // 3))
        for number in range(count)
    ]
