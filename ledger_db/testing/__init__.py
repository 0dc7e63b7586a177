"""
What tests of a service import; the fixtures come by themselves, see `ledger_db.testing.plugin`.

    from ledger_db.testing import override_manager
"""

from typing import TYPE_CHECKING

from ledger_db._front_door import front_door

if TYPE_CHECKING:
    from ledger_db.testing.doubles import (
        ManualClock as ManualClock,
        ScriptedPostgres as ScriptedPostgres,
        ScriptedSource as ScriptedSource,
    )
    from ledger_db.testing.faults import Faults as Faults, StuckRotation as StuckRotation
    from ledger_db.testing.isolation import (
        IsolatedManager as IsolatedManager,
        async_isolated as async_isolated,
        isolated as isolated,
    )
    from ledger_db.testing.overrides import override_manager as override_manager
else:
    # At first use: pytest imports this package in every run of everybody who has ledger_db, for the plugin.
    __getattr__, __dir__ = front_door(__name__)
