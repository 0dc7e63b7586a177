"""What does a type checker know of a synchronous program?"""

from collections.abc import Sequence
from typing import assert_type

from redis import CredentialProvider, Redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ledger_db import (
    ConfigurationError,
    ConnectionManager,
    Credentials,
    CredentialSource,
    HealthReport,
    LedgerDBError,
    LoginRefused,
    Password,
    RdsIamSource,
    Retryable,
    Settings,
    StaticSource,
    default_manager,
    redis_credentials,
)


class Vault:
    """Somebody's own source: it has the three names, and derives from nothing."""

    name = "vault"
    rotates = True

    def fetch(self, stage: str) -> Credentials:
        """Return the same for every label."""
        return Credentials("ada", Password("made up"), "1", "localhost", 5432, "ledger")


def count(session: Session) -> int:
    """Work, as `ConnectionManager.run` takes it."""
    return len(session.new)


def sessions(db: ConnectionManager) -> None:
    """Every way to a session gives SQLAlchemy's own."""
    with db.session(read_only=True, statement_timeout_seconds=1.5) as session:
        assert_type(session, Session)
    with db.begin(isolation_level="SERIALIZABLE") as session:
        assert_type(session, Session)
    assert_type(db.run(count, patience_seconds=1.0), int)
    assert_type(db.run(lambda session: session.in_transaction()), bool)
    db.session(isolation_level="AUTOCOMMIT", expire_on_commit=True)
    db.session(isolation_level="SERIALISABLE")  # type: ignore[arg-type] # there is no such level
    db.session(readonly=True)  # type: ignore[call-arg] # misspelt
    db.run(dict)  # type: ignore[arg-type] # work is given a session


def clients(db: ConnectionManager) -> None:
    """Engine and client are those that one knows."""
    assert_type(db.engine, Engine)
    assert_type(db.redis, Redis)
    assert_type(db.settings, Settings)
    assert_type(db.is_open, bool)


def life(settings: Settings, source: CredentialSource) -> None:
    """A manager is opened as a context manager or by its name, and sources are told apart from settings."""
    with ConnectionManager(settings, database_source=source) as db:
        assert_type(db, ConnectionManager)
    assert_type(ConnectionManager(redis_source=Vault()).open(), ConnectionManager)
    assert_type(default_manager(), ConnectionManager)
    assert_type(default_manager(settings), ConnectionManager)
    assert_type(redis_credentials("prod/redis"), CredentialProvider)
    ConnectionManager(
        settings, engine_options={"json_serializer": str}, session_class=Session, autoflush=False
    )
    ConnectionManager(settings, session_class=Engine)  # type: ignore[arg-type] # no class of sessions
    ConnectionManager("postgresql://localhost")  # type: ignore[arg-type] # settings are no URL
    ConnectionManager(database_source=settings)  # type: ignore[arg-type] # and no source


def sources(credentials: Credentials) -> Sequence[CredentialSource]:
    """What comes with the library is a source, and so is what a user writes."""
    assert_type(credentials.password, Password)
    return [
        Vault(),
        StaticSource(credentials),
        RdsIamSource(host="localhost", port=5432, username="ada", database="ledger"),
    ]


def health(db: ConnectionManager) -> None:
    """A health check reads fields, not dictionaries."""
    report = db.health()
    assert_type(report, HealthReport)
    assert_type((report.ok, report.state, report.transactions.retried), tuple[bool, str, int])
    for server in report.servers:
        assert_type((server.name, server.ok), tuple[str, bool])
        assert_type((server.credentials.version, server.credentials.generation), tuple[str | None, int])
        assert_type([pool.capacity - pool.checked_out for pool in server.pools], list[int])
    for probe in db.probe(max_age_seconds=1.0).servers:
        assert_type((probe.ok, probe.latency_seconds, probe.problem), tuple[bool, float | None, str | None])
    report.healthy  # type: ignore[attr-defined] # noqa: B018 - misspelt


def settings() -> Settings:
    """Settings are keyword arguments that are checked."""
    assert_type(Settings().startup_timeout_seconds, float)
    return Settings(database_secret_id="ledger", pool_size=3)


def errors(db: ConnectionManager) -> LedgerDBError | None:
    """One class to catch them all, one for what may be tried again."""
    try:
        db.open()
    except LoginRefused as error:
        return error
    except ConfigurationError:
        db.close()
    except Retryable as error:
        assert_type(error, Retryable)
        return error
    return None
