"""Can a generated password be read anywhere after a rotation?"""

import io
import json
import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from ledger_db.redaction import hide_secrets_of_botocore
from ledger_db.rotation import journal
from ledger_db.rotation.failures import StepFailed
from ledger_db.sandbox import Sandbox
from tests.support.rotations import Rotations, new_client, new_token

ROTATIONS = 10


@pytest.fixture(scope="module")
def talkative() -> Iterator[Sandbox]:
    """A sandbox whose PostgreSQL logs every statement, and keeps statistics of every statement."""
    with Sandbox() as box:
        with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
            for setting, value in {
                "shared_preload_libraries": "pg_stat_statements",
                "pg_stat_statements.track_utility": "on",
                "log_statement": "all",
                "log_connections": "on",
                "log_min_error_statement": "error",
                "log_min_duration_statement": "0",
                "log_parameter_max_length_on_error": "-1",
            }.items():
                cursor.execute(f"ALTER SYSTEM SET {setting} TO '{value}'")
        box.postgres.stop()
        box.postgres.start()
        with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE EXTENSION pg_stat_statements")
        yield box


@pytest.fixture
def ear() -> Iterator[io.StringIO]:
    """What every logger says at DEBUG, with tracebacks, as plain text and as the function writes it."""
    stream, root = io.StringIO(), logging.getLogger()
    before = root.level
    handlers = [logging.StreamHandler(stream), logging.StreamHandler(stream)]
    handlers[1].setFormatter(journal.JSONLines())
    for handler in handlers:
        handler.setLevel(logging.DEBUG)
        root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    for handler in handlers:
        root.removeHandler(handler)
    root.setLevel(before)


class Places:
    """Everything that can be read, by where."""

    def __init__(self, rotations: Rotations) -> None:
        self._rotations = rotations
        self._arguments: list[str] = []
        self.errors: list[str] = []

    def look_at_processes(self) -> None:
        """Remember the arguments and environment-free titles of all processes, as ``ps`` shows them."""
        self._arguments += [str(process.info["cmdline"]) for process in psutil.process_iter(["cmdline"])]
        self._arguments += [str(row) for row in self._rotations.execute("SELECT * FROM pg_stat_activity")]

    def fail(self, token: str, step: str) -> None:
        """Fail, and remember the whole chain of errors with all local variables."""
        with pytest.raises(StepFailed) as failed:
            self._rotations.step(step, token)
        told = traceback.TracebackException.from_exception(failed.value, capture_locals=True)
        self.errors.append("".join(told.format()))

    def hits(self, passwords: set[str], log: str) -> dict[str, int]:
        """Return how many passwords can be read where."""
        places = {
            "log of the function": log,
            "exceptions": "\n".join(self.errors),
            "processes": "\n".join(self._arguments),
            "log of the server": Path(self._rotations.box.postgres.log_file).read_text(),
            "pg_stat_statements": str(self._rotations.execute("SELECT query FROM pg_stat_statements")),
            "pg_authid": str(self._rotations.execute("SELECT rolpassword FROM pg_authid")),
        }
        found = {place: sum(password in text for password in passwords) for place, text in places.items()}
        return {place: count for place, count in found.items() if count}


def rotations_of(box: Sandbox, client: Any, strategy: str) -> Rotations:
    """Return rotations of the sandbox's own secret."""
    rotations = Rotations(box, client, strategy)
    rotations.settle()
    return rotations


def test_no_password_can_be_read_anywhere(talkative: Sandbox, ear: io.StringIO) -> None:
    """Not in logs, exceptions, the server's log of all statements, its statistics, or the process list."""
    passwords: set[str] = set()
    lines: list[str] = []
    with closing(new_client(talkative)) as client:
        # boto3 logs what a client sends and gets; the function hides that before its first call.
        hide_secrets_of_botocore()
        for strategy in ("postgres-single", "postgres-alternating"):
            rotations = rotations_of(talkative, client, strategy)
            passwords.add(rotations.value()["password"])
            places = Places(rotations)
            for _ in range(ROTATIONS):
                token = new_token()
                for step in ("createSecret", "setSecret", "testSecret", "finishSecret"):
                    rotations.step(step, token, runner=rotations.runner(emit=lines.append))
                    places.look_at_processes()
                passwords.add(rotations.value()["password"])
            fail_in_the_middle(rotations, places, passwords)

            hits = places.hits(passwords, ear.getvalue() + "\n".join(lines))
            assert hits == {}

    assert len(passwords) >= 2 * ROTATIONS
    assert "ALTER ROLE" in Path(talkative.postgres.log_file).read_text()
    assert "step.ended" in ear.getvalue()


def fail_in_the_middle(rotations: Rotations, places: Places, passwords: set[str]) -> None:
    """Let steps fail that hold passwords at that moment, and mend what they broke."""
    token = new_token()
    rotations.step("createSecret", token)
    passwords.add(rotations.value("AWSPENDING")["password"])
    places.fail(token, "finishSecret")
    rotations.execute(f"ALTER ROLE {rotations.value()['username']} NOLOGIN")
    places.fail(token, "setSecret")
    places.fail(token, "testSecret")
    rotations.execute(f"ALTER ROLE {rotations.value()['username']} LOGIN")
    rotations.run(token)


def test_the_search_finds_what_is_there(talkative: Sandbox, ear: io.StringIO) -> None:
    """The usual method (plain ALTER USER, as AWS's own function does) is found in four places."""
    password = "Plain" + os.urandom(12).hex()
    with closing(new_client(talkative)) as client:
        rotations = rotations_of(talkative, client, "postgres-single")
        rotations.execute(f"CREATE ROLE careless LOGIN PASSWORD '{password}'")
        rotations.execute(f"ALTER USER careless WITH PASSWORD '{password}'")
        logging.getLogger("careless").warning("changed to %s", password)
        places = Places(rotations)
        try:
            psycopg2.connect(f"host=127.0.0.1 port=1 user=careless password={password}")
        except psycopg2.OperationalError as error:
            places.errors.append(
                "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
            )

        hits = places.hits({password}, ear.getvalue())
        rotations.execute("DROP ROLE careless")

    assert hits == {
        "log of the function": 1,
        "exceptions": 1,
        "log of the server": 1,
        "pg_stat_statements": 1,
    }


def test_what_is_written_is_json(talkative: Sandbox, ear: io.StringIO) -> None:
    """Every line of the function can be parsed, metrics included."""
    lines: list[str] = []
    with closing(new_client(talkative)) as client:
        rotations = rotations_of(talkative, client, "postgres-single")
        rotations.run(runner=rotations.runner(emit=lines.append))

    figures = [json.loads(line) for line in lines]
    assert [figure.get("step") for figure in figures if "step" in figure] == [
        "createSecret",
        "setSecret",
        "testSecret",
        "finishSecret",
    ]
    (gap,) = [figure["CredentialGapMs"] for figure in figures if "CredentialGapMs" in figure]
    assert gap > 0
