"""Do type checkers know what users of the library rely on, and see what they get wrong?"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[1]
MISSPELT = (
    "from ledger_db import ConectionManager",
    "from ledger_db.fastapi import SesionDep",
    "from ledger_db.migrations import run_migration",
    "from ledger_db.sandbox import Sandbocks",
    "from ledger_db.testing import overide_manager",
)
LEAST_COMPLETENESS = 0.99

pytestmark = pytest.mark.skipif(find_spec("pyright") is None, reason="the checkers are not installed")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Programs of somebody else's, outside of the project: sound ones, and five mistakes."""
    shutil.copytree(PROJECT / "tests" / "typing", tmp_path, dirs_exist_ok=True)
    (tmp_path / "misspelt.py").write_text("\n".join(MISSPELT))
    # What the sound ones must not do is marked in them; a mark that hides nothing is an error too.
    rules = {"typeCheckingMode": "strict", "reportUnnecessaryTypeIgnoreComment": "error"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(rules))
    return tmp_path


def run(folder: Path, *command: str) -> str:
    """Run a checker in *folder*, and return what it printed."""
    # pyright asks the first Python on the path what is installed.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def pyright(folder: Path, *options: str) -> Any:
    """Return pyright's report; without JSON it would also ask the network for a newer version."""
    return json.loads(run(folder, "pyright", "--outputjson", *options))


def errors_of_mypy(folder: Path) -> set[str]:
    """Return file and line of each."""
    # A cache of its own, for these options: the second time takes a second instead of fifteen.
    cache = str(PROJECT / ".mypy_cache" / "users")
    printed = run(folder, "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", ".")
    return set(re.findall(r"^(\S+:\d+): error:", printed, re.MULTILINE))


def errors_of_pyright(folder: Path) -> set[str]:
    """Return file and line of each."""
    return {
        f"{Path(found['file']).name}:{found['range']['start']['line'] + 1}"
        for found in pyright(folder)["generalDiagnostics"]
        if found["severity"] == "error"
    }


@pytest.mark.parametrize("errors_of", [errors_of_mypy, errors_of_pyright])
def test_checkers_understand_what_users_write(program: Path, errors_of: Callable[[Path], set[str]]) -> None:
    """Every documented use is understood exactly, and a misspelt name is reported at each front door."""
    assert errors_of(program) == {f"misspelt.py:{line}" for line in range(1, len(MISSPELT) + 1)}


def test_nothing_is_left_for_a_checker_to_guess(tmp_path: Path) -> None:
    """Whatever a user reaches has a type that all checkers read in the same way."""
    report = pyright(tmp_path, "--verifytypes", "ledger_db", "--ignoreexternal")["typeCompleteness"]
    guessed = [symbol["name"] for symbol in report["symbols"] if not symbol["isTypeKnown"]]

    assert report["completenessScore"] >= LEAST_COMPLETENESS, guessed
