"""What does the plugin cost those who do not use it, and is its front door complete?"""

import subprocess
import sys

import pytest

from ledger_db.testing import constraints

# What stands in the doorway of every package of ours.
PASSED_THROUGH = {"ledger_db", "ledger_db._front_door", "ledger_db.errors"}


def modules_after(statement: str) -> set[str]:
    """Return what *statement* has loaded of third parties and of ours, beyond pytest."""
    script = f"import pytest, sys\nbefore = set(sys.modules)\n{statement}\nprint(*set(sys.modules) - before)"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_loading_the_plugin_loads_nothing_else() -> None:
    """Every run of pytest of everybody who has ledger-db installed loads it, so it takes two milliseconds."""
    loaded = modules_after("import ledger_db.testing.plugin")

    assert loaded == {*PASSED_THROUGH, "ledger_db.testing", "ledger_db.testing.plugin"}


class Cursor:
    """Answers the question for constraints, and notes what it is told."""

    def __init__(self, *deferrable: tuple[str, bool]) -> None:
        self._deferrable = list(deferrable)
        self.told: list[str] = []

    def execute(self, statement: str) -> None:
        """Note *statement*."""
        self.told.append(statement)

    def fetchall(self) -> list[tuple[str, bool]]:
        """Give the constraints."""
        return self._deferrable


@pytest.mark.parametrize(
    ("deferrable", "told"),
    [
        ([], []),
        ([("public.a", False)], ["SET CONSTRAINTS ALL IMMEDIATE"]),
        (
            [("public.a", False), ('public."B c"', True), ("x.d", True)],
            ["SET CONSTRAINTS ALL IMMEDIATE", 'SET CONSTRAINTS public."B c", x.d DEFERRED'],
        ),
    ],
)
def test_a_commit_checks_what_is_deferred_and_nothing_where_nothing_is(
    deferrable: list[tuple[str, bool]], told: list[str]
) -> None:
    """A schema without deferrable constraints costs one statement; others are left as they were."""
    cursor = Cursor(*deferrable)
    constraints.check_on_postgres(cursor)

    assert cursor.told[1:] == told
