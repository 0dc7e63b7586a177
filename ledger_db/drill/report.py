"""
What did a drill find, and is it good enough?

Values and arithmetic only: what is measured comes from elsewhere, and how it looks on a screen as well.
Moments are seconds of ``time.monotonic()``.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FAILURES_KEPT = 5
"""How many failed requests a report quotes: the first ones tell, the others repeat them."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """
    One request and what became of it.

    Attributes:
        name: What kind of request it was.

        started: When it was sent, on the monotonic clock.

        seconds: How long until the whole answer was there, or until it was clear that none would come.

        status: The HTTP status; None if there was no answer.

        problem: Why it counts as failed; None if it was answered well.
    """

    name: str
    started: float
    seconds: float
    status: int | None
    problem: str | None

    @property
    def failed(self) -> bool:
        """Whether a user would have seen a failure."""
        return self.problem is not None or self.status is None or not 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Latency:
    """The middle and the slow end of some requests, in milliseconds; None where there were none."""

    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class RotationFigures:
    """
    One rotation of both secrets, and what the requests around it saw.

    Every request belongs to one rotation: to the interval before it, or to the rotation itself, which lasts
    from its first step until a second after the new version became current.

    Attributes:
        number: 1 for the first.

        strategy: How the password of PostgreSQL was changed.

        version: The id of the version of the PostgreSQL secret that is current since.

        requests: How many requests started in the interval before or in the rotation.

        failed: How many of those failed.

        before: Latency of the requests of the interval before.

        during: Latency of the requests of the rotation.

        connections_most: The most connections to PostgreSQL at any moment of the two.

        secret_reads: How often the service asked Secrets Manager for a value in the two.
    """

    number: int
    strategy: str
    version: str
    requests: int
    failed: int
    before: Latency
    during: Latency
    connections_most: int
    secret_reads: int


@dataclass(frozen=True, slots=True)
class DrillReport:
    """
    Everything that a drill found.

    Attributes:
        seconds: How long requests were sent.

        requests: How many there were.

        failures: The failed ones, described; only the first few.

        failed: How many failed.

        rotations: One each, in order.

        rotations_expected: Whether there was time for one.

        connections_most: The most connections to PostgreSQL at any moment; None if nobody could look.

        connections_limit: What the pool of the service may open.

        connections_left: How many were still there once the service had ended; None if nobody could look.

        flaws: What is wrong with the data that requests left behind.

        mishap: What ended the drill early; None if nothing did.
    """

    seconds: float
    requests: int
    failed: int
    failures: tuple[str, ...]
    rotations: tuple[RotationFigures, ...]
    rotations_expected: bool
    connections_most: int | None
    connections_limit: int
    connections_left: int | None
    flaws: tuple[str, ...] = ()
    mishap: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nobody noticed the rotations."""
        return not self.problems()

    def problems(self) -> tuple[str, ...]:
        """
        Say everything that is wrong, the most telling first.

        A drill in which nothing was tried has shown nothing, so that is a problem too.
        """
        return tuple(problem for problem in self._findings() if problem is not None)

    def _findings(self) -> Iterable[str | None]:
        yield self.mishap
        if self.failed:
            yield f"{self.failed} of {self.requests} requests failed"
        if not self.requests:
            yield "no request was sent"
        if self.rotations_expected and not self.rotations:
            yield "no rotation took place"
        yield from self.flaws
        yield from self._connection_findings()

    def _connection_findings(self) -> Iterable[str | None]:
        if self.connections_most is None:
            yield "the connections to PostgreSQL could not be counted"
        elif self.connections_most > self.connections_limit:
            yield (
                f"{self.connections_most} connections to PostgreSQL, more than the {self.connections_limit} "
                "that the pool allows"
            )
        if self.connections_left is None:
            yield "the connections that were left behind could not be counted"
        elif self.connections_left:
            yield f"{self.connections_left} connections to PostgreSQL left behind by the service"


def percentile(values: Sequence[float], percent: float) -> float | None:
    """
    Return the smallest of *values* that *percent* of them do not exceed; None of none.

    The nearest rank, not an interpolation: the answer is a time that somebody really waited.
    """
    if not values:
        return None
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def measure_latency(outcomes: Iterable[RequestRecord]) -> Latency:
    """Summarise how long *outcomes* took, failed ones included: waiting for a failure is waiting."""
    times_ms = [outcome.seconds * 1000 for outcome in outcomes]
    return Latency(p50_ms=percentile(times_ms, 50), p99_ms=percentile(times_ms, 99))


def describe_failure(outcome: RequestRecord, *, since: float) -> str:
    """Put a failed *outcome* into one line; *since* is when the drill began."""
    status = "no answer" if outcome.status is None else f"status {outcome.status}"
    return (
        f"{outcome.name} at {outcome.started - since:.2f} s: {status} after {outcome.seconds * 1000:.0f} ms: "
        f"{outcome.problem}"
    )
