"""
From when on is a connection stale, whose credentials are not the current ones any more?

A fleet hears of a rotation in one moment.  If each connection were stale from then on, all of them would log
in again at once, and a login costs a server more than most requests.  So each has a share in [0, 1) of the
spread for itself, and is stale when that much of it has passed since its stamp ceased to be the current one.

Waiting is safe: a session outlives the password that opened it, and a retired role keeps its own until the
rotation after the next.
"""

import time
from collections.abc import Callable


class Staleness:
    """
    Remembers which stamps were current a moment ago, and until when.

    One thread at a time may change it; any number may ask, without a lock.
    """

    def __init__(self, spread_seconds: float, *, now: Callable[[], float] = time.monotonic) -> None:
        """
        Know no stamp.

        Args:
            spread_seconds: How long it takes until every connection with an older stamp is stale.

            now: Seconds on a clock that never goes back.
        """
        self._spread_seconds = spread_seconds
        self._now = now
        # Replaced, never changed.  What is not in it is stale.
        self._ended_at: dict[str, float] = {}

    def has_begun(self, stamp: str, share: float) -> bool:
        """Return whether a connection with *stamp*, which is not current, and that *share* is stale."""
        ended_at = self._ended_at.get(stamp)
        return ended_at is None or self._now() >= ended_at + share * self._spread_seconds

    def follow(self, before: str, after: str) -> None:
        """Let *after* be the current stamp instead of *before*."""
        now = self._now()
        recent = {
            stamp: at
            for stamp, at in self._ended_at.items()
            # A rotation that was rolled back makes an older stamp the current one again.
            if stamp != after and now < at + self._spread_seconds
        }
        self._ended_at = {**recent, before: now}

    def hurry(self) -> None:
        """Let everything be stale that is not current."""
        self._ended_at = {}

    def pause_seconds(self, draw: float) -> float | None:
        """
        Return how long to wait before looking for stale ones again; None if each is stale already.

        Args:
            draw: From [0, 1): looked for at fixed intervals, a fleet's would be found together.
        """
        settled_at = max(self._ended_at.values(), default=0.0) + self._spread_seconds
        return draw * self._spread_seconds / 5 if self._ended_at and self._now() < settled_at else None
