"""What every test may ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger_db.sandbox import Sandbox
from tests.folders import passable_folder


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
