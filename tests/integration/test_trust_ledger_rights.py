"""Who may change the ledger?  The service may add to it, and nobody may take from it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from alembic import command
from psycopg2.errors import InsufficientPrivilege

from examples.trust_ledger.app import create_app
from examples.trust_ledger.migrate import OWNER, SERVICE, configuration
from ledger_db import ConfigurationError
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.seed import FIRST_ROLE, SECOND_ROLE
from tests.support.trust_ledger import (
    APPLICATION,
    drop_ledger,
    migrate_ledger,
    prepare_ledger,
    superuser_manager,
    tampering,
)

PROJECT = Path(__file__).resolve().parents[2]

CHANGES = (
    "UPDATE trust_ledger.entries SET amount = 1",
    "DELETE FROM trust_ledger.entries",
    "TRUNCATE trust_ledger.entries",
    "DELETE FROM trust_ledger.chain_end",
    "TRUNCATE trust_ledger.chain_end",
    "UPDATE trust_ledger.chain_end SET id = id + 2",
    "UPDATE trust_ledger.chain_end SET id = 0",
)
"""What would take something from the ledger, or move its end to where it is not."""

BEYOND_THE_SERVICE = (
    "UPDATE trust_ledger.chain_end SET single = false",
    "INSERT INTO trust_ledger.chain_end VALUES (false, 7, '')",
    "ALTER TABLE trust_ledger.entries DISABLE TRIGGER ALL",
    "DROP TRIGGER entries_are_only_added ON trust_ledger.entries",
    "DROP TABLE trust_ledger.entries",
    "DROP SCHEMA trust_ledger CASCADE",
    "CREATE TABLE trust_ledger.mine (id int)",
    "UPDATE trust_ledger.alembic_version SET version_num = '0000'",
    f"SET ROLE {OWNER}",
    "SET session_replication_role = replica",
)
"""What the owner, or a superuser, could do to get round the guards."""


@pytest.fixture
def ledger(box: Sandbox) -> Sandbox:
    """Real servers with a ledger of one entry."""
    prepare_ledger(box)
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        add_entry(cursor)
    return box


@pytest.fixture(params=[FIRST_ROLE, SECOND_ROLE])
def service(ledger: Sandbox, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Log in as one of the two roles that the service takes turns with."""
    with closing(ledger.postgres.connect()) as connection, connection.cursor() as cursor:
        # As a login of that role: it acts as the application's group.
        cursor.execute(f"SET SESSION AUTHORIZATION {request.param}")
        cursor.execute(f"SET ROLE {APPLICATION}")
        yield cursor


@pytest.fixture
def owner(ledger: Sandbox) -> Iterator[Any]:
    """Act as the owner of the tables, whom nobody logs in as."""
    with closing(ledger.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"SET SESSION AUTHORIZATION {OWNER}")
        yield cursor


def add_entry(cursor: Any) -> None:
    """Add some entry at the end."""
    cursor.execute("UPDATE trust_ledger.chain_end SET id = id + 1, hash = repeat('1', 64) RETURNING id")
    (entry_id,) = cursor.fetchone()
    cursor.execute(
        "INSERT INTO trust_ledger.entries VALUES (%s, 'ada', 1, '', %s, %s, '', '')",
        (entry_id, datetime.now(UTC), f"key-{entry_id}"),
    )


def test_the_service_can_add_and_read(service: Any) -> None:
    """Each of the two roles has what the service needs."""
    add_entry(service)
    service.execute("SELECT count(*) FROM trust_ledger.entries")

    assert service.fetchone() == (2,)


@pytest.mark.parametrize("statement", [*CHANGES, *BEYOND_THE_SERVICE])
def test_the_service_can_not_change_the_ledger(service: Any, statement: str) -> None:
    """Whoever takes over the service can not rewrite what it has recorded."""
    with pytest.raises(InsufficientPrivilege):
        service.execute(statement)


@pytest.mark.parametrize("statement", CHANGES)
def test_not_even_the_owner_changes_the_ledger_by_accident(owner: Any, statement: str) -> None:
    """A statement of a person or a migration that would change entries is refused."""
    with pytest.raises(InsufficientPrivilege, match="append-only"):
        owner.execute(statement)


def test_the_ledger_has_one_end(owner: Any) -> None:
    """A second end would be a second chain."""
    with pytest.raises(psycopg2.IntegrityError):
        owner.execute("INSERT INTO trust_ledger.chain_end VALUES (false, 7, '')")


