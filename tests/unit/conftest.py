"""What every unit test may rely on."""

import os

import pytest


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # Settings read the environment: what whoever runs the tests works with is no part of them.
    for name in [name for name in os.environ if name.startswith("LEDGER_DB_")]:
        monkeypatch.delenv(name)
