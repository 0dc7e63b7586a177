"""
Where a page ended, as text that a client can send back.

A cursor shows its reader the sort values of one row that it has seen, and nothing else; it is not signed.
Whoever forges one gets another place in the same listing: its values are bound, never written into SQL.
"""

import json
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Dialect, type_coerce, types
from sqlalchemy.types import TypeEngine

from ledger_db.errors import CursorInvalid

# PostgreSQL's numeric takes more than any Python program means by a number.
_MOST_DIGITS = 1000


@dataclass(frozen=True, slots=True)
class Codec:
    """
    How a sort value becomes JSON and back.

    Attributes:
        kind: What the value is in Python.

        write: Returns JSON's string, number or truth value.

        read: The other way round; ValueError for what the column cannot hold.
    """

    kind: type
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def codec_for(column_type: TypeEngine[Any]) -> Codec | None:
    """Return the codec of a column's type; None if its values cannot be compared safely."""
    if isinstance(column_type, types.TypeDecorator):
        column_type = column_type.impl_instance
    for kind, codec_of in _CODECS:
        if isinstance(column_type, kind):
            return codec_of(column_type)
    return None


def as_stored(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return what to select so that the value is the one which the server compares."""
    if isinstance(column.type, types.Numeric):
        # The model selects the same column: only a name of its own tells this one apart.
        return type_coerce(column, _StoredNumeric(column.type.precision, column.type.scale)).label(None)
    return column


def encode(order: str, codecs: Sequence[Codec], values: Sequence[Any]) -> str:
    """
    Return the cursor for a row.

    Args:
        order: Which listing in which order; another one does not take the cursor.

        codecs: One for each value.

        values: What the row is sorted by.

    Raises:
        TypeError: A type of the model's own makes something else of what the server has.
    """
    written = []
    for codec, value in zip(codecs, values, strict=True):
        if not isinstance(value, codec.kind):
            raise TypeError(f"a listing is sorted by {type(value).__name__}, and no cursor holds that")
        written.append(codec.write(value))
    text = json.dumps([order, *written], separators=(",", ":"), ensure_ascii=False)
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str, order: str, codecs: Sequence[Codec]) -> tuple[Any, ...]:
    """
    Return the sort values in *cursor*.

    Raises:
        CursorInvalid: It is damaged, made up, or of another listing.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found, *written = json.loads(b64decode(padded, altchars=b"-_", validate=True))
        values = tuple(codec.read(value) for codec, value in zip(codecs, written, strict=True))
    except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
        raise CursorInvalid(
            "this cursor is damaged or of another listing; start from the first page"
        ) from error
    if found != order:
        raise CursorInvalid("this cursor is of another listing or order; start from the first page")
    return values


class _StoredNumeric(types.TypeDecorator[Decimal]):
    """
    A numeric column, and on SQLite the float that stands for it there, to the last digit.

    Rounded to the column's scale it would be a little more or less than what is stored: its own row would be
    in the next page again, or its neighbours in none.
    """

    impl = types.Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Read the float itself on SQLite."""
        return dialect.type_descriptor(types.Float() if dialect.name == "sqlite" else self.impl_instance)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """Make of a float the shortest number that becomes the same float again."""
        return Decimal(repr(value)) if isinstance(value, float | int) else value


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        # type() and not isinstance(): True is an int.
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}")
        return value

    return read


def _read_text(value: Any) -> str:
    text: str = _exactly(str)(value)
    text.encode()  # half a surrogate pair is a str, and no text
    if "\x00" in text:
        raise ValueError("no server stores NUL in a text")
    return text


def _bits_of(column_type: types.Integer) -> int:
    match column_type:
        case types.BigInteger():
            return 64
        case types.SmallInteger():
            return 16
        case _:
            return 32


def _integers(bits: int) -> Callable[[Any], int]:
    limit = 1 << (bits - 1)

    def read(value: Any) -> int:
        number: int = _exactly(int)(value)
        if not -limit <= number < limit:
            raise ValueError("outside of the column's range")
        return number

    return read


def _read_decimal(value: Any) -> Decimal:
    number = Decimal(_exactly(str)(value))
    if not number.is_finite() or abs(number.adjusted()) > _MOST_DIGITS:
        raise ValueError("outside of any column's range")
    return number


def _moments(*, aware: bool) -> Callable[[Any], datetime]:
    def read(value: Any) -> datetime:
        moment = datetime.fromisoformat(value)
        if (moment.tzinfo is not None) != aware:
            raise ValueError("a time zone too many or too few")
        return moment.astimezone(UTC) if aware else moment

    return read


def _read_id(value: Any) -> UUID:
    return UUID(_exactly(str)(value))


# The first that fits; None where what is read back need not equal what is stored, or has an order of its own.
_CODECS: tuple[tuple[type, Callable[[Any], Codec | None]], ...] = (
    (types.Enum, lambda column_type: None),
    (types.Float, lambda column_type: None),
    (types.String, lambda column_type: Codec(str, str, _read_text)),
    (types.Boolean, lambda column_type: Codec(bool, bool, _exactly(bool))),
    (types.Integer, lambda column_type: Codec(int, int, _integers(_bits_of(column_type)))),
    (
        types.Numeric,
        lambda column_type: Codec(Decimal, str, _read_decimal) if column_type.asdecimal else None,
    ),
    (
        types.DateTime,
        lambda column_type: Codec(datetime, datetime.isoformat, _moments(aware=column_type.timezone)),
    ),
    (types.Date, lambda column_type: Codec(date, date.isoformat, date.fromisoformat)),
    (types.Uuid, lambda column_type: Codec(UUID, str, _read_id) if column_type.as_uuid else None),
)
