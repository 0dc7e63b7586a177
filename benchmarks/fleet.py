"""
What does one rotation do to the server of a whole fleet?

    python -m benchmarks.fleet --processes 60

A discrete simulation from 10 to 10,000 processes, as it was before renewals were spread and as it is, and the
same with real processes on this machine.  A login costs the server what was measured: 8.2 ms with SCRAM and
TLS.  A connection is used once a second; a login that is not answered within 5 s fails its request, is work
done for nothing, and is repeated by the next request.
"""

import argparse
import heapq
import math
import random
from collections import Counter
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import simpy

from benchmarks.fleet_processes import login_cost, real_run
from ledger_db import Settings
from ledger_db.sandbox import Sandbox

# What a client that gave up has cost the server all the same: a fork that finds nobody.
_WASTED_SHARE = 0.3
# A server that does nothing but wasted work never recovers: looked at for so long.
_MOST_SECONDS = 120.0
_BARS = " ▁▂▃▄▅▆▇█"
_DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """
    Processes, what they do about a rotation, and the server that they share.  Times are in seconds.

    Attributes:
        processes: How many.

        pool: Connections of each.

        announcement_spread_seconds: As the setting.

        renewal_spread_seconds: As the setting.

        cores: Of the server, as far as queries leave them free.

        login_seconds: What one login takes of a core.

        checkouts_per_second: Of one connection.

        connect_timeout_seconds: As the setting.
    """

    processes: int
    pool: int
    announcement_spread_seconds: float = _DEFAULTS["announcement_spread_seconds"]
    renewal_spread_seconds: float = _DEFAULTS["renewal_spread_seconds"]
    cores: int = 2
    login_seconds: float = 0.0082
    checkouts_per_second: float = 1.0
    connect_timeout_seconds: float = _DEFAULTS["connect_timeout_seconds"]

    @property
    def without_spread(self) -> "Fleet":
        """The same as it was before: 50 ms are the way of a message, and of the reads that follow it."""
        return replace(self, announcement_spread_seconds=0.05, renewal_spread_seconds=0.0)

    @property
    def as_needed(self) -> "Fleet":
        """The same, spread over so long that logins take at most half of what the server has left."""
        one_each = 2 * self.processes * self.login_seconds / self.cores
        return replace(
            self,
            announcement_spread_seconds=max(self.announcement_spread_seconds, one_each),
            renewal_spread_seconds=max(self.renewal_spread_seconds, one_each * (self.pool + 1)),
        )

    def __str__(self) -> str:
        look, renew = self.announcement_spread_seconds, self.renewal_spread_seconds
        return f"{self.processes} x {self.pool}, looks {look:.2g} s, renewals {renew:.0f} s"


@dataclass(slots=True)
class Outcome:
    """
    What came of a rotation; moments are in seconds after it.

    Attributes:
        logins: When each began.

        reads: When each process read the secret.

        seconds: What each login took; of real processes, each request.

        failed: Requests.

        fresh_after_seconds: When the last connection was a new one.
    """

    logins: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    fresh_after_seconds: float = 0.0

    def row(self, what: str) -> str:
        """Return it as a line of the table."""
        return (
            f"{what:<44}{len(self.logins):>8}{peak(self.logins):>8}{p99(self.seconds):>8.2f}{self.failed:>8}"
            f"{self.fresh_after_seconds:>8.0f}{peak(self.reads):>8}  {plot(self.logins)}"
        )


HEADER = (
    f"{'processes x pool, spreads':<44}{'logins':>8}{'peak/s':>8}{'p99 s':>8}{'failed':>8}{'fresh s':>8}"
    f"{'reads/s':>8}  logins in each second of the first minute, against the peak"
)


def peak(moments: Iterable[float]) -> int:
    """Return the most of them within one second."""
    return max(Counter(int(moment) for moment in moments).values(), default=0)


def p99(seconds: list[float]) -> float:
    """Return what 99 of 100 are below."""
    return sorted(seconds)[int(0.99 * len(seconds))] if seconds else 0.0


def plot(moments: Iterable[float]) -> str:
    """Return a bar for each of the first sixty seconds."""
    seconds = Counter(int(moment) for moment in moments)
    most = max(seconds.values(), default=1)
    return "".join(
        _BARS[math.ceil(seconds[second] / most * (len(_BARS) - 1))] for second in range(60)
    ).rstrip()


