"""Is this still news?  The same cause, told at every attempt, buries what else a log has to say."""

import re
import time
from collections.abc import Callable
from typing import Final

_SECONDS: Final = 60.0
# What differs each time that the same happens: times, counts, and the numbers that AWS gives to requests.
_CHANGING: Final = re.compile(r"[0-9a-f-]*\d[0-9a-f:.-]*", re.IGNORECASE)


class OnceAMinute:
    """
    Remembers which causes were told, for so long.  Not exact where two threads ask at once: both may tell.

    Args:
        now: Seconds on a clock that never goes back.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # Replaced, never changed, and never larger than a minute's causes.
        self._told: dict[str, float] = {}

    def is_news(self, cause: str) -> bool:
        """Whether *cause* was not told within the last minute; then it counts as told now."""
        now, kind = self._now(), _CHANGING.sub("", cause)
        recent = {told: at for told, at in self._told.items() if now - at < _SECONDS}
        self._told = recent if kind in recent else {**recent, kind: now}
        return kind not in recent
