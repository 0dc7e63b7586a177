"""Do the fixtures work in somebody else's project, whichever plugins that has?"""

import subprocess
from pathlib import Path

import pytest

from ledger_db.sandbox import Sandbox
from tests.support.pytest_runs import run_pytest

AUTO = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
STRICT = ("-o", "asyncio_mode=strict", "-o", "asyncio_default_fixture_loop_scope=function")
NO_ASYNCIO = ("-p", "no:asyncio")

# A server of the project's own, as far as the fixtures are concerned: it is in the environment.
CONFTEST = """
import pytest
from ledger_db import Settings

@pytest.fixture(scope="session")
def ledger_db_settings():
    return Settings(profile="test")
"""
# A table that is made twice proves that it was undone once.
PRELUDE = """
import asyncio
import pytest
from sqlalchemy import text

async def helper(manager):
    async with manager.async_begin() as session:
        return (await session.execute(text("SELECT 1"))).scalar_one()

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""
TESTS = """
{mark}
@pytest.mark.parametrize("turn", [1, 2])
async def test_{name}(ledger_db_async_isolated, ledger_db_async_session, ledger_db_session, turn):
    ledger_db_session.execute(text("CREATE TABLE plugin_rows (id int)"))
    ledger_db_session.rollback()
    await ledger_db_async_session.execute(text("CREATE TABLE plugin_rows (id int)"))
    await ledger_db_async_session.commit()
    assert await asyncio.create_task(helper(ledger_db_async_isolated)) == 1
"""
STRICTLY = {
    "own_loop": "@pytest.mark.asyncio",
    "one_loop_for_all": '@pytest.mark.asyncio(loop_scope="session")',
    "one_loop_for_a_module": '@pytest.mark.asyncio(loop_scope="module")',
    "anyio_beside_asyncio": "@pytest.mark.anyio",
}
PROJECTS = {
    "asyncio in strict mode": (STRICTLY, STRICT),
    "asyncio in auto mode": ({"auto": ""}, (*AUTO, "-o", "asyncio_default_test_loop_scope=session")),
    "anyio alone": ({"anyio": "@pytest.mark.anyio"}, NO_ASYNCIO),
}


def run_tests(folder: Path, box: Sandbox, tests: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run *tests* against the servers of *box*, with warnings as errors."""
    (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (folder / "test_it.py").write_text(tests, encoding="utf-8")
    return run_pytest(folder, "-W", "error", *arguments, environment=box.environment)


@pytest.mark.parametrize(("marks", "arguments"), PROJECTS.values(), ids=PROJECTS)
def test_asynchronous_tests_work_with_every_plugin(
    box: Sandbox, tmp_path: Path, marks: dict[str, str], arguments: tuple[str, ...]
) -> None:
    """Whoever gives the event loop, the connection is opened, used, and closed on the one of the test."""
    tests = [TESTS.format(name=name, mark=mark) for name, mark in marks.items()]
    run = run_tests(tmp_path, box, "".join([PRELUDE, *tests]), *arguments)

    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{2 * len(marks)} passed" in run.stdout


def test_without_a_plugin_for_event_loops_one_is_told_what_to_install(box: Sandbox, tmp_path: Path) -> None:
    """Synchronous tests need no such plugin; what needs one says so."""
    tests = """
from sqlalchemy import text

def test_synchronous(ledger_db_session):
    assert ledger_db_session.execute(text("SELECT 1")).scalar_one() == 1

def test_asynchronous(ledger_db_async_session):
    pass
"""
    run = run_tests(tmp_path, box, tests, *NO_ASYNCIO, "-p", "no:anyio")

    assert "1 passed, 1 error" in run.stdout, run.stdout + run.stderr
    assert "pip install pytest-asyncio" in run.stdout


def test_tests_that_ask_for_nothing_pay_nothing(tmp_path: Path) -> None:
    """In a project that only has ledger-db installed, the plugin loads, starts and sets nothing."""
    (tmp_path / "test_it.py").write_text(
        """
import os
import sys

def test_nothing_is_loaded():
    loaded = {"sqlalchemy", "pydantic", "boto3", "redis", "ledger_db.sandbox"} & set(sys.modules)
    assert loaded == set()
    assert not [name for name in os.environ if name.startswith(("LEDGER_DB_", "AWS_"))]
""",
        encoding="utf-8",
    )
    run = run_pytest(tmp_path, "-W", "error", *AUTO)

    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout


def test_the_sandbox_is_healed_and_the_environment_restored(tmp_path: Path) -> None:
    """Without a conftest.py: a test that fails in the middle of a fault leaves nothing to the next one."""
    (tmp_path / "test_it.py").write_text(
        """
import os
from ledger_db import Settings
from sqlalchemy import text

def ask(manager):
    with manager.begin() as session:
        return session.execute(text("SELECT 1")).scalar_one()

def variables():
    return [name for name in os.environ if name.startswith(("LEDGER_DB_", "AWS_"))]

def test_fails_with_everything_down(ledger_db_manager, ledger_db_faults):
    ledger_db_faults.postgres.stop()
    ledger_db_faults.redis.stop()
    ledger_db_faults.secrets_manager.down()
    ask(ledger_db_manager)

def test_all_is_well(ledger_db_manager):
    assert ask(ledger_db_manager) == 1
    assert ledger_db_manager.redis.ping()
    assert not variables()

def test_environment(ledger_db_environment, ledger_db_sandbox):
    assert Settings().database_secret_id == ledger_db_sandbox.database_secret_id
    assert variables()

def test_environment_is_gone():
    assert not variables()
""",
        encoding="utf-8",
    )
    run = run_pytest(tmp_path, "-W", "error", *AUTO)

    assert "1 failed, 3 passed in" in run.stdout, run.stdout + run.stderr
    assert "test_fails_with_everything_down" in run.stdout


def test_each_worker_of_xdist_has_servers_of_its_own(tmp_path: Path) -> None:
    """Tests that run at the same time do not meet in one database."""
    (tmp_path / "test_it.py").write_text(
        """
import pathlib
import pytest

@pytest.mark.parametrize("turn", range(2))
def test_port(ledger_db_sandbox, turn, worker_id):
    pathlib.Path(f"{worker_id}.port").write_text(str(ledger_db_sandbox.postgres.port))
""",
        encoding="utf-8",
    )
    run = run_pytest(tmp_path, "-W", "error", *AUTO, "-n", "2")
    ports = [path.read_text() for path in tmp_path.glob("*.port")]

    assert run.returncode == 0, run.stdout + run.stderr
    assert len(set(ports)) == len(ports) == 2
