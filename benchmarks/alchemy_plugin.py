"""
Lets SQLAlchemy's own tests run on engines of ours: a plugin of pytest, for `alchemy_suites`.

Each engine that those tests make is given what a manager gives to its own: logins, stamps, and what tells
the truth of a COMMIT.  The pool stays the one that the test asked for.
"""

from functools import partial
from typing import Any
from unittest.mock import Mock

from sqlalchemy import URL, event
from sqlalchemy.testing import provision

from ledger_db.answers.secret import Password
from ledger_db.connections.engines import EngineFactory, EngineOptions
from ledger_db.connections.login import Logins
from ledger_db.connections.stamping import stamp_connections
from ledger_db.connections.tls import asyncpg_security, libpq_security
from ledger_db.credentials.model import Credentials
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.static import StaticSource

OPTIONS = EngineOptions(sslmode="disable")

before = provision.post_configure_testing_engine


def make_ours(url: URL, engine: Any, options: dict[str, Any], scope: str) -> None:
    """Do to *engine* what a manager does to its own, after what SQLAlchemy's tests do."""
    before(url, engine, options, scope)
    core = getattr(engine, "sync_engine", engine)
    # A test with a driver of its own, made of mocks, has no socket to look at.
    if (
        not url.drivername.startswith("postgresql")
        or url.host is None
        or isinstance(core.dialect.dbapi, Mock)
    ):
        return
    credentials = Credentials(
        version="1",
        host=url.host,
        port=url.port or 5432,
        username=url.username or "",
        password=Password(str(url.password or "")),
        database=url.database or "postgres",
    )
    provider = CredentialProvider(StaticSource(credentials))
    provider.load()
    logins = Logins(provider)
    security = asyncpg_security if core.dialect.driver == "asyncpg" else libpq_security
    event.listen(core, "do_connect", _forget_address)
    stamp_connections(core, logins, partial(security, OPTIONS))
    EngineFactory(logins, OPTIONS)._listen(core)  # noqa: SLF001 - what it does to an engine of its own


def _forget_address(dialect: object, record: object, cargs: object, cparams: dict[str, Any]) -> None:
    # The URL of a manager's engine names none: the credentials do.
    for name in ("host", "port", "user", "password", "dbname", "database"):
        cparams.pop(name, None)


provision.post_configure_testing_engine = make_ours
