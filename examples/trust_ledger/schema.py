"""Is the database the one that this code was written for?"""

from pathlib import Path
from typing import Final

from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from examples.trust_ledger.tables import SCHEMA
from ledger_db import ConnectionManager
from ledger_db.errors import ConfigurationError
from ledger_db.migrations import pending_revisions

MIGRATIONS: Final = Path(__file__).with_name("migrations")

_MIGRATE = "run 'python -m examples.trust_ledger.migrate' as a role that may create schemas"


async def refuse_unmigrated(db: ConnectionManager) -> None:
    """
    Refuse to start on a schema that lacks a migration; one that is ahead is none of this program's business.

    Any number of workers may ask at once: nothing is changed here.

    Raises:
        ConfigurationError: Says what to run.
    """
    try:
        missing = await db.async_run(_pending, read_only=True)
    except ProgrammingError as error:
        raise ConfigurationError(
            f"this service's role may not read the schema {SCHEMA}; name a role that it is a member of as "
            f"TRUST_LEDGER_SERVICE_MEMBER, and {_MIGRATE}"
        ) from error
    if missing:
        raise ConfigurationError(f"the database lacks the migrations {', '.join(missing)}; {_MIGRATE}")


async def _pending(session: AsyncSession) -> tuple[str, ...]:
    connection = await session.connection()
    return await connection.run_sync(pending_revisions, MIGRATIONS, version_table_schema=SCHEMA)
