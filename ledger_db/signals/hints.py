"""
When is a server told to look, once a rotation of its secret was announced?

Not at once: a fleet hears the same message in the same moment, and Secrets Manager would be asked by all of
it together.  And not too often, whatever is announced: who may publish must not be able to have a fleet read
for as long as they like.  So what looks have brought counts.  Some that were in vain are allowed, as an
announcement may be faster than Secrets Manager's replicas; after that nothing is believed for a while.  Nor
is anything heard for a while of a channel on which there is more than all rotations of a large house.
"""

import random
from collections.abc import Callable, Sequence

from ledger_db.answers.announcement import Announcement, is_same_secret
from ledger_db.connections.server import Follower

# Two looks at one secret are at least this far apart, whatever is announced: a flood must not become one of
# requests to Secrets Manager.
FLOOR_SECONDS = 0.5
# The announcement may be faster than Secrets Manager's replicas: look, and once more after this.
_SECOND_LOOK_SECONDS = 3.0
_LOOKS = 2
# In vain, for each secret: so many at once, and so many more in each hour.
_VAIN_LOOKS = 6
# Of whatever kind, for each listener: the same way.
_MESSAGES = 1000
_HOUR_SECONDS = 3600.0


class Distrusted(Exception):
    """What is announced has proven false too often, or is too much; the text says what, and what to do."""


class Hints:
    """
    What was announced for each server, until it is followed or given up.

    It has no clock: *now* is seconds on one that never goes back.
    """

    def __init__(
        self,
        servers: Sequence[Follower],
        *,
        spread_seconds: float = 0.0,
        spread: Callable[[], float] = random.random,
    ) -> None:
        """
        Expect nothing yet.

        Args:
            servers: Who may be meant.

            spread_seconds: The most that is waited before a look, unless it is urgent.

            spread: Draws how much of it, in [0, 1).
        """
        self._hints = [_Hint(server) for server in servers]
        self._messages = _Budget(_MESSAGES)
        self._spread_seconds = spread_seconds
        self._spread = spread

    def count(self, now: float) -> None:
        """
        Note that there was a message, whatever it says.

        Raises:
            Distrusted: There were too many: to hear them costs time, also if they say nothing.
        """
        if not self._messages.spend(now):
            raise Distrusted(f"more than {_MESSAGES} messages an hour came; look who may publish there")

    def take(self, announcement: Announcement, now: float) -> bool:
        """Remember *announcement* for the servers that it means; False if it means none of them."""
        meant = [hint for hint in self._hints if hint.is_meant_by(announcement)]
        wait = 0.0 if announcement.urgent else self._wait()
        for hint in meant:
            hint.want(announcement.version_id, now + wait, urgent=announcement.urgent, is_announced=True)
        return bool(meant)

    def next_at(self) -> float | None:
        """Return when to `act` next, None if nothing is expected."""
        return min((hint.due_at for hint in self._hints if hint.looks_left), default=None)

    def forget(self) -> None:
        """Expect nothing any more; what was in vain is remembered."""
        for hint in self._hints:
            hint.looks_left = 0

    def act(self, now: float) -> None:
        """
        Let those servers look for which it is time.

        Raises:
            Distrusted: One would have to look too often in vain.
        """
        for hint in self._hints:
            hint.act(now)

    def look_everywhere(self, now: float) -> None:
        """Let every server look, once: nobody knows what was announced while nobody listened."""
        for hint in self._hints:
            # Spread too: whoever restarts Redis cuts off all listeners in the same moment.
            hint.want(None, now + self._wait(), urgent=False, is_announced=False)
        self.act(now)

    def _wait(self) -> float:
        return self._spread_seconds * self._spread()


class _Hint:
    """One server, and what it should find."""

    def __init__(self, server: Follower) -> None:
        self.looks_left = 0
        self.due_at = 0.0
        self._server = server
        self._wanted: str | None = None
        self._urgent = False
        self._looks = 0
        self._looked_at: float | None = None
        self._is_announced = False
        self._budget = _Budget(_VAIN_LOOKS)
        self._seen: str | None = None

    def is_meant_by(self, announcement: Announcement) -> bool:
        # The source of a secret has its id as its name.
        return is_same_secret(announcement.secret_id, self._server.provider.status.source)

    def want(self, version: str | None, at: float, *, urgent: bool, is_announced: bool) -> None:
        # A second message must not put off what the first one asks for.
        if self.looks_left and not self._looks:
            at = min(at, self.due_at)
        # Who rotates and AWS's event announce the same version, and only the first knows that it is urgent.
        self._urgent = urgent or (self._urgent and bool(self.looks_left) and version == self._wanted)
        self._wanted = version
        self._is_announced = is_announced
        self._looks = 0
        # Without a version nobody can tell whether the look has found what there was to find.
        self.looks_left = _LOOKS if version else 1
        self.due_at = at if self._looked_at is None else max(at, self._looked_at + FLOOR_SECONDS)

    def act(self, now: float) -> None:
        if not self.looks_left or now < self.due_at:
            return
        version = self._server.provider.status.version
        if version != self._seen:
            self._budget.restore()
            self._seen = version
        # Announced twice, or a refused login was faster.
        if self._wanted is not None and version == self._wanted:
            self.looks_left = 0
            return
        if self._is_announced and not self._budget.spend(now):
            source = self._server.provider.status.source
            raise Distrusted(
                f"{source} was said to have changed, again and again, and had not; look who may publish there"
            )
        self._server.look_now(urgent=self._urgent, announced=True)
        self._looked_at = now
        self.due_at = now + _SECOND_LOOK_SECONDS
        self._looks += 1
        self.looks_left -= 1


class _Budget:
    """How many looks may still be in vain, or how many messages come: *size* at once and in each hour."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = float(size)
        self._counted_at: float | None = None

    def spend(self, now: float) -> bool:
        """Take one; False if there is none."""
        since = 0.0 if self._counted_at is None else now - self._counted_at
        self._left = min(self._size, self._left + since * self._size / _HOUR_SECONDS)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def restore(self) -> None:
        """Begin anew: what is new has proven the looks before it right."""
        self._left = float(self._size)
