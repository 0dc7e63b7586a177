"""
What is done with rows of one model all the time, and no more; the session is at hand for everything else.

::

    class Accounts(Repository[Account]):
        def of_owner(self, owner: str) -> Sequence[Account]:
            return self.session.scalars(select(Account).where(Account.owner == owner)).all()

A repository neither begins nor commits.  What it changes it also flushes, so that a violated constraint is an
error of the line that violates it.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, get_args, get_origin

from sqlalchemy import ColumnElement, Select, inspect, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.interfaces import ORMOption

from ledger_db.errors import NotFound
from ledger_db.orm.pages import Listing, OrderBy, Page

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

Model = TypeVar("Model")

_DEFAULT_LIMIT = 100


class Repository(Generic[Model]):
    """
    Rows of one model, through one session.

    Args:
        session: Whoever opened it commits it.
    """

    __module__ = "ledger_db"

    model: ClassVar[type[Any]]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        _bind_model(cls)

    def __init__(self, session: Session) -> None:
        _require_model(type(self))
        self.session = session

    def get(self, key: Any, *, for_update: bool = False, options: Sequence[ORMOption] = ()) -> Model | None:
        """
        Return the row with a primary key; None if there is none.

        Args:
            key: A value, or a tuple if several columns are the key.

            for_update: Read it anew, and let nobody else change it until the transaction ends.

            options: SQLAlchemy's, such as ``selectinload(...)``.
        """
        if for_update:
            # What was changed here would be overwritten by what is read.
            self.session.flush()
        found: Model | None = self.session.get(self.model, key, **_get_arguments(for_update, options))
        return found

    def require(self, key: Any, *, for_update: bool = False, options: Sequence[ORMOption] = ()) -> Model:
        """
        Return the row with a primary key; arguments as `get`.

        Raises:
            NotFound: There is none.
        """
        return _found(self.model, self.get(key, for_update=for_update, options=options))

    def find(self, *where: ColumnElement[bool], options: Sequence[ORMOption] = ()) -> Model | None:
        """
        Return the only row that meets all conditions; None if there is none.

        Raises:
            MultipleResultsFound: There are several, which is a bug in the conditions; SQLAlchemy's.
        """
        return self.session.scalars(_only(self.model, where, options)).unique().one_or_none()

    def page(
        self,
        *where: ColumnElement[bool],
        order_by: OrderBy | Sequence[OrderBy] = (),
        after: str | None = None,
        limit: int = _DEFAULT_LIMIT,
        options: Sequence[ORMOption] = (),
    ) -> Page[Model]:
        """
        Return the next rows of a listing.

        Args:
            where: Conditions that all rows meet.

            order_by: Columns without NULL, perhaps with ``.desc()``; the primary key comes last by itself.

            after: `Page.next` of the page before, of the same listing in the same order; None for the first.

            limit: The most rows.

            options: SQLAlchemy's, such as ``selectinload(...)``.

        Raises:
            CursorInvalid: *after* is no cursor of this listing.

            ValueError: The model cannot be listed like this; the message says why.
        """
        listing: Listing[Model] = Listing(self.model, order_by)
        statement = listing.select(where, after, limit).options(*options)
        return listing.page(self.session.execute(statement).unique().all(), limit)

    def add(self, entity: Model) -> Model:
        """Insert a row; what the server fills in is there afterwards."""
        self.session.add(entity)
        self.session.flush()
        return entity

    def add_all(self, entities: Iterable[Model]) -> list[Model]:
        """Insert rows, many with one statement."""
        added = list(entities)
        self.session.add_all(added)
        self.session.flush()
        return added

    def update(self, entity: Model, **values: Any) -> Model:
        """
        Change some attributes of a row.

        Raises:
            TypeError: The model has no such attribute.
        """
        _assign(entity, values)
        self.session.flush()
        return entity

    def delete(self, entity: Model) -> None:
        """Delete a row."""
        self.session.delete(entity)
        self.session.flush()


class AsyncRepository(Generic[Model]):
    """
    Same as `Repository`, on an event loop.

    Args:
        session: Whoever opened it commits it.
    """

    __module__ = "ledger_db"

    model: ClassVar[type[Any]]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        _bind_model(cls)

    def __init__(self, session: "AsyncSession") -> None:
        _require_model(type(self))
        self.session = session

    async def get(
        self, key: Any, *, for_update: bool = False, options: Sequence[ORMOption] = ()
    ) -> Model | None:
        """Same as `Repository.get`."""
        if for_update:
            await self.session.flush()
        found: Model | None = await self.session.get(self.model, key, **_get_arguments(for_update, options))
        return found

    async def require(
        self, key: Any, *, for_update: bool = False, options: Sequence[ORMOption] = ()
    ) -> Model:
        """Same as `Repository.require`."""
        return _found(self.model, await self.get(key, for_update=for_update, options=options))

    async def find(self, *where: ColumnElement[bool], options: Sequence[ORMOption] = ()) -> Model | None:
        """Same as `Repository.find`."""
        rows = await self.session.scalars(_only(self.model, where, options))
        found: Model | None = rows.unique().one_or_none()
        return found

    async def page(
        self,
        *where: ColumnElement[bool],
        order_by: OrderBy | Sequence[OrderBy] = (),
        after: str | None = None,
        limit: int = _DEFAULT_LIMIT,
        options: Sequence[ORMOption] = (),
    ) -> Page[Model]:
        """Same as `Repository.page`."""
        listing: Listing[Model] = Listing(self.model, order_by)
        statement = listing.select(where, after, limit).options(*options)
        return listing.page((await self.session.execute(statement)).unique().all(), limit)

    async def add(self, entity: Model) -> Model:
        """Same as `Repository.add`."""
        self.session.add(entity)
        await self.session.flush()
        return entity

    async def add_all(self, entities: Iterable[Model]) -> list[Model]:
        """Same as `Repository.add_all`."""
        added = list(entities)
        self.session.add_all(added)
        await self.session.flush()
        return added

    async def update(self, entity: Model, **values: Any) -> Model:
        """Same as `Repository.update`."""
        _assign(entity, values)
        await self.session.flush()
        return entity

    async def delete(self, entity: Model) -> None:
        """Same as `Repository.delete`."""
        await self.session.delete(entity)
        await self.session.flush()


def _bind_model(cls: Any) -> None:
    """Read the model from ``class Accounts(Repository[Account])``."""
    for base in vars(cls).get("__orig_bases__", ()):
        origin = get_origin(base)
        if not (isinstance(origin, type) and issubclass(origin, Repository | AsyncRepository)):
            continue
        (model, *_) = get_args(base)
        if isinstance(model, type):
            cls.model = model
        elif not isinstance(model, TypeVar):
            raise TypeError(f"{cls.__name__} names its model by {model!r}; write the class itself")


def _require_model(cls: Any) -> None:
    if not hasattr(cls, "model"):
        raise TypeError(f"{cls.__name__} has no model; write 'class Accounts({cls.__name__}[Account])'")


def _get_arguments(for_update: bool, options: Sequence[ORMOption]) -> dict[str, Any]:  # noqa: FBT001 - private
    # A row that is locked and not read again would be changed on the strength of what it was before.
    lock = {"with_for_update": True, "populate_existing": True} if for_update else {}
    return {"options": options, **lock}


def _found(model: type[Any], row: Model | None) -> Model:
    if row is None:
        # Not the key: it may be somebody's name.
        raise NotFound(f"there is no {model.__name__} with this key; it may have been deleted")
    return row


def _only(
    model: type[Any], where: Sequence[ColumnElement[bool]], options: Sequence[ORMOption]
) -> Select[tuple[Any]]:
    return select(model).where(*where).options(*options).limit(2)


def _assign(entity: Any, values: dict[str, Any]) -> None:
    mapper = inspect(entity).mapper
    if unknown := sorted(set(values).difference(mapper.all_orm_descriptors.keys())):
        raise TypeError(f"{mapper.class_.__name__} has no attribute {', '.join(unknown)}")
    for name, value in values.items():
        setattr(entity, name, value)
