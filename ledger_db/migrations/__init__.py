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

from importlib import import_module
from typing import TYPE_CHECKING

from ledger_db.errors import ConfigurationError

if TYPE_CHECKING:
    from ledger_db.migrations.environment import run_migrations
    from ledger_db.migrations.revisions import check_migrated, pending_revisions
    from ledger_db.migrations.turns import MigrationsBusy

__all__ = ["MigrationsBusy", "check_migrated", "pending_revisions", "run_migrations"]

_HOME = {
    "MigrationsBusy": "ledger_db.migrations.turns",
    "check_migrated": "ledger_db.migrations.revisions",
    "pending_revisions": "ledger_db.migrations.revisions",
    "run_migrations": "ledger_db.migrations.environment",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(_HOME[name])
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "alembic":
            raise
        raise ConfigurationError("Alembic is not installed; pip install 'ledger-db[migrations]'") from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return list(__all__)
