"""Does a sandbox keep its passwords to itself?"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from ledger_db.sandbox import Sandbox
from tests.support.folders import passable_folder

if TYPE_CHECKING:
    from ledger_db.sandbox.processes import Account


KINDS = ["temporary", "kept", "tls", *(["nobody"] if os.geteuid() == 0 else [])]


@pytest.fixture(scope="module", params=KINDS)
def told_box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox of each kind, in which rotations have happened."""
    kind = request.param
    account: Account | None = "nobody" if kind == "nobody" else None
    with (
        passable_folder() as folder,
        Sandbox(
            directory=folder / "kept" if kind == "kept" else None,
            keep=kind == "kept",
            tls=kind == "tls",
            account=account,
        ) as sandbox,
    ):
        sandbox.rotate_database("single-user")
        sandbox.rotate_database("alternating-users")
        sandbox.rotate_redis()
        yield sandbox


def passwords(box: Sandbox) -> set[str]:
    """Every password that ever was in the secrets, and those of the administrators."""
    known = {box.postgres.admin_password, box.redis.admin_password}
    client = box.client()
    for secret_id in (box.database_secret_id, box.redis_secret_id, box.admin_secret_id):
        for version in client.list_secret_version_ids(SecretId=secret_id, IncludeDeprecated=True)["Versions"]:
            value = client.get_secret_value(SecretId=secret_id, VersionId=version["VersionId"])[
                "SecretString"
            ]
            known.add(json.loads(value)["password"])
    client.close()
    assert len(known) >= 6
    return known


def files(box: Sandbox) -> list[Path]:
    """Return everything that *box* has written; a copy of PostgreSQL's programs is everybody's to run."""
    programs = box.directory / "programs"
    return [path for path in box.directory.rglob("*") if path.is_file() and programs not in path.parents]


def family(box: Sandbox) -> list[psutil.Process]:
    """Return every process of *box*."""
    assert box._supervisor is not None
    supervisor = psutil.Process(box._supervisor.process_id)
    return [supervisor, *supervisor.children(recursive=True)]


def test_no_password_in_a_process_list(told_box: Sandbox) -> None:
    """Arguments and environment of a process are not the place for a password."""
    seen = ""
    for process in family(told_box):
        with psutil.Process(process.pid).oneshot():
            seen += " ".join(process.cmdline()) + json.dumps(process.environ())

    assert str(told_box.directory) in seen
    assert [password for password in passwords(told_box) if password in seen] == []


def test_no_password_in_a_server_log(told_box: Sandbox) -> None:
    """Neither server, nor initdb, writes a password; not even when a statement that holds one fails."""
    connection = told_box.postgres.connect()
    canary = "canary-in-a-broken-statement"
    with connection.cursor() as cursor, pytest.raises(Exception, match="does not exist"):
        cursor.execute(f"ALTER ROLE no_such_role PASSWORD '{canary}'")
    connection.close()
    logs = {path.name: path.read_text(errors="replace") for path in files(told_box) if path.suffix == ".log"}

    assert {"postgres.log", "redis.log"} <= set(logs)
    assert "no_such_role" in logs["postgres.log"]
    leaked = {*passwords(told_box), canary}
    assert [name for name, text in logs.items() for password in leaked if password in text] == []


def test_every_file_is_private(told_box: Sandbox) -> None:
    """No file of a sandbox can be read by another user, and its folder cannot be listed."""
    # The version of a PostgreSQL cluster and such are no secrets, but one rule is easier to trust than two.
    open_to_others = [str(path) for path in files(told_box) if path.stat().st_mode & 0o077]

    assert open_to_others == []
    # Where PostgreSQL has to run as nobody, that account may pass through; even it cannot look around.
    assert told_box.directory.stat().st_mode & 0o066 == 0


def test_passwords_are_in_few_files(told_box: Sandbox) -> None:
    """Only the stand-in's secrets and, in a kept folder, the notes for the next start hold passwords."""
    known = [password.encode() for password in passwords(told_box)]
    holders = {
        path.name for path in files(told_box) if any(password in path.read_bytes() for password in known)
    }

    assert holders - {"sandbox.json"} == {"secrets.json"}
    assert ("sandbox.json" in holders) == (told_box.directory.name == "kept")


def test_the_initial_password_file_is_gone(told_box: Sandbox) -> None:
    """What initdb read the superuser's password from is removed at once."""
    assert [path.name for path in files(told_box) if re.search("password|pwfile", path.name)] == []


def test_no_password_in_a_repr(told_box: Sandbox) -> None:
    """What is printed by accident shows where the servers are and no password."""
    shown = f"{told_box!r} {told_box.postgres!r} {told_box.redis!r} {told_box.environment!r}"

    assert str(told_box.postgres.port) in shown
    assert [password for password in passwords(told_box) if password in shown] == []


def test_the_servers_listen_on_this_machine_only(told_box: Sandbox) -> None:
    """Nobody on the network can reach a sandbox."""
    addresses = set()
    for process in family(told_box):
        addresses |= {
            listening.laddr.ip
            for listening in process.net_connections("inet")
            if listening.status == psutil.CONN_LISTEN
        }

    assert addresses == {"127.0.0.1"}
    assert [path for path in told_box.directory.rglob("*") if path.is_socket()] == []


def test_the_admin_environment_does_not_leak_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """PGPASSWORD, PGHOST and PGSSLMODE of the caller are about other servers, and change nothing here."""
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGHOST", "ledger.example.org")
    monkeypatch.setenv("PGDATA", os.devnull)
    monkeypatch.setenv("PGPORT", "1")
    with Sandbox() as box:
        box.postgres.connect().close()
