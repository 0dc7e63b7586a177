"""Can a listing be sorted by an amount, where the database keeps it as a float too?"""

from collections.abc import Iterator
from decimal import Decimal

import pytest
from sqlalchemy import MetaData, Numeric, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from ledger_db import Repository
from ledger_db.orm.pages import OrderBy

# More digits than the column has, as SQLite keeps them: rounded, each would be before or after itself.
STORED = ("0.1", "1.005", "1.0049999999", "1.005", "2", "2.004", "2.0049", "-1.005", "33333333.335")

pytestmark = pytest.mark.filterwarnings("ignore:Dialect sqlite.*Decimal:sqlalchemy.exc.SAWarning")


class Model(DeclarativeBase):
    """Models of these tests."""

    metadata = MetaData()


class Amount(Model):
    """An amount of money."""

    __tablename__ = "test_orm_amount"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))


class Amounts(Repository[Amount]):
    """Amounts."""


@pytest.fixture
def session() -> Iterator[Session]:
    """A session with all amounts."""
    engine = create_engine("sqlite://")
    with Session(engine) as session:
        Model.metadata.create_all(session.connection())
        for stored in STORED:
            session.execute(text(f"INSERT INTO test_orm_amount (amount) VALUES ({stored})"))
        yield session
    engine.dispose()


@pytest.mark.parametrize(
    "order_by",
    [Amount.amount, Amount.amount.desc(), (Amount.amount.desc(), Amount.id)],
    ids=["upwards", "downwards", "mixed"],
)
@pytest.mark.parametrize("limit", [1, 2])
def test_pages_by_an_amount_hold_every_row_once(
    session: Session, order_by: OrderBy | tuple[OrderBy, ...], limit: int
) -> None:
    """A developer's SQLite neither repeats rows nor hides them, and every listing ends."""
    repository = Amounts(session)
    whole = [row.id for row in repository.page(order_by=order_by, limit=100).items]
    paged: list[int] = []
    after = None
    for _ in STORED:
        page = repository.page(order_by=order_by, after=after, limit=limit)
        paged += [row.id for row in page.items]
        after = page.next
        if after is None:
            break

    assert after is None
    assert paged == whole
    assert len(whole) == len(STORED)
