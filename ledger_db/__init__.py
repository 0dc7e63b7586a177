"""
Connections to PostgreSQL and Redis that keep working while their passwords rotate.

The names below are all that users need; the rest is reached through them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ledger_db.credentials.model import Credentials, CredentialSource, Password
    from ledger_db.credentials.provider import CredentialProvider
    from ledger_db.credentials.rds_iam import RdsIamSource
    from ledger_db.credentials.secrets_manager import SecretsManagerSource
    from ledger_db.credentials.static import StaticSource
    from ledger_db.default import default_manager
    from ledger_db.errors import (
        ConfigurationError,
        CredentialsInvalid,
        CredentialsUnavailable,
        CursorInvalid,
        LedgerDBError,
        LoginRefused,
        ManagerClosed,
        NotFound,
        OutcomeUnknown,
        RetriesExhausted,
        Retryable,
        RotationFailed,
        Saturated,
        ServerUnreachable,
    )
    from ledger_db.health import HealthReport
    from ledger_db.manager import ConnectionManager
    from ledger_db.orm.base import Base
    from ledger_db.orm.pages import Page
    from ledger_db.orm.repository import AsyncRepository, Repository
    from ledger_db.orm.unit_of_work import AsyncUnitOfWork, UnitOfWork
    from ledger_db.settings import Settings

__all__ = [
    "AsyncRepository",
    "AsyncUnitOfWork",
    "Base",
    "ConfigurationError",
    "ConnectionManager",
    "CredentialProvider",
    "CredentialSource",
    "Credentials",
    "CredentialsInvalid",
    "CredentialsUnavailable",
    "CursorInvalid",
    "HealthReport",
    "LedgerDBError",
    "LoginRefused",
    "ManagerClosed",
    "NotFound",
    "OutcomeUnknown",
    "Page",
    "Password",
    "RdsIamSource",
    "Repository",
    "RetriesExhausted",
    "Retryable",
    "RotationFailed",
    "Saturated",
    "SecretsManagerSource",
    "ServerUnreachable",
    "Settings",
    "StaticSource",
    "UnitOfWork",
    "default_manager",
]

# Imported at first use: the rotation Lambda imports ledger_db.rotation, hence this file, and must not pay for
# SQLAlchemy and pydantic.
_HOME = {
    "AsyncRepository": "ledger_db.orm.repository",
    "AsyncUnitOfWork": "ledger_db.orm.unit_of_work",
    "Base": "ledger_db.orm.base",
    "ConnectionManager": "ledger_db.manager",
    "CredentialProvider": "ledger_db.credentials.provider",
    "CredentialSource": "ledger_db.credentials.model",
    "Credentials": "ledger_db.credentials.model",
    "HealthReport": "ledger_db.health",
    "Page": "ledger_db.orm.pages",
    "Password": "ledger_db.credentials.model",
    "RdsIamSource": "ledger_db.credentials.rds_iam",
    "Repository": "ledger_db.orm.repository",
    "SecretsManagerSource": "ledger_db.credentials.secrets_manager",
    "Settings": "ledger_db.settings",
    "StaticSource": "ledger_db.credentials.static",
    "UnitOfWork": "ledger_db.orm.unit_of_work",
    "default_manager": "ledger_db.default",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - costs nothing until asked for

        return version("ledger-db")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "ledger_db.errors")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
