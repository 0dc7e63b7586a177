"""
Do requests survive rotations?  All of them, counted.

Sixteen threads or tasks ask for a row again and again, every connection lives for one second at most, and the
password changes all the time.  What is counted: requests, failures, the most server connections ever seen,
what is left after close, and how often Secrets Manager was asked because a login was refused.

    python -m benchmarks.rotation_stress --rotations 100
"""

import argparse
import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from sqlalchemy import text

from ledger_db import ConnectionManager, Credentials, SecretsManagerSource, Settings
from ledger_db.credentials.model import Stage
from ledger_db.sandbox import Sandbox, Strategy

WORKERS = 16
POOL_SIZE = 4
MAX_OVERFLOW = 4
DRIVERS = ("psycopg2", "asyncpg", "psycopg", "psycopg-async")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    One run.

    Attributes:
        driver: One of DRIVERS.

        strategy: How the password is rotated.

        rotations: How many times.

        window_seconds: Between the server's change and AWSCURRENT.

        pause_seconds: Between two rotations.

        refresh_seconds: How often the manager looks by itself.

        kill_after_seconds: When the sessions of the role that was retired are ended by force; None for never.
    """

    driver: str
    strategy: Strategy
    rotations: int
    window_seconds: float = 1.0
    pause_seconds: float = 0.2
    refresh_seconds: float = 300.0
    kill_after_seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.driver:13} {self.strategy:17} window {self.window_seconds:g} s"


@dataclass(slots=True)
class Tally:
    """What the workers count; each thread has its own, so that none waits for another."""

    requests: int = 0
    slowest_seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)

    def measure(self, began: float, error: Exception | None) -> None:
        """Count one request."""
        self.requests += 1
        self.slowest_seconds = max(self.slowest_seconds, time.perf_counter() - began)
        if error is not None:
            self.failures[f"{type(error).__name__}: {str(error)[:160]}"] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a run."""

    plan: Plan
    seconds: float
    requests: int
    failures: Counter[str]
    slowest_ms: float
    most_connections: int
    connections_left: int
    reads_beyond_polling: int

    def __str__(self) -> str:
        return (
            f"{self.plan}: {self.plan.rotations} rotations, {self.requests} requests, "
            f"{sum(self.failures.values())} failed, slowest {self.slowest_ms:.0f} ms, "
            f"connections {self.most_connections}/{POOL_SIZE + MAX_OVERFLOW}, left {self.connections_left}, "
            f"{self.reads_beyond_polling / self.plan.rotations:.2f} reads a rotation beyond polling, "
            f"{self.seconds:.0f} s"
        )

    @property
    def good(self) -> bool:
        """Whether the promise was kept."""
        return (
            not self.failures
            and self.requests > 0
            and self.most_connections <= POOL_SIZE + MAX_OVERFLOW
            and self.connections_left == 0
            and self.reads_beyond_polling <= 4 * self.plan.rotations
        )


class CountingSource:
    """The real source; counts the reads that a refused login asked for."""

    rotates = True

    def __init__(self, source: SecretsManagerSource) -> None:
        self._source = source
        self.name = source.name
        self.reads_beyond_polling = 0

    def fetch(self, stage: Stage) -> Credentials | None:
        """Read; the name of the thread tells for whom."""
        if threading.current_thread().name == "ledger_db-read":
            self.reads_beyond_polling += 1
        return self._source.fetch(stage)


class ConnectionSampler:
    """Watches how many sessions the application's roles have on the server."""

    def __init__(self, box: Sandbox) -> None:
        self._box = box
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.most = 0
        self.samples = 0

    def start(self) -> None:
        """Sample every 10 ms from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with closing(self._box.postgres.connect()) as connection, connection.cursor() as cursor:
            while not self._stop.wait(0.01):
                self.most = max(self.most, count_sessions(cursor))
                self.samples += 1


def count_sessions(cursor: object) -> int:
    """Return the number of sessions of the service; a rotation's own trial of the new password is none."""
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE usename LIKE 'ledger_app%' AND application_name = 'ledger_db'"
    )
    cursor.execute(query)  # type: ignore[attr-defined] # any DB-API cursor
    return int(cursor.fetchone()[0])  # type: ignore[attr-defined]


