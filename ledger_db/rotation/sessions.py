"""
Which sessions outlive the password that they logged in with, and how are they ended?

No server asks an open session for its password again.  After a leak the sessions that are older than the new
password are ended, and none that is newer: by then services have come over.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ledger_db.answers.secret import Secret
from ledger_db.rotation.protocol import Deadline


@dataclass(frozen=True, slots=True)
class Ended:
    """
    What came of it.

    Attributes:
        ended: How many sessions are gone.

        left: How many were told to go, and have not yet.
    """

    ended: int
    left: int

    @classmethod
    def together(cls, parts: Iterable["Ended"]) -> "Ended":
        """Add up what came of several servers or users."""
        each = list(parts)
        return cls(sum(part.ended for part in each), sum(part.left for part in each))


@runtime_checkable
class EndsSessions(Protocol):
    """A rotator that can end sessions on its servers."""

    @property
    def session_clock_seconds(self) -> float:
        """How long after a change a session has to begin for the server to tell it from those before."""
        ...

    def end_sessions(self, secret: Secret, since: float, deadline: Deadline) -> Ended:
        """
        End what is logged in as the user of *secret* from before *since*.

        Args:
            secret: Logs in.

            since: On the clock of `time.monotonic`.

            deadline: For all of it.

        Raises:
            ServerProblem: Nobody may.
        """
        ...
