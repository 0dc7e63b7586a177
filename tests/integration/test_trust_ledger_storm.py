"""Does the Trust Ledger survive rotations and outages together?  ``benchmarks.ledger_storm``, in short."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest

from benchmarks.ledger_storm import Attempt, Outage, Plan, Storm, run, summarise
from examples.trust_ledger.chain import START, Draft, seal

ENTRY = seal(
    Draft("ada", 1, ""), after=START, idempotency_key="k1", recorded_at=datetime(2026, 11, 20, tzinfo=UTC)
)
SOUND = Storm(
    attempts=[
        Attempt("k1", 1.0, 2.0, httpx.Response(201, json={"id": ENTRY.id, "hash": ENTRY.hash})),
    ],
    outages=[Outage("PostgreSQL", 10.0, 20.0)],
    ledger=[ENTRY],
    verified=True,
)
PROBLEM = {"Content-Type": "application/problem+json", "Retry-After": "1"}


async def test_the_ledger_survives_a_storm() -> None:
    """Six rotations of both passwords, and each server away for longer than the service is patient."""
    plan = Plan(
        appends=300, clients=16, rotations=6, window_seconds=0.2, away_seconds=2.5, patience_seconds=1.0
    )
    storm = await run(plan)
    failures = Counter(attempt.clean for attempt in storm.attempts if not attempt.acknowledged)

    assert list(storm.problems()) == [], summarise(storm)
    assert storm.rotations == 6
    assert len(storm.ledger) >= 300
    # They had to fail, with PostgreSQL away for so long: the promise about failures was tried too.
    assert failures[True] > 0
    assert all((storm.recovery_seconds(outage) or 99) < 10 for outage in storm.outages)


def test_a_ledger_that_kept_everything_has_no_problem() -> None:
    """The judge is content with what is right."""
    assert list(SOUND.problems()) == []


@pytest.mark.parametrize(
    ("storm", "problem"),
    [
        (replace(SOUND, ledger=[]), "1 acknowledged entries are not in the ledger"),
        (replace(SOUND, ledger=[ENTRY, ENTRY]), "2 entries for 1"),
        (replace(SOUND, ledger=[replace(ENTRY, amount=2)]), "entry 1 was changed"),
        (replace(SOUND, attempts=[]), "1 entries for 0"),
        (replace(SOUND, verified=False), "does not verify"),
        (
            replace(SOUND, attempts=[*SOUND.attempts, Attempt("k2", 11.0, 12.0, None)]),
            "k2 got no clean answer: no answer",
        ),
        (
            replace(SOUND, attempts=[*SOUND.attempts, Attempt("k2", 11.0, 12.0, httpx.Response(500))]),
            "k2 got no clean answer: 500",
        ),
        (
            replace(SOUND, attempts=[*SOUND.attempts, Attempt("k2", 11.0, 12.0, httpx.Response(503))]),
            "k2 got no clean answer: 503",
        ),
        (
            replace(
                SOUND,
                attempts=[*SOUND.attempts, Attempt("k2", 21.0, 22.0, httpx.Response(503, headers=PROBLEM))],
            ),
            "k2 failed while every server was there",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_broken_promise_is_noticed(storm: Storm, problem: str) -> None:
    """A storm that shows nothing wrong has really looked."""
    assert any(problem in found for found in storm.problems())


def test_a_clean_failure_in_an_outage_is_excused() -> None:
    """While a server is away nobody can do better than to say so."""
    failed = Attempt("k2", 9.0, 10.5, httpx.Response(503, headers=PROBLEM))

    assert list(replace(SOUND, attempts=[*SOUND.attempts, failed]).problems()) == []