def run(box: Sandbox, plan: Plan) -> Result:
    """Rotate as planned while the workers ask; needs the sandbox's environment in `os.environ`."""
    sync_driver = "psycopg" if plan.driver == "psycopg" else "psycopg2"
    async_driver = "psycopg" if plan.driver == "psycopg-async" else "asyncpg"
    source = CountingSource(SecretsManagerSource(box.database_secret_id, "PostgreSQL"))
    manager = ConnectionManager(
        Settings(
            pool_size=POOL_SIZE,
            max_overflow=MAX_OVERFLOW,
            pool_recycle_seconds=1.0,
            refresh_interval_seconds=plan.refresh_seconds,
            database_driver=sync_driver,
            async_database_driver=async_driver,
        ),
        database_source=source,
    )
    sampler = ConnectionSampler(box)
    stop = threading.Event()
    began = time.perf_counter()
    sampler.start()
    work = _work_on_loop if plan.driver in {"asyncpg", "psycopg-async"} else _work_in_threads
    rotations = threading.Thread(target=_rotate, args=(box, plan, stop), name="rotations")
    tallies = work(manager, stop, rotations.start)
    rotations.join()
    sampler.stop()
    return Result(
        plan=plan,
        seconds=time.perf_counter() - began,
        requests=sum(tally.requests for tally in tallies),
        failures=sum((tally.failures for tally in tallies), Counter()),
        slowest_ms=1000 * max(tally.slowest_seconds for tally in tallies),
        most_connections=sampler.most,
        connections_left=_left(box),
        reads_beyond_polling=source.reads_beyond_polling,
    )


def _left(box: Sandbox) -> int:
    """Count the sessions that stay; the server takes a moment to notice that a client has left."""
    deadline = time.monotonic() + 5
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        while (left := count_sessions(cursor)) and time.monotonic() < deadline:
            time.sleep(0.05)
    return left


def _rotate(box: Sandbox, plan: Plan, stop: threading.Event) -> None:
    try:
        for _ in range(plan.rotations):
            box.rotate_database(plan.strategy, window_seconds=plan.window_seconds)
            if plan.kill_after_seconds is not None:
                time.sleep(plan.kill_after_seconds)
                _kill_retired(box)
            time.sleep(plan.pause_seconds)
    finally:
        stop.set()


def _kill_retired(box: Sandbox) -> None:
    """End by force all sessions of the role that AWSCURRENT does not name any more."""
    import json  # noqa: PLC0415 - here only

    with closing(box.client()) as client, closing(box.postgres.connect()) as connection:
        current = json.loads(client.get_secret_value(SecretId=box.database_secret_id)["SecretString"])
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE usename LIKE 'ledger_app%%' AND usename <> %s",
                (current["username"],),
            )


def _work_in_threads(
    manager: ConnectionManager, stop: threading.Event, ready: Callable[[], None]
) -> list[Tally]:
    tallies = [Tally() for _ in range(WORKERS)]

    def work(tally: Tally) -> None:
        while not stop.is_set():
            began, failure = time.perf_counter(), None
            try:
                with manager.session() as session:
                    session.execute(text("SELECT 1"))
            except Exception as error:  # noqa: BLE001 - every failure counts
                failure = error
            tally.measure(began, failure)
            time.sleep(0.005)

    with manager:
        threads = [threading.Thread(target=work, args=(tally,)) for tally in tallies]
        for thread in threads:
            thread.start()
        ready()
        for thread in threads:
            thread.join()
    return tallies


def _work_on_loop(
    manager: ConnectionManager, stop: threading.Event, ready: Callable[[], None]
) -> list[Tally]:
    tallies = [Tally() for _ in range(WORKERS)]

    async def work(tally: Tally) -> None:
        while not stop.is_set():
            began, failure = time.perf_counter(), None
            try:
                async with manager.async_session() as session:
                    await session.execute(text("SELECT 1"))
            except Exception as error:  # noqa: BLE001 - every failure counts
                failure = error
            tally.measure(began, failure)
            await asyncio.sleep(0.005)

    async def main() -> None:
        async with manager:
            ready()
            await asyncio.gather(*(work(tally) for tally in tallies))

    asyncio.run(main())
    return tallies


def plans(rotations: int) -> list[Plan]:
    """Return the runs that the promise is measured by."""
    strategies: tuple[Strategy, ...] = ("single-user", "alternating-users")
    usual = [
        Plan(driver=driver, strategy=strategy, rotations=rotations)
        for driver in ("psycopg2", "asyncpg")
        for strategy in strategies
    ]
    storms = [
        Plan(
            driver=driver,
            strategy="single-user",
            rotations=rotations,
            window_seconds=0.025,
            pause_seconds=0.025,
        )
        for driver in ("psycopg2", "asyncpg")
    ]
    kills = [
        Plan(
            driver=driver,
            strategy="alternating-users",
            rotations=max(3, rotations // 10),
            refresh_seconds=0.5,
            kill_after_seconds=1.0,
        )
        for driver in ("psycopg2", "asyncpg")
    ]
    return [*usual, *storms, *kills]


def main() -> int:
    """Run all plans, print a line each, and return 0 only if every one was good."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rotations", type=int, default=100)
    parser.add_argument("--only", default="", help="run only plans whose line contains this text")
    arguments = parser.parse_args()
    good = True
    with Sandbox() as box:
        import os  # noqa: PLC0415 - here only

        os.environ.update(box.environment)
        for plan in plans(arguments.rotations):
            if arguments.only in str(plan):
                result = run(box, plan)
                print(result, flush=True)
                for failure, times in result.failures.most_common(5):
                    print(f"    {times} x {failure}")
                good = good and result.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
