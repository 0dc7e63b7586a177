"""
Pages of a listing, by where the last one ended instead of by a number of rows to skip.

The hundredth page costs what the first one does, and rows that are inserted or deleted meanwhile neither
repeat nor hide others.  A row that is committed later with a smaller key is not seen any more; a sequence
that many transactions draw from does that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Generic, TypeAlias, TypeVar

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    UnaryExpression,
    and_,
    inspect,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.orm import Mapper, QueryableAttribute
from sqlalchemy.orm.exc import UnmappedColumnError
from sqlalchemy.sql.operators import asc_op, desc_op

from ledger_db.orm.cursors import Codec, as_stored, codec_for, decode, encode

Model = TypeVar("Model")

OrderBy: TypeAlias = QueryableAttribute[Any] | UnaryExpression[Any]
"""A column of the model, perhaps with ``.desc()``."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Model]):
    """
    Some rows of a listing.

    Attributes:
        items: The rows, in order.

        next: The cursor to pass as ``after`` for what follows; None on the last page.
    """

    __module__ = "ledger_db"

    items: tuple[Model, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class _Key:
    """A column that a listing is sorted by."""

    column: ColumnElement[Any]
    name: str
    codec: Codec
    descending: bool


class Listing(Generic[Model]):
    """
    All rows of a model in a total order: the primary key decides between those that are equal otherwise.

    Args:
        model: A mapped class.

        order_by: Columns of it that are never NULL; none for the primary key.

    Raises:
        ValueError: Names the column that a listing cannot be sorted by, and why.
    """

    def __init__(self, model: type[Model], order_by: OrderBy | Sequence[OrderBy] = ()) -> None:
        self._model = model
        mapper: Mapper[Model] = inspect(model)
        wanted = [order_by] if isinstance(order_by, ColumnElement | QueryableAttribute) else list(order_by)
        keys = [_key(mapper, one) for one in wanted]
        named = {key.column for key in keys}
        # In the direction of the last one: with one direction for all, an index serves the whole comparison.
        last = keys[-1].descending if keys else False
        keys += [
            _key_of(mapper, column, descending=last) for column in mapper.primary_key if column not in named
        ]
        self._keys = keys
        self._codecs = [key.codec for key in keys]
        self._order = _fingerprint(mapper, keys)

    def select(
        self, where: Sequence[ColumnElement[bool]], after: str | None, limit: int
    ) -> "Select[tuple[Any, ...]]":
        """
        Return the statement for one page; it reads one row more, which tells whether there is another page.

        Raises:
            CursorInvalid: *after* is no cursor of this listing.

            ValueError: *limit* is not positive.
        """
        if limit < 1:
            raise ValueError(f"a page has at least one row, not {limit}; pass a limit above 0")
        # The sort values as the server has them: those of an object may have been changed and not flushed.
        statement = select(self._model, *(as_stored(key.column) for key in self._keys)).where(*where)
        if after is not None:
            statement = statement.where(self._beyond(decode(after, self._order, self._codecs)))
        return statement.order_by(*map(_direction, self._keys)).limit(limit + 1)

    def page(self, rows: Sequence[Row[Any]], limit: int) -> Page[Model]:
        """Return what the statement found."""
        items = tuple(row[0] for row in rows[:limit])
        more = len(rows) > limit
        return Page(items, encode(self._order, self._codecs, rows[limit - 1][1:]) if more else None)

    def _beyond(self, values: Sequence[Any]) -> ColumnElement[bool]:
        columns = [key.column for key in self._keys]
        ends = [literal(value, column.type) for value, column in zip(values, columns, strict=True)]
        if len({key.descending for key in self._keys}) > 1:
            return _beyond_in_turn(self._keys, ends)
        row, end = tuple_(*columns), tuple_(*ends)
        return row < end if self._keys[0].descending else row > end


def _beyond_in_turn(keys: Sequence[_Key], ends: Sequence[ColumnElement[Any]]) -> ColumnElement[bool]:
    """Compare key by key: a row comparison knows only one direction."""
    alternatives = []
    equal: list[ColumnElement[bool]] = []
    for key, end in zip(keys, ends, strict=True):
        alternatives.append(and_(*equal, key.column < end if key.descending else key.column > end))
        equal.append(key.column == end)
    first, end = keys[0], ends[0]
    # Follows from the rest, and is what an index can use.
    bound = first.column <= end if first.descending else first.column >= end
    return and_(bound, or_(*alternatives))


def _direction(key: _Key) -> ColumnElement[Any]:
    return key.column.desc() if key.descending else key.column.asc()


def _key(mapper: Mapper[Any], wanted: OrderBy) -> _Key:
    column: Any = wanted
    modifier = wanted.modifier if isinstance(wanted, UnaryExpression) else None
    if modifier in {asc_op, desc_op}:
        column = wanted.element
    elif isinstance(wanted, QueryableAttribute):
        column = wanted.expression
    return _key_of(mapper, column, descending=modifier is desc_op)


def _key_of(mapper: Mapper[Any], column: Any, *, descending: bool) -> _Key:
    model = mapper.class_.__name__
    try:
        name = mapper.get_property_by_column(column).key
    except UnmappedColumnError as error:
        raise ValueError(
            f"{model} cannot be listed by {column}; take columns of its own, each with or without desc()"
        ) from error
    if column.nullable:
        # NULL is neither before nor after anything: its rows would be in no page but the first.
        raise ValueError(f"{model} cannot be listed by {name}, which may be NULL; take a column that may not")
    codec = codec_for(column.type)
    if codec is None:
        raise ValueError(f"{model} cannot be listed by {name}: {column.type!r} has no dependable order")
    return _Key(column=column, name=name, codec=codec, descending=descending)


def _fingerprint(mapper: Mapper[Any], keys: Sequence[_Key]) -> str:
    order = [f"{key.name} {'desc' if key.descending else 'asc'}" for key in keys]
    return sha256(f"{mapper.class_.__name__}: {', '.join(order)}".encode()).hexdigest()[:8]
