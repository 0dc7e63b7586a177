"""Where does a person find the command, and its help?"""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", [[], ["rotate"], ["sandbox"], ["sandbox", "up"]])
def test_help_is_at_every_level(command: list[str]) -> None:
    """``-h`` does what ``--help`` does, also where the command is not on the path."""
    module = [sys.executable, "-m", "ledger_db"]
    told = [
        subprocess.run([*module, *command, option], capture_output=True, text=True, check=True).stdout
        for option in ("-h", "--help")
    ]

    assert told[0] == told[1]
    assert told[0].startswith(" ".join(["Usage: ledger-db", *command]))
    assert "-h, --help" in told[0]
