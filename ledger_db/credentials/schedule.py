"""When to ask for credentials again.  Arithmetic only: no clock, no sleep, no I/O."""

from dataclasses import dataclass

from ledger_db.backoff import Backoff, equal_jitter

# A rotation that nobody announced, and that refuses no login, is found after this long at the latest.
_RESTING_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """
    The waiting times of a credential provider, all in seconds.

    Every answer is multiplied by U(1/2, 1), drawn by the caller as *spread* in [0, 1), so that a fleet that
    started together does not ask together.

    Attributes:
        refresh_interval_seconds: The longest time between two reads while all is well.

        retry_first_seconds: The first wait after a failed read; doubled with each further failure.

        retry_most_seconds: The longest wait after a failed read.

        floor_first_seconds: The shortest time between two reads that refused logins ask for; doubled with
            each read that brought nothing new, so that a rotation that is stuck costs few calls.

        floor_most_seconds: Where that doubling ends.

        renewal_spread_seconds: How long after an adoption the last connection with an older stamp is stale.
    """

    refresh_interval_seconds: float = 300.0
    retry_first_seconds: float = 1.0
    retry_most_seconds: float = 60.0
    floor_first_seconds: float = 0.25
    floor_most_seconds: float = 2.0
    renewal_spread_seconds: float = 0.0

    def after_success(self, lifetime_seconds: float | None, spread: float, *, doublings: int = 0) -> float:
        """
        Wait one interval, or four fifths of what is left of *lifetime_seconds* if that is sooner.

        After jitter a token of 15 minutes is replaced 6 to 12 minutes before its end.

        Args:
            lifetime_seconds: How long the credentials will be valid; None for ever.

            spread: The jitter.

            doublings: How often the interval is doubled, up to an hour; see `Reliance`.
        """
        most = max(self.refresh_interval_seconds, _RESTING_SECONDS)
        wait = Backoff(self.refresh_interval_seconds, most).after(1 + doublings)
        if lifetime_seconds is not None:
            # Never zero: a token that is already dead must not turn the watcher into a busy loop.
            wait = min(wait, max(self.retry_first_seconds, lifetime_seconds * 0.8))
        return equal_jitter(wait, spread)

    def after_failure(self, failures: int, spread: float) -> float:
        """
        Double the wait with each of the *failures* so far (1 or more), up to the most.

        It never exceeds the interval: failing must not make a watcher slower than succeeding.
        """
        most = min(self.retry_most_seconds, self.refresh_interval_seconds)
        return equal_jitter(Backoff(self.retry_first_seconds, most).after(failures), spread)

    def after_trial(self, failures: int, spread: float) -> float:
        """
        Double the wait with each of the *failures* of a version so far (1 or more), up to the interval.

        There is no hurry: what worked before is in use.
        """
        waits = Backoff(
            self.retry_first_seconds, max(self.retry_first_seconds, self.refresh_interval_seconds)
        )
        return equal_jitter(waits.after(failures), spread)

    def floor(self, fruitless: int) -> float:
        """Return the shortest time between two reads after *fruitless* ones (0 or more) in a row."""
        return Backoff(self.floor_first_seconds, self.floor_most_seconds).after(fruitless + 1)
