"""How Alembic runs the ledger's migrations."""

from examples.trust_ledger.tables import SCHEMA, LedgerBase
from ledger_db.migrations import run_migrations

run_migrations(
    LedgerBase.metadata,
    version_table_schema=SCHEMA,
    # For autogenerate: look into the ledger's own schema, and into no other.
    include_schemas=True,
    include_name=lambda name, kind, parents: kind != "schema" or name == SCHEMA,
)
