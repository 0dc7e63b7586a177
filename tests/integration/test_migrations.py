"""Does Alembic migrate through the manager: every kind of command, two at once, through a rotation?"""

import asyncio
import json
import logging
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.util import CommandError
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ledger_db import ConfigurationError, ConnectionManager, Settings
from ledger_db.migrations import MigrationsBusy, check_migrated, pending_revisions
from ledger_db.sandbox import Sandbox
from tests.support.events import event_of
from tests.support.migrations_project import Project
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import subprocess

CREATE_ONE = "op.create_table('one', sa.Column('id', sa.BigInteger(), primary_key=True))"
CREATE_TWO = "op.create_table('two', sa.Column('id', sa.BigInteger(), primary_key=True))"


def execute(box: Sandbox, statement: str, *, database: str | None = None) -> None:
    """Do something as the superuser."""
    where = {"database": database} if database else {}
    with closing(box.postgres.connect(**where)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def database(environment: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database of the test's own, to which the environment leads."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    execute(environment, f"CREATE DATABASE {name} OWNER ledger_owner")
    monkeypatch.setenv("LEDGER_DB_DATABASE_NAME", name)
    yield name
    execute(environment, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A SQLite file to which the environment leads."""
    monkeypatch.setenv("LEDGER_DB_DATABASE_URL", f"sqlite:///{tmp_path}/dev.db")
    return tmp_path / "dev.db"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with models and no migrations yet."""
    return Project.create(tmp_path)


@pytest.fixture
def two_steps(project: Project) -> Project:
    """A project with two migrations."""
    project.add("0001", CREATE_ONE, "op.drop_table('one')")
    project.add("0002", CREATE_TWO, "op.drop_table('two')", after="0001")
    return project


@contextmanager
def opened() -> Iterator[ConnectionManager]:
    """Open a manager for the database of the test."""
    with ConnectionManager(Settings().model_copy(update={"redis_secret_id": None})) as db:
        yield db


def tables() -> set[str]:
    """Return the tables that there are."""
    with opened() as db:
        return set(inspect(db.engine).get_table_names())


@pytest.mark.parametrize("kind", ["database", "sqlite"])
def test_a_project_is_migrated_up_and_down_by_the_command(
    request: pytest.FixtureRequest, kind: str, two_steps: Project
) -> None:
    """An env.py of two lines is all that Alembic's own command needs, and nothing is left open."""
    request.getfixturevalue(kind)
    up = two_steps.run("upgrade", "head")

    assert up[0] == 0, up[1]
    assert "Running upgrade 0001 -> 0002" in up[1]
    assert tables() == {"alembic_version", "one", "two"}

    command.downgrade(two_steps.config(), "0001")

    assert tables() == {"alembic_version", "one"}


@pytest.mark.parametrize("kind", ["database", "sqlite"])
def test_a_generated_migration_makes_what_the_models_say(
    request: pytest.FixtureRequest, kind: str, project: Project
) -> None:
    """After it there is no difference: types, time zones, names that PostgreSQL would cut, all of them."""
    request.getfixturevalue(kind)
    command.revision(project.config(), "everything", autogenerate=True, rev_id="0001")
    (written,) = (project.folder / "versions").glob("0001*.py")
    source = written.read_text()

    assert "sa.DateTime(timezone=True)" in source
    assert "sa.BigInteger().with_variant(sa.Integer(), 'sqlite')" in source
    assert "uq_customer_email" in source
    assert "ledger_db" not in source

    command.upgrade(project.config(), "head")
    command.check(project.config())


def test_a_migration_that_fails_leaves_the_ones_before_it_and_nothing_of_itself(
    database: str, two_steps: Project
) -> None:
    """Each migration is a transaction of its own."""
    two_steps.add("0003", "op.create_table('three')\nop.execute('SELECT 1 / 0')", after="0002")
    with pytest.raises(DBAPIError, match="division by zero"):
        command.upgrade(two_steps.config(), "head")

    assert tables() == {"alembic_version", "one", "two"}
    with opened() as db:
        assert pending_revisions(db.engine, two_steps.folder) == ("0003",)


def test_statements_are_printed_without_a_secret_or_a_server(
    two_steps: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reviews SQL needs no credentials: nothing is read and nothing is connected."""
    monkeypatch.setenv("LEDGER_DB_DATABASE_SECRET_ID", "nowhere")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1")
    two_steps.add("0003", "op.execute(\"INSERT INTO one SELECT 7 WHERE 'a' LIKE '%a'\")", after="0002")
    config = two_steps.config()
    command.upgrade(config, "head", sql=True)
    printed = config.output_buffer.getvalue()  # type: ignore[union-attr]

    assert "CREATE TABLE two" in printed
    assert "LIKE '%a'" in printed
    assert printed.count("COMMIT;") == 3


def test_statements_for_sqlite_are_printed_in_its_dialect(sqlite: Path, project: Project) -> None:
    """The settings say which dialect; the file is not even made."""
    project.add("0001", "op.execute(str(op.get_context().dialect.name))")
    config = project.config()
    command.upgrade(config, "head", sql=True)

    assert "sqlite" in config.output_buffer.getvalue()  # type: ignore[union-attr]
    assert not sqlite.exists()


def test_deployers_take_turns(database: str, project: Project) -> None:
    """Both succeed, and each migration runs once, also one that builds an index without blocking writers."""
    project.add("0001", f"{CREATE_ONE}\nop.execute('SELECT pg_sleep(0.3)')")
    project.add(
        "0002",
        "with op.get_context().autocommit_block():\n"
        "    op.create_index('ix_one', 'one', ['id'], postgresql_concurrently=True)",
        after="0001",
    )
    project.add("0003", CREATE_TWO, after="0002")
    deployers = [project.start("upgrade", "head") for _ in range(2)]
    outputs = [finish(deployer) for deployer in deployers]

    assert [status for status, _ in outputs] == [0, 0], outputs
    for step in ("-> 0001,", "0001 -> 0002,", "0002 -> 0003,"):
        assert sum(step in output for _, output in outputs) == 1


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Return the status of a process and what it printed."""
    with process:
        output, _ = process.communicate(timeout=60)
    return process.returncode, output


@pytest.mark.usefixtures("database")
def test_migrations_are_refused_behind_a_pooler_by_transaction(
    two_steps: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock that gives deployers their turn would stay on a connection of the pooler's, for nothing."""
    monkeypatch.setenv("LEDGER_DB_POOLER", "transaction")
    with pytest.raises(ConfigurationError, match="a session of their own"):
        command.upgrade(two_steps.config(), "head")

    assert tables() == set()


def test_a_deployer_waits_for_its_turn_only_so_long(
    database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says who has the turn and what to do; nothing is changed, and the next attempt succeeds."""
    project = Project.create(tmp_path, turn_timeout_seconds=0.2)
    project.add("0001", CREATE_ONE)
    # Whoever migrates has the lock until its transaction ends.
    with opened() as db, db.engine.begin() as holder:
        command.upgrade(project.config(connection=holder), "head")
        with pytest.raises(MigrationsBusy, match="pg_locks"):
            command.upgrade(project.config(), "head")
        assert "migrations.waiting" in [event_of(record) for record in caplog.records]
        command.current(project.config())  # looking does not wait
        holder.rollback()
    assert tables() == set()
    command.upgrade(project.config(), "head")
    assert tables() == {"alembic_version", "one"}


def test_a_migration_gives_up_a_table_that_is_in_use(database: str, tmp_path: Path) -> None:
    """It would hold up every request on the table behind it; the limit goes with the run."""
    project = Project.create(tmp_path, lock_timeout_seconds=0.2, statement_timeout_seconds=20)
    project.add("0001", CREATE_ONE)
    project.add("0002", "op.add_column('one', sa.Column('note', sa.Text()))", after="0001")
    with opened() as db:
        command.upgrade(project.config(manager=db), "0001")
        with db.engine.begin() as busy:
            busy.execute(text("SELECT * FROM one"))
            with pytest.raises(DBAPIError, match="lock timeout"):
                command.upgrade(project.config(manager=db), "head")
        command.upgrade(project.config(manager=db), "head")
        with db.engine.connect() as connection:
            assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "0"
            assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "0"


def test_new_tables_belong_to_the_role_that_is_named(
    database: str, environment: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An administrator's secret migrates, and the tables belong to an owner who cannot log in."""
    monkeypatch.setenv("LEDGER_DB_DATABASE_SECRET_ID", environment.admin_secret_id)
    project = Project.create(tmp_path, role="ledger_owner")
    project.add("0001", CREATE_ONE)
    command.upgrade(project.config(), "head")
    with opened() as db, db.engine.connect() as connection:
        owners = connection.execute(
            text("SELECT tablename, tableowner, current_user FROM pg_tables WHERE schemaname = 'public'")
        ).all()

    assert {(row[0], row[1]) for row in owners} == {
        ("one", "ledger_owner"),
        ("alembic_version", "ledger_owner"),
    }
    assert {row[2] for row in owners} == {environment.postgres.admin_user}


@pytest.mark.parametrize("profile", ["production", "test"])
def test_a_rotation_between_two_migrations_breaks_nothing(
    database: str, environment: Sandbox, project: Project, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """The one connection goes on; the next run logs in with what is valid then."""
    monkeypatch.setenv("LEDGER_DB_PROFILE", profile)
    monkeypatch.setenv("LEDGER_DB_REFRESH_INTERVAL_SECONDS", "0.1")
    started, go_on = project.folder / "started", project.folder / "go-on"
    project.add("0001", CREATE_ONE)
    project.add(
        "0002",
        f"""
        import pathlib, time
        pathlib.Path({str(started)!r}).touch()
        while not pathlib.Path({str(go_on)!r}).exists():
            time.sleep(0.02)
        {CREATE_TWO}
        """,
        after="0001",
    )
    process = project.start("upgrade", "head")
    eventually(started.exists, "the second migration is under way")
    environment.rotate_database("alternating-users")
    environment.rotate_database("single-user")
    go_on.touch()
    status, output = finish(process)

    assert status == 0, output
    assert tables() == {"alembic_version", "one", "two"}


def test_a_program_migrates_by_itself_through_its_manager_and_keeps_its_pool(
    database: str, two_steps: Project
) -> None:
    """No second login is configured; what the run sets stays on its own connection, which is closed."""
    with opened() as db:
        command.upgrade(two_steps.config(manager=db), "head")
        check_migrated(db.engine, two_steps.folder)
        with db.engine.connect() as connection:
            others = connection.execute(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid() AND application_name = 'ledger_db'"
                )
            ).scalar_one()
        (pool,) = db.health().servers[0].pools

    assert others == 0
    assert pool.checked_out == 0


async def test_a_program_without_synchronous_code_migrates_on_its_connection(
    database: str, two_steps: Project
) -> None:
    """All of it is one transaction: rolled back, there is nothing."""

    def migrate(connection: Connection) -> None:
        command.upgrade(two_steps.config(connection=connection), "head")

    async with ConnectionManager(Settings().model_copy(update={"redis_secret_id": None})) as db:
        async with db.async_engine.connect() as connection:
            transaction = await connection.begin()
            await connection.run_sync(migrate)
            await transaction.rollback()
            await connection.run_sync(migrate)
        async with db.async_engine.connect() as connection:
            missing = await connection.run_sync(pending_revisions, two_steps.folder)
        with pytest.raises(ConfigurationError, match="run_sync"):
            await asyncio.to_thread(
                command.upgrade, two_steps.config(connection=db.async_engine.connect()), "head"
            )

    assert missing == ()


def test_a_service_refuses_a_database_that_lacks_migrations(database: str, two_steps: Project) -> None:
    """The message says which are missing and what to run; a database that is ahead is fine."""
    with opened() as db:
        with pytest.raises(
            ConfigurationError, match=r"lacks 2 .* \(0001, 0002\); run 'alembic upgrade head'"
        ):
            check_migrated(db.engine, two_steps.folder)
        command.upgrade(two_steps.config(manager=db), "0001")
        assert pending_revisions(db.engine, two_steps.config()) == ("0002",)
        two_steps.add("0003", "pass", after="0002")
        command.upgrade(two_steps.config(manager=db), "head")
        (two_steps.folder / "versions" / "0003.py").unlink()
        check_migrated(db.engine, two_steps.folder)
        with pytest.raises(ConfigurationError, match="no migrations to compare with"):
            check_migrated(db.engine, two_steps.folder / "nowhere")


def test_a_migration_that_depends_on_another_branch_brings_it_along(database: str, project: Project) -> None:
    """What a merged or dependent migration is built on counts as done."""
    project.add("0001", CREATE_ONE)
    project.add("side", CREATE_TWO)
    project.add("0002", "pass", after="0001")
    second = project.folder / "versions" / "0002.py"
    second.write_text(second.read_text() + "\ndepends_on = 'side'\n")
    with opened() as db:
        command.upgrade(project.config(manager=db), "0002@head")
        missing = pending_revisions(db.engine, project.folder)

    assert missing == ()


def test_the_command_says_in_one_line_what_is_wrong(
    environment: Sandbox, two_steps: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person at a terminal reads what to mend, not a traceback."""
    monkeypatch.delenv("LEDGER_DB_DATABASE_SECRET_ID")
    status, output = two_steps.run("upgrade", "head", LEDGER_DB_REDIS_SECRET_ID="")

    assert status != 0
    assert "FAILED: " in output
    assert "LEDGER_DB_DATABASE_SECRET_ID" in output
    assert "Traceback" not in output


def test_no_output_and_no_log_holds_the_password(
    database: str, environment: Sandbox, two_steps: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """Not on success, not on a failed statement, not at DEBUG."""
    two_steps.add("0003", "op.execute('SELECT nothing')", after="0002")
    caplog.set_level(logging.DEBUG)
    with pytest.raises(SQLAlchemyError) as caught:
        command.upgrade(two_steps.config(), "head")
    _, output = two_steps.run("upgrade", "head")
    with closing(environment.client()) as client:
        secret = client.get_secret_value(SecretId=environment.database_secret_id)["SecretString"]
    password = json.loads(secret)["password"]

    assert "nothing" in output
    assert password not in output + caplog.text + str(caught.value)


def test_replacing_a_table_of_sqlite_keeps_the_rows_that_refer_to_it(sqlite: Path, project: Project) -> None:
    """Alembic drops the old table; with foreign keys on, that would delete other tables' rows as well."""
    project.add(
        "0001",
        f"""
        {CREATE_ONE}
        op.execute("CREATE TABLE part (one_id INTEGER REFERENCES one (id) ON DELETE CASCADE)")
        op.execute("INSERT INTO one VALUES (1)")
        op.execute("INSERT INTO part VALUES (1)")
        """,
    )
    project.add(
        "0002",
        "with op.batch_alter_table('one', recreate='always') as batch:\n"
        "    batch.add_column(sa.Column('note', sa.Text()))",
        after="0001",
    )
    command.upgrade(project.config(), "head")
    with opened() as db:
        with db.begin() as session:
            assert session.execute(text("SELECT count(*) FROM part")).scalar_one() == 1
            assert session.execute(text("SELECT count(note) FROM one")).scalar_one() == 0
        project.add("0003", "op.execute('DELETE FROM one')", after="0002")
        with pytest.raises(ConfigurationError, match="rows of part refer to rows that are not there"):
            command.upgrade(project.config(manager=db), "head")
        with db.begin() as session:
            assert session.execute(text("SELECT count(*) FROM one")).scalar_one() == 1
            assert session.execute(text("PRAGMA foreign_keys")).scalar_one() == 1


def test_a_downgrade_too_far_is_alembic_s_own_error(database: str, two_steps: Project) -> None:
    """What Alembic says about its own business is left as it is."""
    with pytest.raises(CommandError):
        command.downgrade(two_steps.config(), "-1")
