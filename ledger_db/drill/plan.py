"""What is a drill to do, with which servers, and who is told of it?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ledger_db.drill.report import RotationFigures

Strategy = Literal["single-user", "alternating-users"]

STRATEGIES: tuple[Strategy, ...] = ("single-user", "alternating-users")
"""In the order in which they take turns."""

TAIL_SECONDS = 1.0
"""How long a rotation is not over after its version became current: who has not noticed yet notices now."""


class PostgresAccess(Protocol):
    """What a drill needs of a PostgreSQL server."""

    def connect(self) -> Any:
        """Return a psycopg2 connection as the superuser, in autocommit mode."""
        ...


class RotatingServers(Protocol):
    """What a drill needs of a sandbox."""

    @property
    def postgres(self) -> PostgresAccess:
        """The PostgreSQL server."""
        ...

    def rotate_database(self, strategy: Strategy = ..., window_seconds: float = ...) -> str:
        """Change the password of PostgreSQL; return the id of the new version."""
        ...

    def rotate_redis(self, window_seconds: float = ...) -> str:
        """Change the password of Redis; return the id of the new version."""
        ...


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """
    What a drill does.

    Attributes:
        roles: The roles that the service logs in to PostgreSQL as.

        connections_limit: How many connections its pool may open.

        seconds: How long requests are sent; None until somebody ends it.

        every_seconds: From the start of one rotation to the start of the next.

        window_seconds: How long a server knows the new password before Secrets Manager does.

        clients: How many use the service at once.

        own_secret_reads: How often a rotation of each strategy itself asks Secrets Manager for a value, see
            ``count_own_secret_reads``; these are not the service's.
    """

    roles: tuple[str, ...]
    connections_limit: int
    seconds: float | None = None
    every_seconds: float = 15.0
    window_seconds: float = 1.0
    clients: int = 8
    own_secret_reads: Mapping[Strategy, int] = field(default_factory=dict)

    @property
    def rotation_seconds(self) -> float:
        """How long one rotation takes, up to the moment when it is over for everybody."""
        return self.window_seconds + TAIL_SECONDS

    def had_time_for_a_rotation(self, seconds: float) -> bool:
        """Whether a rotation fits into a drill that took *seconds*, the last of them maybe mere waiting."""
        planned = seconds if self.seconds is None else min(seconds, self.seconds)
        return planned >= self.every_seconds + self.rotation_seconds


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a running drill is."""

    seconds: float
    requests: int
    failed: int
    rotating: bool
    next_rotation_seconds: float | None


class Audience(Protocol):
    """Who wants to hear of a drill while it runs."""

    def rotated(self, figures: RotationFigures) -> None:
        """One more rotation is over."""
        ...

    def progressed(self, progress: Progress) -> None:
        """A tenth of a second has passed."""
        ...
