"""
The entries, and where their chain ends.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "trust_ledger"


def upgrade() -> None:
    """Make both tables, and a chain without entries."""
    op.create_table(
        "entries",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("memo", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entries")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_entries_idempotency_key")),
        schema=SCHEMA,
    )
    end = op.create_table(
        "chain_end",
        sa.Column("single", sa.Boolean(), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_chain_end")),
        sa.CheckConstraint("single", name=op.f("ck_chain_end_single")),
        schema=SCHEMA,
    )
    op.bulk_insert(end, [{"single": True, "id": 0, "hash": "0" * 64}])


def downgrade() -> None:
    """Refuse: a ledger that can be dropped by a command is none."""
    raise NotImplementedError("the ledger is not removed by a migration; drop its schema by hand, on purpose")
