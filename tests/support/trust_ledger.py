"""How does a test get a ledger of the Trust Ledger service, migrated and empty?"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

import httpx
import psycopg2.errors
import pytest

from examples.trust_ledger.app import create_app
from examples.trust_ledger.migrate import OWNER as LEDGER_OWNER, SERVICE, migrate
from ledger_db import ConnectionManager, Credentials, Settings
from ledger_db.answers.secret import Password
from ledger_db.credentials.static import StaticSource
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.seed import OWNER

APPLICATION = OWNER
"""What both of the application's roles are members of, and act as."""


def superuser_manager(box: Sandbox) -> ConnectionManager:
    """Return a manager that logs in as who may do everything; it is not open yet."""
    postgres = box.postgres
    credentials = Credentials(
        username=postgres.admin_user,
        password=Password(postgres.admin_password),
        version="static",
        host=postgres.host,
        port=postgres.port,
        database=postgres.database,
    )
    settings = Settings(database_secret_id=None, redis_secret_id=None)
    return ConnectionManager(settings, database_source=StaticSource(credentials))


def migrate_ledger(box: Sandbox) -> None:
    """Bring the ledger in *box* to the newest version."""
    with superuser_manager(box) as db:
        migrate(db, service_member=APPLICATION)


def drop_ledger(box: Sandbox) -> None:
    """Leave nothing of the ledger, as in a new database."""
    with tampering(box) as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS trust_ledger CASCADE")
        for role in (SERVICE, LEDGER_OWNER):
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
            if cursor.fetchone():
                cursor.execute(f"DROP OWNED BY {role}")
                cursor.execute(f"DROP ROLE {role}")


@contextmanager
def tampering(box: Sandbox) -> Iterator[Any]:
    """Log in as the one role that can get round the guards of the ledger: a superuser who means to."""
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("SET search_path = trust_ledger")
        yield cursor


def empty_ledger(box: Sandbox) -> None:
    """Take out every entry, and what Redis remembers of them: no test relies on those of another."""
    with closing(box.redis.connect()) as redis:
        redis.flushall()
    with tampering(box) as cursor:
        cursor.execute("TRUNCATE entries")
        cursor.execute("UPDATE chain_end SET id = 0, hash = repeat('0', 64)")


def prepare_ledger(box: Sandbox) -> None:
    """Migrate the ledger if no test has yet, and empty it."""
    try:
        empty_ledger(box)
    except psycopg2.errors.UndefinedTable:
        migrate_ledger(box)


@asynccontextmanager
async def ledger_service(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, **settings: str
) -> AsyncIterator[httpx.AsyncClient]:
    """Run the service in this process, on an empty ledger; *settings* are names and values of LEDGER_DB_*."""
    for name, value in {**box.environment, **settings}.items():
        monkeypatch.setenv(name, value)
    prepare_ledger(box)
    app = create_app()
    async with (
        app.router.lifespan_context(app),
        # An error that no handler answers is an answer too, as it is behind a real server.
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://ledger",
            timeout=60,
        ) as client,
    ):
        yield client


async def append(service: httpx.AsyncClient, key: str, **changes: Any) -> httpx.Response:
    """Append an entry with the idempotency key *key*."""
    body = {"account": "ada", "amount": 1250, "memo": "rent"} | changes
    return await service.post("/entries", json=body, headers={"Idempotency-Key": key})


async def walk(service: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Verify the chain, and return the lines of the answer; the last one is the verdict."""
    answer = await service.get("/verify")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]
