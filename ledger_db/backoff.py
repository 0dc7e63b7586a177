"""
How long to wait before the next attempt?  Arithmetic only: no clock, no sleep.

Exponential backoff, with the two kinds of jitter that have names (AWS Architecture Blog, "Exponential Backoff
And Jitter"): *full* is a draw from all of the wait, *equal* from its upper half.
"""

from dataclasses import dataclass

# 2.0 ** 1024 is no float any more, and nobody counts failures.
_MOST_DOUBLINGS = 32


@dataclass(frozen=True, slots=True)
class Backoff:
    """
    A wait that doubles with each failure in a row.

    Attributes:
        first_seconds: The wait after the first failure.

        most_seconds: Where the doubling ends.
    """

    first_seconds: float
    most_seconds: float

    def after(self, failures: int) -> float:
        """Return the seconds to wait after *failures* in a row (1 or more), before any jitter."""
        return min(self.most_seconds, self.first_seconds * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))


def equal_jitter(wait_seconds: float, spread: float) -> float:
    """Return U(1/2, 1) of *wait_seconds*, where *spread* was drawn from [0, 1)."""
    return wait_seconds * (0.5 + 0.5 * spread)
