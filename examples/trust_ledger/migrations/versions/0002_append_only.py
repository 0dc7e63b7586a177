"""
Nobody changes or removes an entry: not the service, and not the owner by accident.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Privileges keep the service from it.  They do not keep the owner from it, nor whoever gets the service more
# privileges than it needs: hence the triggers.  A superuser gets round both, and then the hashes tell.
GUARDS = """
CREATE FUNCTION trust_ledger.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of %.% refused: the ledger is append-only', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER entries_are_only_added BEFORE UPDATE OR DELETE OR TRUNCATE ON trust_ledger.entries
    FOR EACH STATEMENT EXECUTE FUNCTION trust_ledger.refuse();

CREATE TRIGGER end_is_never_removed BEFORE DELETE OR TRUNCATE ON trust_ledger.chain_end
    FOR EACH STATEMENT EXECUTE FUNCTION trust_ledger.refuse();

CREATE TRIGGER end_moves_one_on BEFORE UPDATE ON trust_ledger.chain_end
    FOR EACH ROW WHEN (NEW.id <> OLD.id + 1) EXECUTE FUNCTION trust_ledger.refuse();

GRANT USAGE ON SCHEMA trust_ledger TO trust_ledger_service;
GRANT SELECT ON trust_ledger.alembic_version TO trust_ledger_service;
GRANT SELECT, INSERT ON trust_ledger.entries TO trust_ledger_service;
GRANT SELECT, UPDATE (id, hash) ON trust_ledger.chain_end TO trust_ledger_service;
"""


def upgrade() -> None:
    """Set up the guards."""
    op.execute(GUARDS)


def downgrade() -> None:
    """Refuse: the entries from then on could not be trusted."""
    raise NotImplementedError("the ledger's guards are not taken down by a migration")
