"""Who is let in to a connection, in which order, and is a place ever lost?"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from ledger_db.errors import Saturated
from ledger_db.fastapi.admission import Admission, AdmissionStatus

PATIENT = 60.0


def status(admission: Admission) -> tuple[int, int, int]:
    """Return in use, waiting and refused."""
    now = admission.status
    return (now.in_use, now.waiting, now.refused)


@asynccontextmanager
async def inside(admission: Admission) -> AsyncIterator[None]:
    """Hold a place."""
    await admission.enter()
    try:
        yield
    finally:
        admission.leave()


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_places_are_given_out_and_given_back() -> None:
    """A free place costs no wait."""
    admission = Admission(2, patience_seconds=PATIENT)
    async with inside(admission), inside(admission):
        assert admission.status == AdmissionStatus(places=2, in_use=2, waiting=0, refused=0)

    assert status(admission) == (0, 0, 0)


async def test_whoever_waits_longest_is_next() -> None:
    """The order of asking is the order of entering, and nobody who comes later is quicker."""
    admission = Admission(1, patience_seconds=PATIENT)
    order: list[int] = []

    async def visit(number: int) -> None:
        async with inside(admission):
            order.append(number)

    await admission.enter()
    waiting = []
    for number in range(20):
        waiting.append(asyncio.create_task(visit(number)))
        await settle()
    admission.leave()
    # Comes at the very moment at which the place becomes free.
    await visit(20)
    await asyncio.gather(*waiting)

    assert order == list(range(21))


async def test_a_wait_is_bounded_and_says_what_was_the_matter() -> None:
    """Whoever is not let in in time hears of it, and holds nothing."""
    admission = Admission(1, patience_seconds=0.02)
    async with inside(admission):
        with pytest.raises(Saturated, match=r"within 0\.0 s \(places=1, in use=1, waiting=0\); try again"):
            await admission.enter()
        assert status(admission) == (1, 0, 1)

    assert status(admission) == (0, 0, 1)
    async with inside(admission):
        assert status(admission) == (1, 0, 1)


async def test_those_who_cannot_be_served_in_time_need_not_wait() -> None:
    """A bound on the number of waiters refuses the next one at once."""
    admission = Admission(1, patience_seconds=PATIENT, most_waiting=1)
    async with inside(admission):
        waiter = asyncio.create_task(admission.enter())
        await settle()
        with pytest.raises(Saturated):
            await admission.enter()
        assert status(admission) == (1, 1, 1)
    await waiter

    assert status(admission) == (1, 0, 1)


async def test_a_cancelled_waiter_is_passed_over() -> None:
    """One that gave up, and has not run since, does not swallow the place that becomes free."""
    admission = Admission(1, patience_seconds=PATIENT)
    await admission.enter()
    gone = asyncio.create_task(admission.enter())
    there = asyncio.create_task(admission.enter())
    await settle()
    gone.cancel()
    admission.leave()
    await there

    assert gone.cancelled() or await ended(gone)
    assert status(admission) == (1, 0, 0)


async def test_a_waiter_cancelled_with_the_place_in_its_hand_passes_it_on() -> None:
    """Given a place and cancelled before it could run, it leaves the place to the next."""
    admission = Admission(1, patience_seconds=PATIENT)
    await admission.enter()
    gone = asyncio.create_task(admission.enter())
    there = asyncio.create_task(admission.enter())
    await settle()
    admission.leave()
    gone.cancel()

    await asyncio.wait_for(there, 5)
    assert await ended(gone)
    admission.leave()
    assert status(admission) == (0, 0, 0)


async def test_who_need_not_wait_is_counted_and_keeps_others_out() -> None:
    """While more are in than there are places, one that leaves makes room for nobody."""
    admission = Admission(1, patience_seconds=PATIENT)
    await admission.enter()
    admission.overdraw()
    there = asyncio.create_task(admission.enter())
    await settle()
    admission.leave()
    await settle()
    assert status(admission) == (1, 1, 0)

    admission.leave()
    await there
    assert status(admission) == (1, 0, 0)


async def ended(task: Awaitable[object]) -> bool:
    """Whether a task ended by its cancellation."""
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


@pytest.mark.parametrize("seed", range(5))
async def test_no_place_is_ever_lost_or_made_up(seed: int) -> None:
    """Whatever is cancelled or late, never more are in than there are places, and all places come back."""
    chance = random.Random(seed)
    admission = Admission(3, patience_seconds=0.004)
    most = within = served = 0

    async def visit() -> None:
        nonlocal most, within, served
        async with inside(admission):
            within += 1
            most = max(most, within)
            try:
                await asyncio.sleep(chance.choice([0, 0, 0.001, 0.002]))
            finally:
                within -= 1
            served += 1

    tasks = []
    for _ in range(400):
        task = asyncio.create_task(visit())
        tasks.append(task)
        if chance.random() < 0.5:
            asyncio.get_running_loop().call_later(chance.random() * 0.006, task.cancel)
        if chance.random() < 0.3:
            await asyncio.sleep(0)
        if chance.random() < 0.1:
            tasks[chance.randrange(len(tasks))].cancel()
        if chance.random() < 0.1:
            await asyncio.sleep(0.001)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    refused = sum(isinstance(each, Saturated) for each in outcomes)

    assert status(admission) == (0, 0, refused)
    assert most == 3
    assert served > 0
    assert all(each is None or isinstance(each, Saturated | asyncio.CancelledError) for each in outcomes)
