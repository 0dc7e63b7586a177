"""Does docs/tutorial.md lead from an empty folder to a service that is tested, and survives a rotation?"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from ledger_db.drill.service import Service, listen_from
from ledger_db.sandbox import Sandbox
from tests.support.neighbours import STRICT
from tests.support.pytest_runs import run_pytest
from tests.support.waiting import eventually

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of somebody who has copied every block into the file that its first line names."""
    for block in re.findall(r"^```(?:python|ini)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        (tmp_path / block.partition("\n")[0].removeprefix("# ")).write_text(block, encoding="utf-8")
    return tmp_path


@contextmanager
def uvicorn(project: Path, variables: dict[str, str]) -> Iterator[httpx.Client]:
    """Run the service as the tutorial does, but on a port that is free; give a client for it."""
    with listen_from(18_100) as listener:
        command = [sys.executable, *STRICT, "-m", "uvicorn", "service:app"]
        service = Service(
            [*command, "--app-dir", str(project), "--fd", str(listener.fileno())],
            listener=listener,
            ready_path="/health/live",
            environment=variables,
        )
        with service, httpx.Client(base_url=service.url, trust_env=False) as client:
            service.wait_ready()
            yield client


def requests_of(section: str) -> list[list[str]]:
    """Return the words of each ``curl`` in a section."""
    (text,) = re.findall(rf"^## \d+\. {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for line in re.findall(r"^curl -s .*$", text, re.MULTILINE)]


def send(client: httpx.Client, words: list[str]) -> httpx.Response:
    """Do what a ``curl`` of the tutorial does."""
    (url,) = (word for word in words if word.startswith(ADDRESS))
    path = url.removeprefix(ADDRESS)
    if "-d" not in words:
        return client.get(path)
    name, _, value = words[words.index("-H") + 1].partition(": ")
    return client.post(path, content=words[words.index("-d") + 1], headers={name: value})


def clean(**more: str) -> dict[str, str]:
    """Return the environment of a stranger's shell."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("LEDGER_DB_", "AWS_"))}
    return {**mine, **more}


def run(project: Path, *command: str, environment: dict[str, str]) -> str:
    """Run a program of the tutorial; return what it printed, and allow no word on stderr."""
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


@pytest.fixture
def guests(box: Sandbox) -> Iterator[Sandbox]:
    """Servers without the tutorial's table, before and after."""
    with closing(box.postgres.connect(dbname=box.postgres.database)) as admin, admin.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS guests")
        yield box
        cursor.execute("DROP TABLE IF EXISTS guests")


def test_the_service_answers_on_a_file_of_sqlite(project: Path) -> None:
    """The first look needs no server at all, and shows what the tutorial says that it shows."""
    variables = {
        "LEDGER_DB_DATABASE_URL": f"sqlite:///{project / 'dev.db'}",
        "LEDGER_DB_PROFILE": "development",
    }
    with uvicorn(project, variables) as client:
        answers = [send(client, words) for words in requests_of("A service")]

    assert [answer.status_code for answer in answers] == [201, 409, 404, 200]
    assert answers[1].headers["Content-Type"] == "application/problem+json"


def test_its_tests_pass(project: Path) -> None:
    """Whoever copies the tests has tests that pass, on a real PostgreSQL, without a warning."""
    done = run_pytest(project, *STRICT)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_the_service_goes_on_through_a_rotation(project: Path, guests: Sandbox) -> None:
    """The command of the tutorial changes the password, and the service is on the new version."""
    (rotate,) = re.findall(r"^ledger-db (rotate .*)$", PAGE, re.MULTILINE)
    command = str(Path(sys.executable).with_name("ledger-db"))
    with uvicorn(project, guests.environment) as client:

        def version() -> str:
            (words,) = requests_of("A rotation")
            manager = send(client, words).raise_for_status().json()["managers"]["default"]
            return str(manager["servers"]["PostgreSQL"]["credentials"]["version"])

        before = version()
        subprocess.run(
            [command, *shlex.split(rotate)],
            env=clean(**guests.environment),
            check=True,
            capture_output=True,
            timeout=60,
        )
        assert client.post("/guests", json={"name": "Zoe"}).status_code == 201

        eventually(lambda: version() != before, "the service follows")


def test_the_program_that_rotates_its_own_password_runs(project: Path) -> None:
    """It brings its own servers, and says how many requests did not fail."""
    printed = run(project, sys.executable, "-W", "error", "rotation.py", environment=clean())

    assert "none failed" in printed


def test_the_script_runs(project: Path, box: Sandbox) -> None:
    """It needs nothing but the environment."""
    printed = run(project, sys.executable, "-W", "error", "script.py", environment=clean(**box.environment))

    assert printed.splitlines()[-1] == "well"
