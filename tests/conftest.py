"""What every test may ask for."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger_db.sandbox import Sandbox
from tests.support.folders import passable_folder
from tests.support.neighbours import JSON_LINES, lacks

# The Trust Ledger cannot be imported there.
collect_ignore_glob = ["*/test_drill.py", "*/test_trust_ledger*.py"] if lacks(JSON_LINES) else []

# Tests press Ctrl-C in programs that they start.  What runs the tests may ignore it, as a shell's "&" does,
# and what is ignored is inherited.
for _sign, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_sign) is signal.SIG_IGN:
        signal.signal(_sign, _handler)


def pytest_report_header() -> list[str]:
    """Say which tests are left out, and why."""
    return [f"without the Trust Ledger: {JSON_LINES[-1]}"] if collect_ignore_glob else []


@pytest.fixture(scope="session")
def box() -> Iterator[Sandbox]:
    """
    Real servers, one set for the whole run.

    Rotate in it as you like, but leave its servers running and clear the faults that you inject: a test that
    stops a server starts a sandbox of its own.
    """
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def passable_path() -> Iterator[Path]:
    """A folder of the test's own in which a sandbox can live, whoever runs the tests."""
    with passable_folder() as path:
        yield path
