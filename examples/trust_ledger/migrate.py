r"""
Bring the database to the version that the service needs.

    LEDGER_DB_DATABASE_SECRET_ID=trust-ledger/postgres-admin LEDGER_DB_DATABASE_NAME=ledger \
        python -m examples.trust_ledger.migrate

Not done by the service: who may change tables can also rewrite the ledger, so the service's role may not.
The tables belong to a role that nobody logs in as.  Any number of these may run at once.
"""

import os
import sys
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from examples.trust_ledger.schema import MIGRATIONS
from examples.trust_ledger.tables import SCHEMA
from ledger_db import ConnectionManager, Settings
from ledger_db.errors import LedgerDBError

OWNER: Final = "trust_ledger_owner"
"""Whose tables they are."""

SERVICE: Final = "trust_ledger_service"
"""What the service may do is granted to this role; whoever the service logs in as is a member."""

_SETUP_LOCK: Final = 0x7275737474
"""Any number will do, as long as nothing else in this database uses it for an advisory lock."""


def migrate(db: ConnectionManager, *, service_member: str) -> None:
    """
    Make what is missing.

    Args:
        db: Open, logged in as a role that may create roles and schemas.

        service_member: The role, or the group of roles, that the service logs in as.

    Raises:
        LedgerDBError: PostgreSQL can not be reached, or somebody else has been migrating for too long.

        SQLAlchemyError: PostgreSQL refuses a statement; what was done before stays.
    """
    with db.engine.connect() as connection:
        # Closed in the end and not returned to the pool: the next borrower would be the owner.
        connection.detach()
        with connection.begin():
            _prepare(connection, service_member)
        # What is made from here on belongs to the owner, the table of versions included.
        with connection.begin():
            connection.execute(text(f"SET ROLE {OWNER}"))
        command.upgrade(configuration(connection), "head")


def configuration(connection: Connection) -> Config:
    """Return what Alembic's commands need to work on the ledger through *connection*."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _prepare(connection: Connection, service_member: str) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _SETUP_LOCK})
    for role in (OWNER, SERVICE):
        if not _exists(connection, role):
            connection.execute(text(f"CREATE ROLE {role} NOLOGIN"))
    # Who creates a role is no member of it yet, and could not make a schema for it.
    connection.execute(text(f"GRANT {OWNER} TO CURRENT_USER"))
    quoted = connection.dialect.identifier_preparer.quote_identifier(service_member)
    connection.execute(text(f"GRANT {SERVICE} TO {quoted}"))
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA} AUTHORIZATION {OWNER}"))


def _exists(connection: Connection, role: str) -> bool:
    found = connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role})
    return found is not None


def main() -> int:
    """Migrate the database that the environment leads to; return the exit status."""
    member = os.environ.get("TRUST_LEDGER_SERVICE_MEMBER", "ledger_owner")
    try:
        # Who may change tables need not be able to reach Redis.
        with ConnectionManager(Settings(redis_secret_id=None)) as db:
            migrate(db, service_member=member)
    except LedgerDBError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except DBAPIError as error:
        # The first line says what; the statement and the way to it do not help who runs this.
        reason = str(error.orig).partition("\n")[0]
        sys.stderr.write(f"PostgreSQL says: {reason}; mend that, and run this again\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
