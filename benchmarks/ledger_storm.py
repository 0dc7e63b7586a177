"""
Does the Trust Ledger keep its promises when everything happens to it that may happen in a bad week?

Clients append all the time, and repeat what was not acknowledged with the same key, while both passwords
rotate again and again, PostgreSQL is away for a while, and then Redis.  What has to hold: every acknowledged
entry is in the ledger exactly once, the chain has no gap and verifies, and a request fails only while a
server is really away, with a clean 503 that says when to come back.

    python -m benchmarks.ledger_storm
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count

import httpx

from examples.trust_ledger.chain import START, Entry, find_flaw
from examples.trust_ledger.run import make_service, migrate_sandbox
from ledger_db.drill.plan import STRATEGIES
from ledger_db.drill.report import percentile
from ledger_db.drill.service import listen_from
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.servers import PostgresServer, RedisServer

FIRST_PORT = 8200
ANSWER_TIMEOUT_SECONDS = 30.0
PAUSE_SECONDS = 0.02
MOST_ATTEMPTS = 50
MOST_PROBLEMS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What happens.

    Attributes:
        appends: At least so many entries; more if not everything else has happened by then.

        clients: How many append at once.

        rotations: Of both secrets, in three parts: before, between and after the outages.

        window_seconds: How long a server knows a new password before Secrets Manager does.

        away_seconds: How long each server is away.

        patience_seconds: How long the service repeats a transaction before it answers 503.
    """

    appends: int = 1000
    clients: int = 32
    rotations: int = 12
    window_seconds: float = 0.5
    away_seconds: float = 14.0
    patience_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to append, and its answer; moments are of the monotonic clock."""

    key: str
    sent: float
    answered: float
    answer: httpx.Response | None

    @property
    def acknowledged(self) -> bool:
        """Whether the client was told that its entry is in the ledger."""
        return self.answer is not None and self.answer.status_code == httpx.codes.CREATED

    @property
    def retry_after_seconds(self) -> int:
        """How long the answer asks to wait; 0 if it does not say."""
        return 0 if self.answer is None else int(self.answer.headers.get("Retry-After", 0))

    @property
    def clean(self) -> bool:
        """Whether a client that knows nothing of the service knows what to do now."""
        return (
            self.answer is not None
            and self.answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            and self.answer.headers.get("Content-Type") == "application/problem+json"
            and self.retry_after_seconds >= 1
        )


@dataclass(frozen=True, slots=True)
class Outage:
    """When a server was away, from the order to stop until it was ready again."""

    server: str
    began: float
    ended: float

    def excuses(self, attempt: Attempt) -> bool:
        """Whether the server was away at any moment of *attempt*."""
        return attempt.sent <= self.ended and attempt.answered >= self.began


@dataclass(slots=True)
class Storm:
    """Everything that has happened."""

    attempts: list[Attempt] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    rotations: int = 0
    ledger: list[Entry] = field(default_factory=list)
    verified: bool = False

    def problems(self) -> Iterator[str]:
        """Say what does not hold."""
        yield from self._unexcused()
        yield from self._lost()
        last = START
        for entry in self.ledger:
            flaw = find_flaw(entry, after=last)
            if flaw is not None:
                yield flaw
                break
            last = entry.link
        if not self.verified:
            yield "the service does not verify its own chain"

    def recovery_seconds(self, outage: Outage) -> float | None:
        """Return how long after the end of *outage* the server was used again; None if it never was."""
        used = "Idempotency-Cache"
        later = [
            attempt.answered - outage.ended
            for attempt in self.attempts
            if attempt.answer is not None and attempt.acknowledged and attempt.answered > outage.ended
            if outage.server != "Redis" or attempt.answer.headers.get(used) == "used"
        ]
        return min(later, default=None)

    def _unexcused(self) -> Iterator[str]:
        for attempt in self.attempts:
            if attempt.acknowledged:
                continue
            if not attempt.clean:
                yield f"{attempt.key} got no clean answer: {_describe(attempt.answer)}"
            elif not any(outage.excuses(attempt) for outage in self.outages):
                yield f"{attempt.key} failed while every server was there: {_describe(attempt.answer)}"

    def _lost(self) -> Iterator[str]:
        there = Counter((entry.idempotency_key, entry.id, entry.hash) for entry in self.ledger)
        acknowledged = {
            (attempt.key, answer["id"], answer["hash"])
            for attempt in self.attempts
            if attempt.acknowledged and attempt.answer is not None
            for answer in [attempt.answer.json()]
        }
        missing = acknowledged - set(there)
        if missing:
            yield f"{len(missing)} acknowledged entries are not in the ledger: {sorted(missing)[:3]}"
        if len(there) != len(self.ledger) or set(there) != acknowledged:
            yield f"{len(self.ledger)} entries for {len(acknowledged)} that were acknowledged"


async def run(plan: Plan) -> Storm:
    """Let it happen, on servers of its own."""
    storm = Storm()
    with Sandbox() as box:
        migrate_sandbox(box)
        patience = {"LEDGER_DB_RETRY_PATIENCE_SECONDS": str(plan.patience_seconds)}
        with make_service(
            "examples.trust_ledger.app:app",
            listener=listen_from(FIRST_PORT),
            environment={**box.environment, **patience},
        ) as service:
            service.wait_ready()
            async with httpx.AsyncClient(
                base_url=service.url, timeout=ANSWER_TIMEOUT_SECONDS, trust_env=False
            ) as client:
                await _rage(plan, box, client, storm)
                storm.ledger = [entry async for entry in _read_ledger(client)]
                walk = (await client.get("/verify")).raise_for_status().text.splitlines()
                storm.verified = json.loads(walk[-1]).get("verified") is True
    return storm


async def _rage(plan: Plan, box: Sandbox, service: httpx.AsyncClient, storm: Storm) -> None:
    numbers, over = count(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(plan.clients):
            group.create_task(_keep_appending(plan, service, storm, numbers=numbers, over=over))
        part = plan.rotations // 3
        await _rotate(plan, box, storm, times=part)
        await _take_away("PostgreSQL", box.postgres, plan, storm)
        await _rotate(plan, box, storm, times=part)
        await _take_away("Redis", box.redis, plan, storm)
        await _rotate(plan, box, storm, times=plan.rotations - 2 * part)
        over.set()


async def _keep_appending(
    plan: Plan, service: httpx.AsyncClient, storm: Storm, *, numbers: Iterator[int], over: asyncio.Event
) -> None:
    for number in numbers:
        if over.is_set() and number >= plan.appends:
            return
        for _ in range(MOST_ATTEMPTS):
            attempt = await _append(service, f"storm-{number}")
            storm.attempts.append(attempt)
            if attempt.acknowledged:
                break
            # What a 503 asks for; spread, so that not everybody comes back in the same moment.
            await asyncio.sleep(attempt.retry_after_seconds * random.uniform(0.5, 1.0))
        await asyncio.sleep(PAUSE_SECONDS)


async def _append(service: httpx.AsyncClient, key: str) -> Attempt:
    sent, answer = time.monotonic(), None
    body = {"account": "storm", "amount": 1, "memo": key}
    with contextlib.suppress(httpx.HTTPError):  # no answer is an outcome as well
        answer = await service.post("/entries", json=body, headers={"Idempotency-Key": key})
    return Attempt(key, sent, time.monotonic(), answer)


async def _rotate(plan: Plan, box: Sandbox, storm: Storm, *, times: int) -> None:
    window = {"window_seconds": plan.window_seconds}
    for _ in range(times):
        strategy = STRATEGIES[storm.rotations % len(STRATEGIES)]
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(box.rotate_database, strategy, **window))
            group.create_task(asyncio.to_thread(box.rotate_redis, **window))
        storm.rotations += 1


async def _take_away(name: str, server: PostgresServer | RedisServer, plan: Plan, storm: Storm) -> None:
    began = time.monotonic()
    await asyncio.to_thread(server.stop)
    try:
        await asyncio.sleep(plan.away_seconds)
    finally:
        await asyncio.to_thread(server.start)
    storm.outages.append(Outage(name, began, time.monotonic()))


async def _read_ledger(service: httpx.AsyncClient) -> AsyncIterator[Entry]:
    after: int | None = 0
    while after is not None:
        page = (
            (await service.get("/entries", params={"after": after, "limit": 500})).raise_for_status().json()
        )
        for fields in page["entries"]:
            yield Entry(**{**fields, "recorded_at": datetime.fromisoformat(fields["recorded_at"])})
        after = page["next"]


def _describe(answer: httpx.Response | None) -> str:
    return "no answer" if answer is None else f"{answer.status_code} {answer.text[:200]}"


def summarise(storm: Storm) -> str:
    """Put the figures into a few lines."""
    failed = sum(not attempt.acknowledged for attempt in storm.attempts)
    times = [attempt.answered - attempt.sent for attempt in storm.attempts if attempt.acknowledged]
    p50, p99 = percentile(times, 50), percentile(times, 99)
    figures = (
        f"{len(storm.ledger)} entries, {len(storm.attempts)} requests, {storm.rotations} rotations of both "
        f"secrets; {failed} requests were not acknowledged\n"
        f"those that were took {_milliseconds(p50)} (p50), {_milliseconds(p99)} (p99), "
        f"{_milliseconds(max(times, default=None))} (slowest)"
    )
    outages = [
        f"{outage.server} was away for {outage.ended - outage.began:.1f} s; used again "
        f"{_milliseconds(storm.recovery_seconds(outage))} after it was back"
        for outage in storm.outages
    ]
    return "\n".join([figures, *outages])


def _milliseconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds * 1000:.0f} ms"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the storm that the command line describes; 0 only if everything held."""
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--appends", type=int, default=plan.appends)
    parser.add_argument("--clients", type=int, default=plan.clients)
    parser.add_argument("--rotations", type=int, default=plan.rotations)
    parser.add_argument("--away-seconds", type=float, default=plan.away_seconds)
    storm = asyncio.run(run(replace(plan, **vars(parser.parse_args(arguments)))))
    print(summarise(storm))
    problems = list(storm.problems())
    for problem in problems[:MOST_PROBLEMS]:
        print(f"  {problem}")
    print("FAILED" if problems else "PASSED: every acknowledged entry is there exactly once, without a gap")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
