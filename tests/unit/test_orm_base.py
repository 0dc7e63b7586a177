"""Do models have the same names, types and times everywhere?"""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
    create_engine,
    select,
)
from sqlalchemy.exc import InvalidRequestError, StatementError
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.schema import CreateTable

from ledger_db import Base
from ledger_db.orm.base import NAMING_CONVENTION

MOMENT = datetime(2030, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


class Own(Base):
    """Models of these tests, apart from all others."""

    __abstract__ = True
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Member(Own):
    """Somebody in a club."""

    __tablename__ = "member"
    __table_args__ = (
        UniqueConstraint("club", "number"),
        CheckConstraint("number > 0", name="number_is_positive"),
        Index(None, "club", "joined"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    club: Mapped[str]
    number: Mapped[int]
    joined: Mapped[datetime]
    friend_id: Mapped[int | None] = mapped_column(ForeignKey("member.id"))


def test_every_constraint_has_a_name_that_follows_from_the_model() -> None:
    """A problem detail or a migration names a constraint; that name is the same on every server."""
    table = Own.metadata.tables["member"]
    names = {constraint.name for constraint in table.constraints} | {index.name for index in table.indexes}

    assert names == {
        "pk_member",
        "uq_member_club_number",
        "ck_member_number_is_positive",
        "fk_member_friend_id_member",
        "ix_member_club_joined",
    }


def test_a_check_constraint_without_a_name_is_refused() -> None:
    """Two of them could not be told apart."""
    with pytest.raises(InvalidRequestError, match="constraint_name"):
        Table("nameless", Own.metadata, Column("id", Integer), CheckConstraint("id > 0"))


def test_columns_are_wide_enough_for_a_table_that_lives_long() -> None:
    """An int has 64 bits, a datetime a time zone, on PostgreSQL; SQLite still numbers its rows."""
    on_postgresql = str(
        CreateTable(Own.metadata.tables["member"]).compile(
            dialect=create_engine("postgresql+psycopg2://").dialect
        )
    )
    on_sqlite = str(
        CreateTable(Own.metadata.tables["member"]).compile(dialect=create_engine("sqlite://").dialect)
    )

    assert "id BIGSERIAL NOT NULL" in on_postgresql
    assert "number BIGINT NOT NULL" in on_postgresql
    assert "joined TIMESTAMP WITH TIME ZONE NOT NULL" in on_postgresql
    assert "id INTEGER NOT NULL" in on_sqlite


def test_a_moment_is_read_back_as_utc_also_where_the_server_has_no_time_zones() -> None:
    """SQLite stores UTC and answers UTC; what was in another zone is the same moment."""
    engine = create_engine("sqlite://")
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=-7)))
    with engine.connect() as connection, Session(connection) as session:
        Own.metadata.create_all(connection)
        session.add(Member(club="a", number=1, joined=elsewhere))
        session.flush()
        session.expire_all()
        read = session.scalars(select(Member.joined)).one()
    engine.dispose()

    assert read == MOMENT
    assert read.tzinfo is UTC


def test_a_time_without_a_zone_is_refused() -> None:
    """It would be taken for a zone that depends on the driver and the machine."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        Own.metadata.create_all(connection)
        statement = select(Member).where(Member.joined < MOMENT.replace(tzinfo=None))
        with pytest.raises(StatementError, match="has no time zone"):
            connection.execute(statement)
    engine.dispose()


def test_models_that_are_migrated_apart_have_tables_of_their_own() -> None:
    """A second base class shares the rules and not the tables."""
    assert "member" not in Base.metadata.tables
    assert Own.metadata.naming_convention == Base.metadata.naming_convention
