"""
Connections to PostgreSQL and Redis that keep working while their passwords rotate.

The names below are all that users need; the rest is reached through them.
"""

from typing import TYPE_CHECKING

from ledger_db._front_door import front_door

if TYPE_CHECKING:
    from ledger_db._version import __version__ as __version__
    from ledger_db.answers.secret import Password as Password
    from ledger_db.credentials.model import (
        Credentials as Credentials,
        CredentialSource as CredentialSource,
    )
    from ledger_db.credentials.provider import CredentialProvider as CredentialProvider
    from ledger_db.credentials.rds_iam import RdsIamSource as RdsIamSource
    from ledger_db.credentials.secrets_manager import SecretsManagerSource as SecretsManagerSource
    from ledger_db.credentials.static import StaticSource as StaticSource
    from ledger_db.errors import (
        ConfigurationError as ConfigurationError,
        CredentialsInvalid as CredentialsInvalid,
        CredentialsUnavailable as CredentialsUnavailable,
        CursorInvalid as CursorInvalid,
        LedgerDBError as LedgerDBError,
        LoginRefused as LoginRefused,
        ManagerClosed as ManagerClosed,
        NotFound as NotFound,
        OutcomeUnknown as OutcomeUnknown,
        RetriesExhausted as RetriesExhausted,
        Retryable as Retryable,
        RotationFailed as RotationFailed,
        Saturated as Saturated,
        ServerUnreachable as ServerUnreachable,
    )
    from ledger_db.integrations.redis_credentials import redis_credentials as redis_credentials
    from ledger_db.manager.connection_manager import ConnectionManager as ConnectionManager
    from ledger_db.manager.default import default_manager as default_manager
    from ledger_db.manager.health import HealthReport as HealthReport
    from ledger_db.orm.base import Base as Base
    from ledger_db.orm.pages import Page as Page
    from ledger_db.orm.repository import AsyncRepository as AsyncRepository, Repository as Repository
    from ledger_db.orm.unit_of_work import AsyncUnitOfWork as AsyncUnitOfWork, UnitOfWork as UnitOfWork
    from ledger_db.settings import Settings as Settings
else:
    # At first use: the rotation Lambda passes through here, and must not pay for SQLAlchemy and pydantic.
    __getattr__, __dir__ = front_door(__name__)
