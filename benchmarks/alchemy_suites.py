"""
Do SQLAlchemy's own tests hold on engines of ours?

    git clone https://github.com/sqlalchemy/sqlalchemy PATH
    LEDGER_DB_PG_BIN=/usr/lib/postgresql/15/bin python -m benchmarks.alchemy_suites PATH --driver asyncpg

Its tests of engines, pools and the asyncio half run twice on the sandbox's PostgreSQL: on bare engines, and
on the same ones with what a manager gives to its own; see `alchemy_plugin`.  Printed is what differs: a
promise of ours that bare SQLAlchemy does not make, or a mistake.  Decision 0018 has each with its reason.

The sources come with the version that they are of.  Nothing here depends on them, so that this is no part of
``make test``.
"""

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import psycopg2

from ledger_db.sandbox import Sandbox

SUITES = ("test/engine", "test/ext/asyncio")
DRIVERS = ("psycopg2", "psycopg", "asyncpg", "psycopg_async")
USER = "scott"  # whom SQLAlchemy's tests know

Outcomes = dict[str, str]


def prepare(box: Sandbox, driver: str) -> str:
    """Make the database that the tests expect, and return its URL."""
    password = secrets.token_hex(16)
    with closing(box.postgres.connect()) as admin, admin.cursor() as cursor:
        admin.autocommit = True
        cursor.execute(f"CREATE ROLE {USER} SUPERUSER LOGIN PASSWORD '{password}'")
        cursor.execute(f"CREATE DATABASE test OWNER {USER}")
    host, port = box.postgres.host, box.postgres.port
    with (
        closing(psycopg2.connect(host=host, port=port, user=USER, password=password, dbname="test")) as made,
        made,
        made.cursor() as cursor,
    ):
        cursor.execute("CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2; CREATE EXTENSION hstore")
    return f"postgresql+{driver}://{USER}:{password}@{host}:{port}/test"


@contextmanager
def naming(source: Path, url: str) -> Iterator[None]:
    """Tell the tests of *source* the URL as ``sandbox``: not in an argument, which everybody can read."""
    settings = source / "test.cfg"
    with settings.open("x", encoding="utf-8") as file:
        file.write(f"[db]\nsandbox = {url}\n")
    try:
        yield
    finally:
        settings.unlink()


def outcomes(source: Path, suites: Sequence[str], *, ours: bool) -> Outcomes:
    """Run *suites* of *source*, and return what became of each test: passed, or why not."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        plugins = ["no:logging", "no:cacheprovider", "no:asyncio", *["benchmarks.alchemy_plugin"] * ours]
        command = [
            *(sys.executable, "-m", "pytest", "-q", *suites, "--db", "sandbox"),
            *(f"--junit-xml={report}", *(f"-p{plugin}" for plugin in plugins)),
        ]
        paths = os.pathsep.join([str(source / "lib"), str(Path.cwd())])
        environment = {**os.environ, "PYTHONPATH": paths}
        subprocess.run(command, cwd=source, env=environment, stdout=sys.stderr, check=False)
        if not report.exists():
            raise SystemExit("SQLAlchemy's tests did not run; see above")
        cases = ET.parse(report).getroot().iter("testcase")
        return {f"{case.get('classname')}::{case.get('name')}": _outcome(case) for case in cases}


def _outcome(case: ET.Element) -> str:
    for child in case:
        if child.tag in {"failure", "error", "skipped"}:
            lines = (child.get("message") or "").strip().splitlines()
            return f"{child.tag}: {lines[0][:160] if lines else ''}"
    return "passed"


def _kind(outcome: str) -> str:
    return outcome.partition(":")[0]


def compare(driver: str, bare: Outcomes, ours: Outcomes) -> int:
    """Print what differs, and return how many tests do."""
    differ = sorted(name for name in ours if _kind(ours[name]) != _kind(bare.get(name, "absent")))
    passed = [sum(what == "passed" for what in each.values()) for each in (bare, ours)]
    print(f"{driver}: {len(ours)} tests, passed {passed[0]} bare and {passed[1]} ours, {len(differ)} differ")
    for name in differ:
        print(f"  {name}\n      bare {bare.get(name, 'absent')}\n      ours {ours[name]}")
    return len(differ)


def main() -> int:
    """Print what differs; status 1 if anything does."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alchemy_suites")
    parser.add_argument("source", type=Path, help="a checkout of SQLAlchemy")
    parser.add_argument("--driver", choices=DRIVERS, default="psycopg2")
    parser.add_argument("--suite", action="append", help="a folder or a file of its tests; may be repeated")
    given = parser.parse_args()
    source, suites = given.source.resolve(), given.suite or SUITES
    with Sandbox() as box, naming(source, prepare(box, given.driver)):
        bare = outcomes(source, suites, ours=False)
        ours = outcomes(source, suites, ours=True)
    return bool(compare(given.driver, bare, ours))


if __name__ == "__main__":
    sys.exit(main())
