"""What tests of the manager share: its environment, and servers with no faults in them."""

from collections.abc import Iterator

import pytest

from ledger_db import Settings
from ledger_db.sandbox import Sandbox


@pytest.fixture
def environment(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """The sandbox, with the environment that leads to it; its faults are cleared before and after."""
    for name, value in box.environment.items():
        monkeypatch.setenv(name, value)
    box.secrets_manager.clear_faults()
    yield box
    box.secrets_manager.clear_faults()


@pytest.fixture
def settings(environment: Sandbox) -> Settings:
    """Settings for tests: nothing is polled unless a test says so, and patience is short."""
    return Settings(refresh_interval_seconds=300, login_patience_seconds=3, startup_timeout_seconds=20)
