"""Is a loop taken, left and refused when it should be?"""

import asyncio
from collections.abc import Iterator

import pytest

from ledger_db import ConfigurationError
from ledger_db.connections.loop import Loop
from ledger_db.errors import ServerUnreachable


class Lodger:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.error: Exception | None = None

    async def leave(self) -> None:
        """Close what is idle."""
        await asyncio.sleep(0)
        self.told.append("leave")
        if self.error is not None:
            raise self.error

    def abandon(self) -> None:
        """Let go."""
        self.told.append("abandon")

    def after_fork(self) -> None:
        """Begin anew."""
        self.told.append("after_fork")


@pytest.fixture
def lodger() -> Lodger:
    """Somebody who has connections."""
    return Lodger()


@pytest.fixture
def loop(lodger: Lodger) -> Loop:
    """A loop that nobody has taken yet."""
    loop = Loop(or_else=", or do without")
    loop.let_to(lodger)
    return loop


@pytest.fixture
def turning() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that is closed without a farewell."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


async def claim(loop: Loop) -> None:
    """Ask for a connection twice."""
    loop.claim()
    loop.claim()


def test_a_run_takes_its_leave(loop: Loop, lodger: Lodger) -> None:
    """While the loop is shut down, and once: what is closed then needs no loop afterwards."""
    asyncio.run(claim(loop))
    assert lodger.told == ["leave"]

    asyncio.run(claim(loop))
    assert lodger.told == ["leave", "abandon", "leave"]


def test_what_a_closed_loop_has_left_is_abandoned(
    loop: Loop, lodger: Lodger, turning: asyncio.AbstractEventLoop
) -> None:
    """It had no time to say goodbye, so the next one has to see to it first."""
    turning.run_until_complete(claim(loop))
    turning.close()
    assert lodger.told == []

    asyncio.run(claim(loop))
    assert lodger.told == ["abandon", "leave"]


def test_a_server_that_is_away_keeps_no_loop_from_ending(loop: Loop, lodger: Lodger) -> None:
    """A goodbye that fails is none, and nobody hears of it."""
    lodger.error = OSError("no route to host")
    asyncio.run(claim(loop))

    assert lodger.told == ["leave", "abandon"]


def test_a_second_loop_is_refused_while_the_first_may_go_on(
    loop: Loop, lodger: Lodger, turning: asyncio.AbstractEventLoop
) -> None:
    """It hears what to do instead; the first one is told nothing."""
    turning.run_until_complete(claim(loop))
    with pytest.raises(ConfigurationError, match=r"another event loop.*in each loop.*or do without"):
        asyncio.run(claim(loop))

    turning.run_until_complete(claim(loop))
    assert lodger.told == []


def test_a_loop_that_was_left_for_good_takes_no_leave(
    loop: Loop, lodger: Lodger, turning: asyncio.AbstractEventLoop
) -> None:
    """The manager was closed before the loop: its end is none of our business any more."""
    turning.run_until_complete(claim(loop))
    loop.close()
    turning.run_until_complete(turning.shutdown_asyncgens())

    assert lodger.told == ["abandon"]
    asyncio.run(claim(loop))


async def test_closing_on_the_loop_itself(loop: Loop, lodger: Lodger) -> None:
    """The goodbye is said here; what is left is let go of by the thread that closes the rest."""
    loop.claim()
    await loop.async_close()
    await asyncio.to_thread(loop.close)

    assert lodger.told == ["leave", "abandon"]


def test_where_nothing_is_kept_every_loop_is_served(turning: asyncio.AbstractEventLoop) -> None:
    """Without a pool two loops take nothing from each other."""
    loop = Loop(keeps_connections=False)
    turning.run_until_complete(claim(loop))

    asyncio.run(claim(loop))


def test_a_loop_that_ends_meanwhile_is_no_longer_waited_for(loop: Loop) -> None:
    """A thread that has asked for something there hears that it is over."""

    async def hang() -> None:
        asked.set()
        await asyncio.Event().wait()

    def ask() -> None:
        with pytest.raises(ServerUnreachable, match="just ended"):
            loop.run(hang(), timeout_seconds=20)
        heard.append(True)

    async def end_at_once() -> None:
        loop.claim()
        tasks.append(asyncio.create_task(asyncio.to_thread(ask)))
        await asked.wait()

    asked, tasks = asyncio.Event(), list[asyncio.Task[None]]()
    heard: list[bool] = []
    asyncio.run(end_at_once())

    assert heard == [True]
