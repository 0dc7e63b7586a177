"""
Alembic on the manager's connections.  An ``env.py`` is two lines.

::

    from ledger_db.migrations import run_migrations

    run_migrations(Base.metadata)

Which database, and as whom, comes from `Settings`, never from ``sqlalchemy.url``.  Tables usually belong to
another role than the service's, so name that role's secret for the one command::

    LEDGER_DB_DATABASE_SECRET_ID=trust-ledger/owner alembic upgrade head

A program that migrates by itself passes what it has open, and needs no second login:
``config.attributes["manager"]`` is a `ConnectionManager`, ``config.attributes["connection"]`` a connection of
SQLAlchemy's (of an async one, by ``run_sync``).  Projects without any synchronous code need nothing else:
migrations use the manager's synchronous engine.
"""

from typing import TYPE_CHECKING

from ledger_db._front_door import front_door

if TYPE_CHECKING:
    from ledger_db.migrations.environment import run_migrations as run_migrations
    from ledger_db.migrations.revisions import (
        check_migrated as check_migrated,
        pending_revisions as pending_revisions,
    )
    from ledger_db.migrations.turns import MigrationsBusy as MigrationsBusy
else:
    __getattr__, __dir__ = front_door(__name__, extra="migrations", needs={"alembic": "Alembic"})
