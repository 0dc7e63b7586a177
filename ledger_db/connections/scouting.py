"""
What do the logins of one server know of each other?

Those that are refused: who looks around for all of them, and whether the server is to be asked at all.  Those
that a loss of many connections has caused: that they are many, and better not all sent in one moment.
"""

import threading
from dataclasses import dataclass

# For so long after a loss a login is taken for one that makes up for it.
_AFTERMATH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CoolDown:
    """An open circuit breaker: until then, logins with this version fail without asking the server."""

    version: str
    until: float
    cause: str


class Scouting:
    """Shared by all logins of one server; *now* is seconds on a clock that never goes back."""

    def __init__(self) -> None:
        # Guards the fields below.  Held for a few comparisons, never across a login, a read or a pause: in
        # an async engine all logins share one thread, and one that waited here would stop it.
        self._lock = threading.Lock()
        self._has_scout = False
        self._under_way = 0
        self._lost_at: float | None = None
        # Logins that worked after a refusal; a follower that sees it move tries again.
        self.accepted = 0
        self.cool_down: CoolDown | None = None

    def begin(self, now: float) -> bool:
        """
        Say that a login begins; True if it is one of many after a loss, and should not be sent at once.

        The first of them goes ahead, so one that is alone never waits.
        """
        with self._lock:
            self._under_way += 1
            lost_lately = self._lost_at is not None and now - self._lost_at < _AFTERMATH_SECONDS
            return lost_lately and self._under_way > 1

    def end(self) -> None:
        """Say that it has ended, well or not."""
        with self._lock:
            self._under_way -= 1

    def note_loss(self, now: float) -> None:
        """Say that a connection was lost; whoever ends one from outside mostly ends them all."""
        with self._lock:
            self._lost_at = now

    def volunteer(self) -> bool:
        """Become the scout; False if there is one."""
        with self._lock:
            volunteered = not self._has_scout
            self._has_scout = True
            return volunteered

    def stand_down(self) -> None:
        """Let somebody else be the scout."""
        with self._lock:
            self._has_scout = False

    def report_acceptance(self) -> None:
        """Say that something works again."""
        with self._lock:
            self.accepted += 1
            self.cool_down = None

    def start_cool_down(self, cool_down: CoolDown) -> None:
        """Spare the server for a while."""
        with self._lock:
            self.cool_down = cool_down