@pytest.mark.parametrize("role", [OWNER, SERVICE])
def test_nobody_logs_in_as_a_role_of_the_ledger(ledger: Sandbox, role: str) -> None:
    """There is no password that leads to the tables' owner."""
    with tampering(ledger) as cursor:
        cursor.execute("SELECT rolcanlogin, rolsuper FROM pg_roles WHERE rolname = %s", (role,))

        assert cursor.fetchone() == (False, False)


def start_migration(box: Sandbox, *, as_secret: str) -> subprocess.Popen[str]:
    """Run the command that a deployment runs."""
    return subprocess.Popen(
        [sys.executable, "-m", "examples.trust_ledger.migrate"],
        cwd=PROJECT,
        env={
            **os.environ,
            **box.environment,
            "LEDGER_DB_DATABASE_SECRET_ID": as_secret,
            "LEDGER_DB_DATABASE_NAME": box.postgres.database,
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_first_migrations_may_run_at_once(ledger: Sandbox) -> None:
    """Deployers that start at the same moment on an empty database take turns, and all succeed."""
    drop_ledger(ledger)
    deployers = [start_migration(ledger, as_secret=ledger.admin_secret_id) for _ in range(3)]
    complaints = [deployer.communicate(timeout=60)[1] for deployer in deployers]
    with tampering(ledger) as cursor:
        cursor.execute("SELECT id FROM chain_end")

        assert cursor.fetchall() == [(0,)]
    assert [deployer.returncode for deployer in deployers] == [0, 0, 0], complaints


def test_migrations_that_ran_before_change_nothing(ledger: Sandbox) -> None:
    """A deployment without a new migration leaves every entry where it is."""
    migrate_ledger(ledger)
    with tampering(ledger) as cursor:
        cursor.execute("SELECT count(*) FROM entries")

        assert cursor.fetchone() == (1,)


def test_a_role_that_may_not_migrate_is_told_so(ledger: Sandbox) -> None:
    """One line says what is the matter, and names no password."""
    drop_ledger(ledger)
    deployer = start_migration(ledger, as_secret=ledger.database_secret_id)
    complaint = deployer.communicate(timeout=60)[1]

    assert deployer.returncode == 1
    assert "permission denied" in complaint
    assert "Traceback" not in complaint


def test_the_migrations_make_what_the_code_expects(ledger: Sandbox) -> None:
    """Alembic finds no difference between the tables and the models."""
    with superuser_manager(ledger) as db, db.engine.connect() as connection:
        command.check(configuration(connection))


async def start_service() -> None:
    """Start the service and end it."""
    app = create_app()
    async with app.router.lifespan_context(app):
        pass


async def test_the_service_refuses_an_empty_database(ledger: Sandbox, environment: Sandbox) -> None:
    """It does not start, and says what to run."""
    drop_ledger(ledger)
    with pytest.raises(ConfigurationError, match=r"lacks the migrations 0001, 0002; run .*migrate"):
        await start_service()


async def test_the_service_refuses_a_database_that_is_behind(ledger: Sandbox, environment: Sandbox) -> None:
    """Half of the migrations are not enough; only what is missing is named."""
    with tampering(ledger) as cursor:
        cursor.execute("UPDATE alembic_version SET version_num = '0001'")
    try:
        with pytest.raises(ConfigurationError, match="lacks the migrations 0002;"):
            await start_service()
    finally:
        drop_ledger(ledger)


async def test_the_service_starts_on_a_database_that_is_ahead(ledger: Sandbox, environment: Sandbox) -> None:
    """While a newer version is rolled out, the older one can still be restarted."""
    with tampering(ledger) as cursor:
        cursor.execute("UPDATE alembic_version SET version_num = '0003'")
    try:
        await start_service()
    finally:
        drop_ledger(ledger)


async def test_a_service_without_rights_says_so(ledger: Sandbox, environment: Sandbox) -> None:
    """A role that nobody has made a member is told what is missing, in the words of this service."""
    with tampering(ledger) as cursor:
        cursor.execute(f"REVOKE {SERVICE} FROM {APPLICATION}")
    try:
        with pytest.raises(ConfigurationError, match="TRUST_LEDGER_SERVICE_MEMBER"):
            await start_service()
    finally:
        drop_ledger(ledger)