class Simulation:
    """One rotation of one fleet."""

    def __init__(self, fleet: Fleet, *, seed: int = 1) -> None:
        self._fleet = fleet
        self._random = random.Random(seed)
        self._clock = simpy.Environment()
        # When each of the server's cores has done what it was given; a heap.
        self._free_at = [0.0] * fleet.cores
        self._stale = fleet.processes * fleet.pool
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Let every process hear of the rotation at 0, and return what came of it."""
        for _ in range(self._fleet.processes):
            self._clock.process(self._process())
        self._clock.run(until=self._fleet.renewal_spread_seconds + _MOST_SECONDS)
        if self._stale:
            self._outcome.fresh_after_seconds = math.inf
        return self._outcome

    def _process(self) -> Generator[Any, Any, None]:
        yield self._clock.timeout(self._random.uniform(0, self._fleet.announcement_spread_seconds))
        self._outcome.reads.append(self._clock.now)
        # What was read is tried before it is adopted, in the probe's place; a trial that fails is repeated.
        pause = 1.0
        while not (yield self._clock.process(self._login())):
            yield self._clock.timeout(pause)
            pause *= 2
        for _ in range(self._fleet.pool):
            self._clock.process(self._connection())

    def _connection(self) -> Generator[Any, Any, None]:
        yield self._clock.timeout(self._random.random() * self._fleet.renewal_spread_seconds)
        while True:
            yield self._clock.timeout(self._random.expovariate(self._fleet.checkouts_per_second))
            if (yield self._clock.process(self._login())):
                break
            self._outcome.failed += 1
        self._note_fresh()

    def _note_fresh(self) -> None:
        self._stale -= 1
        self._outcome.fresh_after_seconds = self._clock.now

    def _login(self) -> Generator[Any, Any, bool]:
        now, fleet = self._clock.now, self._fleet
        self._outcome.logins.append(now)
        # First come, first served, by whichever core is free first: so its turn is known when it comes.
        turn_at = max(now, heapq.heappop(self._free_at))
        is_awaited = turn_at - now <= fleet.connect_timeout_seconds
        seconds = 0.7 * fleet.login_seconds + self._random.expovariate(1 / (0.3 * fleet.login_seconds))
        ends_at = turn_at + (seconds if is_awaited else _WASTED_SHARE * fleet.login_seconds)
        heapq.heappush(self._free_at, ends_at)
        took = min(ends_at - now, fleet.connect_timeout_seconds)
        self._outcome.seconds.append(took)
        yield self._clock.timeout(took)
        return is_awaited and took < fleet.connect_timeout_seconds


def simulate(processes: int, pool: int) -> None:
    """Print what becomes of a fleet before and after, and with the spread that it needs if that is more."""
    fleet = Fleet(processes=processes, pool=pool)
    for one in dict.fromkeys((fleet.without_spread, fleet, fleet.as_needed)):
        print(Simulation(one).run().row(str(one)))


def compare(processes: int, pool: int) -> None:
    """Print what real processes do, all at once and spread, each beside the simulation of the same."""
    with Sandbox() as box:
        cost = login_cost(box)
    server_ms, client_ms = 1e3 * cost.server_seconds, 1e3 * cost.client_seconds
    print(f"a login here: server {server_ms:.1f} ms, client {client_ms:.1f} ms")
    # Both ends compete for the two cores.
    here = Fleet(processes=processes, pool=pool, login_seconds=cost.server_seconds + cost.client_seconds)
    for fleet in (here.without_spread, here):
        with Sandbox() as box:
            real = real_run(
                box,
                processes,
                pool,
                {
                    "announcement_spread_seconds": fleet.announcement_spread_seconds,
                    "renewal_spread_seconds": fleet.renewal_spread_seconds,
                },
            )
        print(Simulation(fleet).run().row(f"{fleet}: simulated"))
        seen = Outcome(
            logins=real.logins,
            reads=real.adoptions,
            seconds=real.durations(0.0, 5.0),
            failed=real.failed,
            fresh_after_seconds=max(real.logins),
        )
        print(seen.row(f"{fleet}: real"))
        quiet = p99(real.durations(-5.0, 0.0))
        print(f"    p99 of its requests {quiet:.2f} s in the 5 s before, and in the row in those after")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=60, help="real ones; 0 for none")
    parser.add_argument("--pool", type=int, default=2, help="connections of each real one")
    arguments = parser.parse_args()
    print(HEADER)
    for processes, pool in ((10, 5), (100, 5), (300, 5), (1000, 5), (3000, 1), (10_000, 1)):
        simulate(processes, pool)
    if arguments.processes:
        compare(arguments.processes, arguments.pool)


if __name__ == "__main__":
    main()
