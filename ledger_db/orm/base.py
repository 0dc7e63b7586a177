"""
What models derive from: the same names, types and time zones on every server.

Constraint names appear in problem details and in migrations, so they follow from the model and not from
what a server makes up.  PostgreSQL cuts names at 63 bytes; SQLAlchemy shortens a longer one before that, and
appends a part of its hash, so that two of them never become the same.  A check constraint is named by hand:
nothing else tells two of them apart.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, MetaData, TypeDecorator
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeEngine

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class AwareDateTime(TypeDecorator[datetime]):
    """
    A moment: ``timestamp with time zone``, always read as UTC.

    A ``datetime`` without a time zone is refused: psycopg2 would take it for the session's zone, asyncpg for
    the machine's, and nobody would notice.  SQLite has no time zones; it stores UTC, which sorts well.
    """

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = DateTime(timezone=True)
    cache_ok: bool | None = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse what is no moment."""
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError(
                "this datetime has no time zone, so it is no moment; use datetime.now(UTC) or add a tzinfo"
            )
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Say which time zone it is, where the server does not, and always the same one."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# For those who have a base class of their own: ``type_annotation_map = TYPES``.
TYPES: dict[Any, Any] = {
    datetime: AwareDateTime,
    # Tables outlive the guess that two thousand million rows are enough.  SQLite numbers rows by itself only
    # in a column of type INTEGER, which has 64 bits there.
    int: BigInteger().with_variant(Integer, "sqlite"),
}


class Base(DeclarativeBase):
    """
    The base class of all models: `NAMING_CONVENTION`, `AwareDateTime` for ``datetime``, 64 bits for ``int``.

    Models that are migrated apart from the others have a base, and by it a ``MetaData``, of their own::

        class ArchiveBase(Base):
            __abstract__ = True
            metadata = MetaData(naming_convention=NAMING_CONVENTION)
    """

    __module__ = "ledger_db"

    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = TYPES
    # What the server fills in comes back with the INSERT or UPDATE itself.  On an event loop it could not be
    # read later: an attribute cannot be awaited.
    __mapper_args__: dict[str, Any] = {"eager_defaults": True}  # noqa: RUF012 - SQLAlchemy's own declaration
