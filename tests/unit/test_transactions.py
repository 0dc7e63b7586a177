"""When is a transaction repeated, when not, and for how long?  SQLite commits; errors are made up."""

import asyncio
import functools
import logging
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from ledger_db.errors import OutcomeUnknown, RetriesExhausted
from ledger_db.testing import ManualClock
from ledger_db.transactions.meaning import note_stored
from ledger_db.transactions.run import Patience, async_run, run
from ledger_db.transactions.sessions import NO_OPTIONS, async_open_session, open_session
from ledger_db.transactions.tally import TransactionCounters, TransactionTally
from tests.support.events import fields_of


class DriverError(Exception):
    """What a driver raises, with its code."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("in another language")
        self.sqlstate = sqlstate


def coded(sqlstate: str | None, *, invalidated: bool = False) -> SQLAlchemyError:
    """Return SQLAlchemy's error for a code."""
    return OperationalError("SELECT 1", {}, DriverError(sqlstate), connection_invalidated=invalidated)


CONFLICT = coded("40001")
LOST = coded(None, invalidated=True)


class Clock(ManualClock):
    """A clock that only pauses move."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.pauses.append(seconds)
        self.advance(seconds)

    async def pause_async(self, seconds: float) -> None:
        """Let time pass, on a loop."""
        self.pause(seconds)


class Work:
    """Writes a row, and fails as scripted."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.attempts: list[object] = []
        self.sessions: list[Session] = []

    def __call__(self, session: Session) -> str:
        """Write, then fail or answer."""
        self.attempts.append(session.info["attempt"])
        self.sessions.append(session)
        session.execute(text("INSERT INTO done VALUES (1)"))
        if self.failures:
            raise self.failures.pop(0)
        return "done"


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A database in memory with one table."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE done (n int)"))
    yield engine
    engine.dispose()


def times_done(engine: Engine) -> int:
    """Count what is committed."""
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM done")).scalar_one())


class Runner:
    """Calls `run` with a clock of its own, which never jitters unless it is told to."""

    def __init__(self, engine: Engine) -> None:
        self.clock = Clock()
        self.tally = TransactionTally()
        self.open: Callable[[], Session] = functools.partial(open_session, engine, NO_OPTIONS)

    def __call__(
        self, work: Callable[[Session], str], *, seconds: float = 10.0, spread: float = 0.999_999
    ) -> str:
        """Run *work* with *seconds* of patience."""
        patience = Patience(seconds=seconds, now=self.clock, spread=lambda: spread)
        return run(self.open, work, patience=patience, tally=self.tally, pause=self.clock.pause)


@pytest.fixture
def runner(engine: Engine) -> Runner:
    """What runs a transaction without waiting."""
    return Runner(engine)


@pytest.mark.parametrize("error", [CONFLICT, coded("40P01"), LOST, coded("57P03"), coded("53300")])
def test_what_was_not_done_is_done_again(runner: Runner, engine: Engine, error: Exception) -> None:
    """Conflicts, deadlocks, lost connections and full servers are repeated, each time in a new session."""
    work = Work(error, error)

    assert runner(work) == "done"
    assert times_done(engine) == 1
    assert work.attempts == [1, 2, 3]
    assert len({id(session) for session in work.sessions}) == 3
    assert runner.tally.counters == TransactionCounters(committed=1, retried=2)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such customer"),
        ConnectionRefusedError(111, "a payment service, called by the work"),
        TimeoutError("the same"),
        OutcomeUnknown("COMMIT was sent"),
        RetriesExhausted("inside of another run"),
        IntegrityError("INSERT", {}, DriverError("23505")),
        coded("42P01"),
        coded("55P03"),
        coded("57014"),
        coded("25006"),
        KeyboardInterrupt(),
    ],
)
def test_everything_else_passes_at_once_and_unchanged(
    runner: Runner, engine: Engine, error: Exception
) -> None:
    """The work's own errors, faults, constraints and unknown outcomes are never repeated."""
    with pytest.raises(type(error)) as caught:
        runner(Work(error))

    assert caught.value is error
    assert times_done(engine) == 0
    assert runner.clock.pauses == []
    assert runner.tally.counters == TransactionCounters()


