"""How many transactions came to which end?"""

import threading
from dataclasses import dataclass, replace
from typing import Literal

from ledger_db.forking import at_fork


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionCounters:
    """
    What has become of the transactions that `run` was given.

    Attributes:
        committed: Those that succeeded, at whichever attempt.

        retried: Attempts that were repeated.

        exhausted: Those that were given up.
    """

    committed: int = 0
    retried: int = 0
    exhausted: int = 0


class TransactionTally:
    """Counts, for all threads of a manager."""

    def __init__(self) -> None:
        # Guards the replacement of counters, which reads them first.
        self._counting = threading.Lock()
        self.counters: TransactionCounters = TransactionCounters()
        at_fork(in_child=self._after_fork)

    def count(self, what: Literal["committed", "retried", "exhausted"]) -> None:
        """Add one to *what*."""
        with self._counting:
            before: int = getattr(self.counters, what)
            self.counters = replace(self.counters, **{what: before + 1})

    def _after_fork(self) -> None:
        self._counting = threading.Lock()
