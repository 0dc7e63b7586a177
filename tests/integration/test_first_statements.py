"""Is an error in the statements that SQLAlchemy sends on an engine's first connection the real one?"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from ledger_db import ConnectionManager, ServerUnreachable, Settings
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import choice_of, client_of, is_on_loop
from tests.support.first_statements import Fate, FirstStatements

FATES: tuple[Fate, ...] = ("cut", "shut down", "timed out")


@pytest.fixture
def door(box: Sandbox) -> Iterator[FirstStatements]:
    """A proxy in front of the server that gives statements their fate."""
    with FirstStatements(box.postgres.host, box.postgres.port) as door:
        yield door


@pytest.fixture
def far(direct: Settings, door: FirstStatements) -> Settings:
    """Settings that lead through it."""
    known = direct.model_dump(exclude_unset=True)
    return Settings(**{**known, "database_port": door.port, "startup_timeout_seconds": 30})


def seven(session: Session) -> Any:
    """Ask for something."""
    return session.execute(text("SELECT 7")).scalar()


@pytest.mark.parametrize("fate", FATES)
def test_a_start_survives_whatever_meets_them(
    driver: str, far: Settings, door: FirstStatements, fate: Fate
) -> None:
    """Each statement of a new engine may fail twice: the start tries again, on every driver."""
    for at in count(1):
        door.arm(fate, at=at, times=2)
        with client_of(driver, far):
            pass
        if door.met == 0:
            break
    assert at > 3


def causes(error: BaseException) -> Iterator[BaseException]:
    """Iterate over what *error* was raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
        yield error


@pytest.mark.parametrize(
    ("fate", "words"),
    [
        ("cut", "closed the connection|connection was closed"),
        ("shut down", "administrator command|closed the connection|connection was closed"),
        ("timed out", "statement timeout"),
    ],
)
def test_what_does_not_pass_is_named(
    driver: str, far: Settings, door: FirstStatements, fate: Fate, words: str
) -> None:
    """A start that is given up says what happened in the driver's words, and has its error as the cause."""
    door.arm(fate, at=2, times=1000)
    with (
        pytest.raises(ServerUnreachable, match=words) as failed,
        client_of(driver, far, startup_timeout_seconds=2),
    ):
        pass

    # Its own, or that of the last attempt if the time of the whole start was up first.
    assert any(isinstance(link, DBAPIError) for link in causes(failed.value))


@contextmanager
def new_engine(driver: str, settings: Settings) -> Iterator[Callable[[], Any]]:
    """Open a manager by its other half, and yield who does the first work of *driver*'s engine."""
    db = ConnectionManager(Settings(**{**settings.model_dump(exclude_unset=True), **choice_of(driver)}))
    with asyncio.Runner() as runner:
        if is_on_loop(driver):
            db.open()
            yield lambda: runner.run(db.async_run(lambda session: session.run_sync(seven)))
        else:
            runner.run(db.async_open())
            yield lambda: db.run(seven)
        runner.run(db.async_close())


@pytest.mark.parametrize("fate", ["cut", "shut down"])
def test_work_on_a_new_engine_is_repeated(
    driver: str, far: Settings, door: FirstStatements, fate: Fate
) -> None:
    """The first work of an engine that the start had no need of is done again, as any other."""
    for at in count(1):
        with new_engine(driver, far) as first_work:
            door.arm(fate, at=at)
            assert first_work() == 7
            if door.met == 0:
                break
    assert at > 3


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_probe_says_what_it_was(driver: str, far: Settings, door: FirstStatements) -> None:
    """A break is no mistake that only a person can mend, and the next probe is as good as ever."""
    with ConnectionManager(Settings(**{**far.model_dump(exclude_unset=True), **choice_of(driver)})) as db:
        door.arm("cut", at=1, times=2)
        (broken,) = db.probe(max_age_seconds=0).servers
        (whole,) = db.probe(max_age_seconds=0).servers

    assert (broken.ok, broken.problem) == (False, "cannot be reached")
    assert whole.ok


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_cancellation_stays_one(far: Settings, door: FirstStatements, at: int) -> None:
    """Whoever is cancelled there ends as cancelled, and leaves the engine as good as new."""

    async def cancel(db: ConnectionManager) -> None:
        door.arm("held", at=at)
        task = asyncio.create_task(db.async_run(lambda session: session.run_sync(seven)))
        await asyncio.to_thread(door.held.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await db.async_run(lambda session: session.run_sync(seven)) == 7
        await db.async_close()

    db = ConnectionManager(far).open()
    asyncio.run(cancel(db))
