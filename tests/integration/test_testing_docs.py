"""Does docs/testing.md show tests that pass?"""

import re
from pathlib import Path

import pytest

from tests.support.neighbours import STRICT
from tests.support.pytest_runs import run_pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"


def write_project(folder: Path, *, on_sqlite: bool) -> None:
    """Write each block of the page into the file that its first line names."""
    page = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:python|ini)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        name, _, addition = block.partition("\n")[0].removeprefix("# ").partition(": ")
        if {"": True, "in addition": on_sqlite, "for pgvector": not on_sqlite}[addition]:
            with (folder / name).open("a", encoding="utf-8") as file:
                file.write(block)


@pytest.mark.parametrize(("on_sqlite", "passed"), [(False, 9), (True, 5)], ids=["PostgreSQL", "SQLite"])
def test_the_tests_of_the_page_pass(tmp_path: Path, *, on_sqlite: bool, passed: int) -> None:
    """Whoever copies the page has tests that pass, without a warning, on either database."""
    write_project(tmp_path, on_sqlite=on_sqlite)
    # A file has no password to rotate and no server to stop.
    ignored = ("--ignore=test_faults.py",) if on_sqlite else ()
    run = run_pytest(tmp_path, *STRICT, *ignored)

    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{passed} passed" in run.stdout
