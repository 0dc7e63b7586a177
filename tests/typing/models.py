"""What does a type checker know of models, repositories and units of work?"""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_type

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column

from ledger_db import (
    AsyncRepository,
    AsyncUnitOfWork,
    Base,
    ConnectionManager,
    CursorInvalid,
    NotFound,
    Page,
    Repository,
    UnitOfWork,
)


class Account(Base):
    """A model."""

    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    opened_at: Mapped[datetime]


class Accounts(Repository[Account]):
    """A repository with a query of its own."""

    def of_owner(self, owner: str) -> Sequence[Account]:
        """Find by something else than the key."""
        return self.session.scalars(select(Account).where(Account.owner == owner)).all()


class AsyncAccounts(AsyncRepository[Account]):
    """The same on an event loop."""


def repository(session: Session) -> None:
    """Whatever comes out of a repository is its model."""
    accounts = Accounts(session)
    assert_type(accounts.session, Session)
    assert_type(accounts.get(1), Account | None)
    assert_type(accounts.require(1, for_update=True), Account)
    assert_type(accounts.find(Account.owner == "ada"), Account | None)
    assert_type(accounts.add(Account(owner="ada")).opened_at, datetime)
    assert_type(accounts.add_all([Account(owner="ada")]), list[Account])
    assert_type(accounts.update(accounts.require(1), owner="grace"), Account)
    accounts.add("ada")  # type: ignore[arg-type] # no row
    try:
        page = accounts.page(Account.owner != "", order_by=Account.opened_at.desc(), limit=10)
    except (CursorInvalid, NotFound):
        return
    assert_type(page, Page[Account])
    assert_type((page.items, page.next), tuple[tuple[Account, ...], str | None])


async def async_repository(session: AsyncSession) -> None:
    """On an event loop the same is awaited."""
    accounts = AsyncAccounts(session)
    assert_type(accounts.session, AsyncSession)
    assert_type(await accounts.get(1), Account | None)
    assert_type(await accounts.require(1), Account)
    assert_type(await accounts.page(order_by=[Account.owner]), Page[Account])
    AsyncAccounts(Session())  # type: ignore[arg-type] # the other kind of session


def unit_of_work(db: ConnectionManager, session: Session) -> None:
    """A unit of work knows which repository it was asked for."""
    with UnitOfWork(db, isolation_level="SERIALIZABLE") as work, work.savepoint():
        assert_type(work.session, Session)
        assert_type(work.repository(Accounts).of_owner("ada"), Sequence[Account])
        work.after_commit(session.expunge_all)
        work.repository(AsyncAccounts)  # type: ignore[type-var] # the other kind of repository
    assert_type(UnitOfWork.over(session), UnitOfWork)


async def async_unit_of_work(db: ConnectionManager) -> None:
    """The same on an event loop."""
    async with AsyncUnitOfWork(db) as work, work.savepoint():
        assert_type(work.session, AsyncSession)
        assert_type(await work.repository(AsyncAccounts).find(Account.id == 1), Account | None)