def test_the_outcome_of_a_commit_that_is_unknown_is_not_repeated(
    runner: Runner, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Perhaps the money has moved: a second transfer would be worse than an error."""
    work = Work()

    def lose(connection: object) -> None:
        raise OutcomeUnknown("COMMIT was sent")

    monkeypatch.setattr(engine.dialect, "do_commit", lose)
    with pytest.raises(OutcomeUnknown):
        runner(work)

    assert work.attempts == [1]


def test_work_that_has_committed_by_itself_is_not_repeated(runner: Runner, engine: Engine) -> None:
    """Otherwise its first half would be done twice."""

    def commit_then_fail(session: Session) -> str:
        session.execute(text("INSERT INTO done VALUES (1)"))
        session.commit()
        raise CONFLICT

    with pytest.raises(OperationalError):
        runner(commit_then_fail)

    assert times_done(engine) == 1


def test_work_of_which_a_part_may_be_stored_is_not_repeated(runner: Runner) -> None:
    """Whoever knows that has noted it on the error, which passes as it is."""
    error = coded("40001")
    note_stored(error)
    work = Work(error)
    with pytest.raises(OperationalError) as caught:
        runner(work)

    assert caught.value is error
    assert work.attempts == [1]


def test_a_connection_attempt_that_fails_is_repeated(runner: Runner, engine: Engine) -> None:
    """Before the work has begun, what fails is the way to the server."""
    failures = [OperationalError("", {}, Exception("Connection refused")) for _ in range(2)]
    connect = runner.open

    def opened() -> Session:
        session = connect()
        if failures:

            def fail(*args: object, **kwargs: object) -> None:
                raise failures.pop(0)

            session.connection = fail  # type: ignore[method-assign, assignment]
        return session

    runner.open = opened
    work = Work()

    assert runner(work) == "done"
    assert work.attempts == [3]


def test_pauses_grow_to_a_second_and_stay_within_patience(runner: Runner) -> None:
    """Ten milliseconds at first, doubled each time; no attempt begins after the end."""
    with pytest.raises(RetriesExhausted):
        runner(Work(*[CONFLICT] * 99), seconds=5.0)

    rounded = [round(pause, 2) for pause in runner.clock.pauses]
    assert rounded[:8] == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0]
    assert set(rounded[8:]) == {1.0}
    assert sum(runner.clock.pauses) < 5.0 < sum(runner.clock.pauses) + 1.0


def test_pauses_are_jittered_down_to_nothing(runner: Runner) -> None:
    """Two that met each other must not meet again."""
    runner(Work(CONFLICT, CONFLICT, CONFLICT), spread=0.0)
    runner(Work(CONFLICT, CONFLICT), spread=0.5)

    assert runner.clock.pauses == [0.0, 0.0, 0.0, 0.005, 0.01]


def test_patience_that_is_over_says_how_often_how_long_and_why(runner: Runner) -> None:
    """The error says that nothing was committed, and carries the last one."""
    with pytest.raises(RetriesExhausted) as caught:
        runner(Work(*[CONFLICT] * 99), seconds=2.0)

    assert caught.value.attempts == len(runner.clock.pauses) + 1
    assert caught.value.seconds == sum(runner.clock.pauses)
    assert str(caught.value).startswith(
        f"tried {caught.value.attempts} times in {caught.value.seconds:.1f} s, and nothing was committed; "
        "the last attempt met: conflict (SQLSTATE 40001); try again later"
    )
    assert caught.value.__cause__ is CONFLICT
    assert runner.tally.counters == TransactionCounters(retried=len(runner.clock.pauses), exhausted=1)


def test_patience_counts_the_time_that_attempts_take(runner: Runner) -> None:
    """A slow attempt leaves less for the others."""

    def slow(session: Session) -> str:
        runner.clock.advance(3.0)
        raise CONFLICT

    with pytest.raises(RetriesExhausted) as caught:
        runner(slow, seconds=8.0)

    assert caught.value.attempts == 3


def test_no_patience_is_one_attempt(runner: Runner) -> None:
    """Zero is a way to say "once"."""
    with pytest.raises(RetriesExhausted) as caught:
        runner(Work(CONFLICT), seconds=0)

    assert caught.value.attempts == 1


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_patience_that_does_not_exist_is_refused(seconds: float) -> None:
    """At once, before anything is done."""
    with pytest.raises(ValueError, match="no patience of"):
        Patience(seconds=seconds)


def test_each_repetition_is_logged_for_who_asks(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """At debug only, without the statement: it is on a request's path."""
    caplog.set_level(logging.DEBUG, "ledger_db.transactions.run")
    runner(Work(CONFLICT, LOST))

    logged = [fields_of(record) for record in caplog.records]
    assert [fields["event"] for fields in logged] == ["transaction.retried"] * 2
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert [(r["attempt"], r["sqlstate"], r["meaning"], r["wait_seconds"]) for r in logged] == [
        (1, "40001", "conflict", 0.01),
        (2, None, "lost", 0.02),
    ]


class CoroutineObject:
    """A callable whose call is a coroutine, which no inspection of a function shows."""

    async def __call__(self, session: Session) -> str:
        """Do nothing."""
        return "never"


async def coroutine(session: Session) -> str:
    """Do nothing, asynchronously."""
    return "never"


@pytest.mark.parametrize("work", [coroutine, functools.partial(coroutine), CoroutineObject()])
def test_run_refuses_a_coroutine_function(runner: Runner, work: Callable[[Session], str]) -> None:
    """It would commit nothing and say that it had."""
    with pytest.raises(TypeError, match="use async_run"):
        runner(work)

    assert runner.tally.counters == TransactionCounters()


async def test_run_async_does_the_same_and_refuses_a_plain_function() -> None:
    """Retries, counters, exhaustion and the guard, on a loop."""
    engine = create_async_engine("sqlite+aiosqlite://")
    clock, tally = Clock(), TransactionTally()
    failures: list[Exception] = [CONFLICT, LOST]

    async def work(session: AsyncSession) -> object:
        await session.execute(text("SELECT 1"))
        if failures:
            raise failures.pop(0)
        return session.info["attempt"]

    async def never(session: AsyncSession) -> None:
        raise CONFLICT

    async def go(work: Callable[[AsyncSession], object]) -> object:
        patience = Patience(seconds=1, now=clock)
        opened = functools.partial(async_open_session, engine, NO_OPTIONS)
        return await async_run(
            opened,
            work,  # type: ignore[arg-type]
            patience=patience,
            tally=tally,
            pause=clock.pause_async,
        )

    try:
        assert await go(work) == 3
        assert await go(lambda session: asyncio.ensure_future(work(session))) == 1
        with pytest.raises(TypeError, match="use run, or async def"):
            await go(lambda session: None)
        with pytest.raises(RetriesExhausted):
            await go(never)
    finally:
        await engine.dispose()

    assert tally.counters.committed == 2
    assert tally.counters.exhausted == 1


async def test_a_wait_can_be_cancelled() -> None:
    """A request that was cancelled does not go on in the background."""
    engine = create_async_engine("sqlite+aiosqlite://")
    waiting = asyncio.Event()
    attempts = []

    async def pause(seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def conflict(session: AsyncSession) -> None:
        attempts.append(session.info["attempt"])
        raise CONFLICT

    opened = functools.partial(async_open_session, engine, NO_OPTIONS)
    try:
        task = asyncio.create_task(
            async_run(opened, conflict, patience=Patience(seconds=60), tally=TransactionTally(), pause=pause)
        )
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        await engine.dispose()

    assert attempts == [1]
