"""
How far may polling rest, because rotations are announced?

Polling costs a fleet of thousands real money, and finds nothing where every rotation is announced.  So its
interval doubles with each look that finds nothing, while announcements have proved themselves: the
subscription is open, and the last adoptions all came by it.  One that did not, and it is as short as before.
"""

_ENOUGH_ADOPTIONS = 3


class Reliance:
    """
    What announcements have done so far.

    Two threads write, the one that listens and the one that watches.  A write that gets lost costs a look too
    many, or one that is late; no lock is worth it.
    """

    def __init__(self) -> None:
        self._is_subscribed = False
        self._announced = 0
        self._in_vain = 0

    @property
    def doublings(self) -> int:
        """How often the interval is to be doubled now."""
        return self._in_vain if self._is_justified else 0

    def note_subscription(self, *, is_open: bool) -> None:
        """Say whether announcements are heard."""
        self._is_subscribed = is_open
        self._in_vain = 0

    def note_adoption(self, *, announced: bool) -> None:
        """Say how the last adoption came; polling, a refused login and a person are not announcements."""
        self._announced = self._announced + 1 if announced else 0
        if not announced:
            self._in_vain = 0

    def note_nothing_new(self) -> None:
        """Say that polling has found what was known."""
        self._in_vain = self._in_vain + 1 if self._is_justified else 0

    @property
    def _is_justified(self) -> bool:
        return self._is_subscribed and self._announced >= _ENOUGH_ADOPTIONS
