"""
What tests of a service import; the fixtures come by themselves, see `ledger_db.testing.plugin`.

    from ledger_db.testing import override_manager
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ledger_db.sandbox.doubles import ManualClock, ScriptedPostgres, ScriptedSource
    from ledger_db.testing.faults import Faults, StuckRotation
    from ledger_db.testing.isolation import IsolatedManager, isolated, isolated_async
    from ledger_db.testing.overrides import override_manager

__all__ = [
    "Faults",
    "IsolatedManager",
    "ManualClock",
    "ScriptedPostgres",
    "ScriptedSource",
    "StuckRotation",
    "isolated",
    "isolated_async",
    "override_manager",
]

_HOMES = {
    "Faults": "ledger_db.testing.faults",
    "IsolatedManager": "ledger_db.testing.isolation",
    "ManualClock": "ledger_db.sandbox.doubles",
    "ScriptedPostgres": "ledger_db.sandbox.doubles",
    "ScriptedSource": "ledger_db.sandbox.doubles",
    "StuckRotation": "ledger_db.testing.faults",
    "isolated": "ledger_db.testing.isolation",
    "isolated_async": "ledger_db.testing.isolation",
    "override_manager": "ledger_db.testing.overrides",
}


def __getattr__(name: str) -> object:
    # At first use: pytest imports this package in every run of everybody who has ledger_db, for the plugin.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
