"""
What does the ledger look like in PostgreSQL?

Two tables: the entries, and one row that says where the chain ends.  The migrations make them and guard them:
the service's role can add an entry and move the end one step on, and nothing else.
"""

from datetime import datetime

from sqlalchemy import BigInteger, MetaData, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from examples.trust_ledger.chain import Entry, Link
from ledger_db.orm.base import Base

SCHEMA = "trust_ledger"
"""Everything of the ledger is in here, and nothing of the ledger is found by a search path."""


class LedgerBase(Base):
    """What the tables of the ledger share."""

    __abstract__ = True
    metadata = MetaData(schema=SCHEMA, naming_convention=Base.metadata.naming_convention)


class EntryRow(LedgerBase):
    """One entry; the fields are those of `Entry`, in its order."""

    __tablename__ = "entries"

    # Not a sequence: a rolled-back append would leave a gap, and a gap is what a deleted entry looks like.
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    account: Mapped[str] = mapped_column(Text)
    amount: Mapped[int] = mapped_column(BigInteger)
    memo: Mapped[str] = mapped_column(Text)
    recorded_at: Mapped[datetime]
    # The promise "one key, one entry" is kept here.  Redis only makes it quick.
    idempotency_key: Mapped[str] = mapped_column(Text, unique=True)
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))

    @property
    def entry(self) -> Entry:
        """The entry that this row holds."""
        return Entry(
            id=self.id,
            account=self.account,
            amount=self.amount,
            memo=self.memo,
            recorded_at=self.recorded_at,
            idempotency_key=self.idempotency_key,
            previous_hash=self.previous_hash,
            hash=self.hash,
        )


class EndRow(LedgerBase):
    """Where the chain ends."""

    __tablename__ = "chain_end"

    # One row, whose key is always true: a second end can not be written down.
    single: Mapped[bool] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(64))

    @property
    def link(self) -> Link:
        """What the next entry has to be chained to."""
        return Link(id=self.id, hash=self.hash)
