"""Does a cursor come back as what it was, and is everything else refused?"""

import json
from base64 import urlsafe_b64encode
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import types
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from ledger_db.errors import CursorInvalid, LedgerDBError
from ledger_db.orm.base import AwareDateTime
from ledger_db.orm.cursors import Codec, codec_for, decode, encode


def codec(column_type: TypeEngine[Any]) -> Codec:
    """Return the codec of a type that has one."""
    found = codec_for(column_type)
    assert found is not None
    return found


def forged(*content: object) -> str:
    """Make a cursor by hand."""
    return urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


MOMENT = datetime(2030, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("column_type", "value"),
    [
        (types.BigInteger(), 2**63 - 1),
        (types.Integer(), -(2**31)),
        (types.SmallInteger(), 2**15 - 1),
        (types.String(), "Zoë \u2028 'x' 🦀"),
        (types.Text(), ""),
        (types.Boolean(), True),
        (types.Numeric(12, 2), Decimal("1234567890.10")),
        (types.DateTime(), MOMENT.replace(tzinfo=None)),
        (types.DateTime(timezone=True), MOMENT),
        (AwareDateTime(), MOMENT),
        (types.Date(), date(2030, 5, 6)),
        (types.Uuid(), UUID("8af0ef6a-05ab-40ef-8a45-879e9e2f01b3")),
    ],
    ids=repr,
)
def test_a_sort_value_survives_the_way_to_the_client_and_back(
    column_type: TypeEngine[Any], value: object
) -> None:
    """What a client sends back is exactly where its page ended."""
    codecs = [codec(column_type)]

    assert decode(encode("order", codecs, [value]), "order", codecs) == (value,)


def test_a_moment_in_another_time_zone_is_the_same_moment() -> None:
    """Whichever zone a server answers in, the cursor means the moment."""
    codecs = [codec(AwareDateTime())]
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30)))

    assert decode(encode("order", codecs, [elsewhere]), "order", codecs) == (MOMENT,)


@pytest.mark.parametrize(
    "column_type",
    [
        types.Float(),
        types.Double(),
        types.Numeric(asdecimal=False),
        types.Enum("small", "large"),
        types.LargeBinary(),
        types.JSON(),
        types.Uuid(as_uuid=False),
        postgresql.INET(),
        postgresql.ARRAY(types.Integer),
    ],
    ids=repr,
)
def test_a_column_without_a_dependable_order_has_no_codec(column_type: TypeEngine[Any]) -> None:
    """Better no listing than one that skips rows."""
    assert codec_for(column_type) is None


@pytest.mark.parametrize(
    ("column_type", "written"),
    [
        (types.BigInteger(), 2**63),
        (types.Integer(), 2**31),
        (types.SmallInteger(), -(2**15) - 1),
        (types.Integer(), True),
        (types.Integer(), 1.5),
        (types.Integer(), "1"),
        (types.Integer(), None),
        (types.String(), 1),
        (types.String(), "a\x00b"),
        (types.String(), "\ud800"),
        (types.Boolean(), 1),
        (types.Numeric(), "NaN"),
        (types.Numeric(), "Infinity"),
        (types.Numeric(), "1e131071"),
        (types.Numeric(), "one"),
        (types.DateTime(timezone=True), "2030-05-06T07:08:09"),
        (types.DateTime(), "2030-05-06T07:08:09+00:00"),
        (AwareDateTime(), "0001-01-01T00:00:00+23:59"),
        (types.Date(), "yesterday"),
        (types.Date(), 5),
        (types.Uuid(), "not-a-uuid"),
        (types.Uuid(), ["x"]),
    ],
    ids=repr,
)
def test_a_value_that_the_column_cannot_hold_is_refused_before_the_server_sees_it(
    column_type: TypeEngine[Any], written: object
) -> None:
    """A forged cursor is the client's mistake, never an error of the database."""
    with pytest.raises(CursorInvalid):
        decode(forged("order", written), "order", [codec(column_type)])


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "?",
        "Zoë",
        "abc",
        "e30",
        urlsafe_b64encode(b"5").decode(),
        urlsafe_b64encode(b'"text"').decode(),
        urlsafe_b64encode(b"\xff\xfe").decode(),
        urlsafe_b64encode(b"[" * 100_000).decode(),
        forged(),
        forged("order"),
        forged("order", 1, 2),
        forged("another order", 1),
        forged("order", 1)[:-1] + "!",
    ],
)
def test_what_is_no_cursor_of_this_listing_is_refused(cursor: str) -> None:
    """Damaged, truncated, made up or of another listing: one error, which says to start again."""
    with pytest.raises(CursorInvalid, match="start from the first page"):
        decode(cursor, "order", [codec(types.Integer())])


@given(st.text())
def test_no_text_at_all_makes_another_error(cursor: str) -> None:
    """Whatever a client sends, the answer is a page or `CursorInvalid`."""
    with pytest.raises(CursorInvalid) as caught:
        decode(cursor, "order", [codec(types.String())])

    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, LedgerDBError)


def test_a_value_that_no_cursor_holds_is_a_clear_error() -> None:
    """A type of the model's own may make anything of a column; the listing says so instead of guessing."""
    with pytest.raises(TypeError, match="sorted by object"):
        encode("order", [codec(types.String())], [object()])
