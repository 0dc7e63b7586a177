"""Has the sandbox the extensions of a first migration, and what does one hear of those that it lacks?"""

import traceback
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger_db import ConnectionManager, Settings
from ledger_db.sandbox import Sandbox
from ledger_db.testing import isolated
from tests.support.any_driver import DRIVERS, client_of
from tests.support.migrations_project import Project
from tests.support.neighbours import STRICT
from tests.support.pytest_runs import run_pytest

DEBIAN = Path("/usr/lib/postgresql/15/bin")
# What an application's role may create by itself, and docs/testing.md names.
EVERYWHERE = (
    *(
        "citext",
        "hstore",
        "pg_trgm",
        "btree_gin",
        "btree_gist",
        "unaccent",
        "ltree",
        "intarray",
        "fuzzystrmatch",
    ),
    *("tablefunc", "cube", "isn", "seg", "dict_int", "tcn"),
)
IN_CONTRIB = (*EVERYWHERE, "uuid-ossp", "pgcrypto")
FOR_SUPERUSERS = ("pg_stat_statements", "postgres_fdw", "dblink")
# No contrib has it, and no wheel.
MISSING = 'CREATE EXTENSION IF NOT EXISTS "timescaledb"'


@pytest.fixture
def database(environment: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database of the test's own, to which the environment leads."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with closing(environment.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} OWNER ledger_owner")
    monkeypatch.setenv("LEDGER_DB_DATABASE_NAME", name)
    yield name
    with closing(environment.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def said(error: BaseException) -> str:
    """Return what a person sees of *error*."""
    return "".join(traceback.format_exception(error))


def create(db: ConnectionManager, *names: str) -> list[str]:
    """Create extensions as the application does; return those that are there then."""
    with db.begin() as session:
        for name in names:
            session.execute(text(f'CREATE EXTENSION "{name}"'))
        return list(session.execute(text("SELECT extname FROM pg_extension")).scalars())


def test_a_first_migration_finds_its_extensions(database: str) -> None:
    """The application's own role creates what most projects ask for."""
    with ConnectionManager(Settings(redis_secret_id=None)) as db:
        assert set(EVERYWHERE) <= set(create(db, *EVERYWHERE))


def test_all_of_contrib_is_there_with_debian_s_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way out that the message names leads out: uuid-ossp and pgcrypto too, and they work."""
    if not (DEBIAN / "postgres").exists():
        pytest.skip("needs Debian's package postgresql-15")
    monkeypatch.setenv("LEDGER_DB_PG_BIN", str(DEBIAN))
    with Sandbox() as box:
        for name, value in box.environment.items():
            monkeypatch.setenv(name, value)
        with ConnectionManager(Settings(redis_secret_id=None)) as db:
            assert set(IN_CONTRIB) <= set(create(db, *IN_CONTRIB))
            with db.session() as session:
                made = session.execute(text("SELECT uuid_generate_v4(), crypt('x', gen_salt('bf'))")).one()

    assert all(made)


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_extension_that_the_server_lacks_names_the_way_out(database: str, driver: str) -> None:
    """Whichever driver hears that it is not available, a person reads who chose the server."""
    with (
        client_of(driver, Settings(redis_secret_id=None)) as client,
        pytest.raises(DBAPIError, match="not available") as refused,
    ):
        client.begin(lambda session: session.execute(text(MISSING)))

    assert "LEDGER_DB_PG_BIN" in said(refused.value)


def test_an_isolated_test_names_it_too(database: str) -> None:
    """And once."""
    with (
        ConnectionManager(Settings(profile="test", redis_secret_id=None)) as db,
        isolated(db) as one,
        pytest.raises(DBAPIError) as refused,
        one.begin() as session,
    ):
        session.execute(text(MISSING))

    assert said(refused.value).count("LEDGER_DB_PG_BIN") == 1


def test_the_superuser_of_the_sandbox_hears_it_too(box: Sandbox) -> None:
    """Who prepares a database by hand is as far from the server's folder."""
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.Error) as refused:
            cursor.execute(MISSING)

        assert "LEDGER_DB_PG_BIN" in said(refused.value)


def test_a_migration_that_lacks_an_extension_names_it(database: str, tmp_path: Path) -> None:
    """Alembic's command shows it at the end of what it shows."""
    project = Project.create(tmp_path)
    project.add("0001", f"op.execute('{MISSING}')")
    status, output = project.run("upgrade", "head")

    assert status != 0
    assert "LEDGER_DB_PG_BIN" in output


def test_a_report_of_pytest_names_it(tmp_path: Path) -> None:
    """A project whose tables cannot be made reads in the report what to do."""
    (tmp_path / "conftest.py").write_text(
        f"""
import pytest
from sqlalchemy import text

@pytest.fixture(scope="session")
def ledger_db_schema(ledger_db_manager):
    with ledger_db_manager.begin() as session:
        session.execute(text('{MISSING}'))
""",
        encoding="utf-8",
    )
    (tmp_path / "test_it.py").write_text("def test_it(ledger_db_session): pass\n", encoding="utf-8")
    run = run_pytest(tmp_path, *STRICT, "-p", "no:asyncio")

    assert "1 error in" in run.stdout, run.stdout + run.stderr
    assert "LEDGER_DB_PG_BIN" in run.stdout


@pytest.mark.parametrize("name", FOR_SUPERUSERS)
def test_an_extension_for_superusers_says_who_creates_it(
    database: str, environment: Sandbox, name: str
) -> None:
    """The application may not; what it is told to do works."""
    statement = text(f"CREATE EXTENSION IF NOT EXISTS {name}")
    with ConnectionManager(Settings(redis_secret_id=None)) as db:
        with pytest.raises(DBAPIError) as refused, db.begin() as session:
            session.execute(statement)
        with (
            closing(environment.postgres.connect(dbname=database)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(f"CREATE EXTENSION {name}")
        with db.begin() as session:
            session.execute(statement)

    assert "Sandbox.postgres.connect()" in said(refused.value)


def test_no_other_error_has_that_advice(database: str) -> None:
    """A statement that is refused for another reason, or a server elsewhere, is no matter of the sandbox."""
    with ConnectionManager(Settings(redis_secret_id=None)) as db:
        for statement in (
            "CREATE EXTENSION citext VERSION 'x y'",
            "SELECT 1 FROM pg_authid",
            "CREATE TABLE ()",
        ):
            with pytest.raises(DBAPIError) as refused, db.begin() as session:
                session.execute(text(statement))
            assert not getattr(refused.value, "__notes__", [])
