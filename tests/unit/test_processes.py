"""Is a program that is waited for judged by how it ended, and not by when it was looked at?"""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ledger_db.errors import ServerUnreachable
from ledger_db.sandbox.processes import wait_until


def ended(status: int) -> "subprocess.Popen[bytes]":
    """Return a program that has ended."""
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({status})"])
    process.wait()
    return process


def test_a_program_that_ends_well_between_two_looks_has_ended_well(tmp_path: Path) -> None:
    """It was not ready at the first look, and over at the second: that is what it was waited for."""
    looks = iter([False, True])

    wait_until(
        lambda: next(looks, True),
        ended(0),
        what="initdb",
        log_file=tmp_path / "log",
        timeout_seconds=5,
        give_up=threading.Event(),
    )

    assert list(looks) == []


def test_a_program_that_ends_and_is_not_ready_is_an_error(tmp_path: Path) -> None:
    """Its status and its last words say why."""
    (tmp_path / "log").write_text("no room left")

    with pytest.raises(ServerUnreachable, match=r"server ended with status 3 .*no room left"):
        wait_until(
            lambda: False,
            ended(3),
            what="server",
            log_file=tmp_path / "log",
            timeout_seconds=5,
            give_up=threading.Event(),
        )
