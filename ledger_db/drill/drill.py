"""
Do requests survive while passwords rotate under them?

A drill runs a service against a sandbox, lets clients use it, rotates the passwords of both servers again and
again, and watches all of them meanwhile.  At the end it checks that nothing was lost and nothing left behind.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

import httpx

from ledger_db.drill.load import ANSWER_TIMEOUT_SECONDS, Load, Workload
from ledger_db.drill.plan import (
    STRATEGIES,
    TAIL_SECONDS,
    Audience,
    DrillPlan,
    Progress,
    RotatingServers,
    Strategy,
)
from ledger_db.drill.report import (
    FAILURES_KEPT,
    DrillReport,
    RequestRecord,
    RotationFigures,
    describe_failure,
    measure_latency,
)
from ledger_db.drill.sampling import ConnectionCount, Sample, Sampler
from ledger_db.drill.service import Service

_LOOK_SECONDS = 0.1
_LEFT_BEHIND_SECONDS = 3.0


class _Mishap(Exception):
    """Something that is no request went wrong, and there is no point in going on."""


class Drill:
    """One drill.  It is run once."""

    def __init__(
        self,
        servers: RotatingServers,
        service: Service,
        *,
        workload: Workload,
        plan: DrillPlan,
        audience: Audience,
        count_secret_reads: Callable[[], int],
    ) -> None:
        """
        Prepare a drill.

        Args:
            servers: The sandbox.

            service: Started and ready.  The drill ends it, to see what it leaves behind.

            workload: What clients ask of the service.

            plan: How long, how often, how many.

            audience: Told of every rotation as soon as it is over.

            count_secret_reads: How often anybody asked Secrets Manager for a value so far.
        """
        self._servers = servers
        self._service = service
        self._workload = workload
        self._plan = plan
        self._audience = audience
        self._count_secret_reads = count_secret_reads
        self._load = Load(service.url, workload, clients=plan.clients)
        self._sampler = Sampler(
            ConnectionCount(servers.postgres.connect, plan.roles),
            count_secret_reads,
            connections_limit=plan.connections_limit,
        )
        self._began = 0.0
        self._due: float | None = None
        self._rotations: list[RotationFigures] = []
        self._failures: list[str] = []
        self._connections: list[int] = []
        self._secret_reads = 0

    async def run(self, stop: asyncio.Event) -> DrillReport:
        """
        Run until the planned time is over or *stop* is set; a rotation that has begun is finished first.

        Cancelled, it sends no more requests and stops watching; the service is then its owner's to end.
        """
        self._began = time.monotonic()
        # What the service read before, for its start, belongs to no rotation.
        self._secret_reads = await asyncio.to_thread(self._count_secret_reads)
        await asyncio.to_thread(self._sampler.start)
        try:
            mishap = await self._run_load(stop)
            seconds = time.monotonic() - self._began
            flaws = () if mishap else await self._inspect()
            await asyncio.to_thread(self._service.stop)
        finally:
            await asyncio.to_thread(self._sampler.stop)
        self._account(until=float("inf"))
        return DrillReport(
            seconds=seconds,
            requests=self._load.requests,
            failed=self._load.failed,
            failures=tuple(self._failures),
            rotations=tuple(self._rotations),
            rotations_expected=self._plan.had_time_for_a_rotation(seconds),
            connections_most=max(self._connections, default=None),
            connections_limit=self._plan.connections_limit,
            connections_left=await asyncio.to_thread(self._count_left),
            flaws=flaws,
            mishap=mishap,
        )

    async def _run_load(self, stop: asyncio.Event) -> str | None:
        """Let the clients work while passwords rotate; return what ended that early."""
        enough = asyncio.Event()
        load = asyncio.create_task(self._load.run(enough))
        try:
            await self._rotate_again_and_again(stop, load)
        except _Mishap as mishap:
            return str(mishap)
        except asyncio.CancelledError:
            load.cancel()
            raise
        finally:
            enough.set()
            with contextlib.suppress(Exception):  # its end, as early as it may be, was noticed above
                await load
        return None

    async def _rotate_again_and_again(self, stop: asyncio.Event, load: asyncio.Task[None]) -> None:
        ends = float("inf") if self._plan.seconds is None else self._began + self._plan.seconds
        number = 0
        while not stop.is_set():
            due = self._began + (number + 1) * self._plan.every_seconds
            self._due = due if due + self._plan.rotation_seconds <= ends else None
            await self._wait(stop, load, until=ends if self._due is None else due)
            if self._due is None or stop.is_set():
                return
            number += 1
            await self._rotate(number, stop, load)

    async def _rotate(self, number: int, stop: asyncio.Event, load: asyncio.Task[None]) -> None:
        strategy = STRATEGIES[(number - 1) % len(STRATEGIES)]
        started = time.monotonic()
        window_seconds = self._plan.window_seconds
        # At the same time, since that is the worst that can happen to the service.
        database = asyncio.create_task(
            asyncio.to_thread(self._servers.rotate_database, strategy, window_seconds=window_seconds)
        )
        redis = asyncio.create_task(
            asyncio.to_thread(self._servers.rotate_redis, window_seconds=window_seconds)
        )
        while not (database.done() and redis.done()):
            # Not ended by stop: a rotation that is broken off leaves a password that nobody knows.
            self._report_progress(rotating=True)
            await asyncio.wait({database, redis}, timeout=_LOOK_SECONDS)
        errors = {"PostgreSQL": database.exception(), "Redis": redis.exception()}
        failed = [f"{name}: {type(error).__name__}: {error}" for name, error in errors.items() if error]
        if failed:
            raise _Mishap(f"rotation {number} failed: {'; '.join(failed)}")
        over = time.monotonic() + TAIL_SECONDS
        await self._wait(stop, load, until=over, rotating=True)
        figures = self._measure(number, strategy, version=database.result(), started=started, until=over)
        self._rotations.append(figures)
        self._audience.rotated(figures)

    async def _wait(
        self, stop: asyncio.Event, load: asyncio.Task[None], *, until: float, rotating: bool = False
    ) -> None:
        """
        Wait for the moment *until*, or for *stop*.

        Raises:
            _Mishap: There is no service or no client any more.
        """
        while not stop.is_set() and time.monotonic() < until:
            self._report_progress(rotating=rotating)
            ended = self._service.ended
            if ended is not None:
                raise _Mishap(ended)
            if load.done():
                raise _Mishap(f"the clients ended early: {load.exception() or 'all requests are sent'}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(_LOOK_SECONDS, max(0.0, until - time.monotonic())))

    def _report_progress(self, *, rotating: bool) -> None:
        now = time.monotonic()
        self._audience.progressed(
            Progress(
                seconds=now - self._began,
                requests=self._load.requests,
                failed=self._load.failed,
                rotating=rotating,
                next_rotation_seconds=None if self._due is None else max(0.0, self._due - now),
            )
        )

    def _measure(
        self, number: int, strategy: Strategy, *, version: str, started: float, until: float
    ) -> RotationFigures:
        reads_so_far = self._secret_reads
        outcomes, samples = self._account(until=until)
        return RotationFigures(
            number=number,
            strategy=strategy,
            version=version,
            requests=len(outcomes),
            failed=sum(outcome.failed for outcome in outcomes),
            before=measure_latency(outcome for outcome in outcomes if outcome.started < started),
            during=measure_latency(outcome for outcome in outcomes if outcome.started >= started),
            connections_most=max((sample.connections or 0 for sample in samples), default=0),
            secret_reads=self._secret_reads - reads_so_far - self._plan.own_secret_reads.get(strategy, 0),
        )

    def _account(self, *, until: float) -> tuple[list[RequestRecord], list[Sample]]:
        """Take everything that happened before *until* and was not taken yet, and add it to the totals."""
        outcomes = self._load.take_outcomes(until=until)
        samples = self._sampler.take(until=until)
        for outcome in outcomes:
            if outcome.failed and len(self._failures) < FAILURES_KEPT:
                self._failures.append(describe_failure(outcome, since=self._began))
        counts = [sample.connections for sample in samples if sample.connections is not None]
        if counts:
            self._connections = [max(*self._connections, *counts, 0)]
        reads = [sample.secret_reads for sample in samples if sample.secret_reads is not None]
        self._secret_reads = max(reads, default=self._secret_reads)
        return outcomes, samples

    async def _inspect(self) -> tuple[str, ...]:
        async with httpx.AsyncClient(
            base_url=self._service.url, timeout=ANSWER_TIMEOUT_SECONDS * 3, trust_env=False
        ) as client:
            try:
                return await self._workload.inspect(client)
            except Exception as error:  # noqa: BLE001 - data that can not be checked is not known to be right
                return (
                    f"what the requests left behind could not be checked: {type(error).__name__}: {error}",
                )

    def _count_left(self) -> int | None:
        """Count what is there although the service has ended; a backend is given a moment to notice that."""
        count = ConnectionCount(self._servers.postgres.connect, self._plan.roles)
        deadline = time.monotonic() + _LEFT_BEHIND_SECONDS
        try:
            left = count.read()
            while left and time.monotonic() < deadline:
                time.sleep(_LOOK_SECONDS)
                left = count.read()
        finally:
            count.close()
        return left


def count_own_secret_reads(
    servers: RotatingServers, count_secret_reads: Callable[[], int]
) -> dict[Strategy, int]:
    """
    Rotate all passwords before anybody uses them, to learn how often a rotation itself reads the secrets.

    Secrets Manager can not tell who asks.  As a rotation of one strategy goes through the same steps every
    time, this can be taken from what is counted later.
    """
    reads: dict[Strategy, int] = {}
    for strategy in STRATEGIES:
        before = count_secret_reads()
        servers.rotate_database(strategy, window_seconds=0.0)
        servers.rotate_redis(window_seconds=0.0)
        reads[strategy] = count_secret_reads() - before
    return reads
