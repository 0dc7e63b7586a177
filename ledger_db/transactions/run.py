"""
Transactions that are repeated when that is safe, until they succeed or patience ends.

    a conflict, a lost connection before COMMIT, a server that cannot be reached   nothing was done: again
    COMMIT was sent and no answer came                                            never again: OutcomeUnknown
    a part is stored already: the work has committed, or it is under AUTOCOMMIT   never again: it passes
    anything else, the work's own errors among it                                 not ours to judge: it passes

Each attempt has a session of its own and starts from the beginning, so the work must do nothing outside of
its session that cannot be done twice.
"""

import asyncio
import inspect
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception

from ledger_db.answers.login_errors import sqlstate_of
from ledger_db.backoff import Backoff
from ledger_db.errors import RetriesExhausted
from ledger_db.event_log import EventLog
from ledger_db.transactions.kinds import COMMITTED
from ledger_db.transactions.meaning import Meaning, may_be_stored, meaning_of
from ledger_db.transactions.sessions import commit_unless_ended
from ledger_db.transactions.tally import TransactionTally

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

log: EventLog = EventLog(__name__)

T = TypeVar("T")

_REPEATABLE = frozenset({Meaning.CONFLICT, Meaning.LOST, Meaning.UNAVAILABLE})
_PAUSE = Backoff(first_seconds=0.01, most_seconds=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """
    How long a transaction is repeated, by which clock, with which jitter.

    Attributes:
        seconds: From the first attempt's beginning to the last one's; 0 for one attempt only.

        now: Seconds on a clock that never goes back.

        spread: Draws the jitter, in [0, 1).
    """

    seconds: float
    now: Callable[[], float] = time.monotonic
    spread: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if not self.seconds >= 0:
            raise ValueError(f"no patience of {self.seconds} s; use 0 for one attempt only, or more")


def run(
    open_session: Callable[[], Session],
    work: Callable[[Session], T],
    *,
    patience: Patience,
    tally: TransactionTally,
    pause: Callable[[float], None] = time.sleep,
) -> T:
    """
    Return what *work* returns, once its transaction is committed.

    Args:
        open_session: Called for each attempt.

        work: Is given the session; ``session.info["attempt"]`` counts from 1.

        patience: When to stop.

        tally: Told what becomes of it.

        pause: Lets seconds pass.

    Raises:
        RetriesExhausted: Nothing is committed; the last attempt's error is its cause.

        OutcomeUnknown: The answer to COMMIT got lost; it was not repeated.

        TypeError: *work* is a coroutine function; nothing of it has run.

        Exception: Whatever else *work* or its transaction raised; nothing is committed but what *work* has
            committed by itself, or stored at once (AUTOCOMMIT).
    """
    course = _Course(patience, tally)

    def attempt() -> T:
        with open_session() as session, session.begin() as transaction:
            course.begin(session)
            # Now, so that what fails later is no connection attempt of ours.
            course.connect(session.connection())
            answer = _plain(work(session), work)
            commit_unless_ended(session, transaction)
            return answer

    result: T = Retrying(sleep=pause, **course.policy())(attempt)
    tally.count("committed")
    return result


async def async_run(
    open_session: "Callable[[], AsyncSession]",
    work: "Callable[[AsyncSession], Awaitable[T]]",
    *,
    patience: Patience,
    tally: TransactionTally,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Same as `run`, on an event loop; *work* must return something to await, else it is a TypeError."""
    course = _Course(patience, tally)

    async def attempt() -> T:
        async with open_session() as session, session.begin() as transaction:
            course.begin(session.sync_session)
            course.connect((await session.connection()).sync_connection)
            answer = await _awaitable(work(session), work)
            await session.run_sync(commit_unless_ended, transaction.sync_transaction)
            return answer

    result: T = await AsyncRetrying(sleep=pause, **course.policy())(attempt)
    tally.count("committed")
    return result


def _plain(result: T, work: object) -> T:
    # The result is looked at, not the function: a lambda or an object may hide that it is asynchronous.
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(
            f"run needs an ordinary function, and {work!r} is a coroutine function; use async_run"
        )
    return result


def _awaitable(result: Awaitable[T], work: object) -> Awaitable[T]:
    if not inspect.isawaitable(result):
        raise TypeError(f"async_run needs a coroutine function, and {work!r} is none; use run, or async def")
    return result


class _Course:
    """One transaction's attempts: may there be another, and when?"""

    def __init__(self, patience: Patience, tally: TransactionTally) -> None:
        self._connected = False
        self._stores_at_once = False
        self._patience = patience
        self._tally = tally
        self._began = patience.now()
        self._attempts = 0
        self._session: Session | None = None

    def begin(self, session: Session) -> None:
        """Count an attempt with *session*."""
        self._attempts += 1
        self._session = session
        self._connected = self._stores_at_once = False
        session.info["attempt"] = self._attempts

    def connect(self, connection: Connection | None) -> None:
        """Note that the attempt has a connection."""
        self._connected = True
        dbapi = connection and connection.connection.dbapi_connection
        # Not of SQLite, whose drivers call other things by that name.
        self._stores_at_once = getattr(dbapi, "autocommit", None) is True

    def policy(self) -> dict[str, Any]:
        """Return the arguments of tenacity's."""
        return {
            "retry": retry_if_exception(self._is_worth_repeating),
            "wait": self._wait,
            "stop": self._is_over,
            "before_sleep": self._report,
            "retry_error_callback": self._give_up,
        }

    def _is_worth_repeating(self, error: BaseException) -> bool:
        if meaning_of(error) not in _REPEATABLE or self._may_be_stored(error):
            return False
        # An error of ours from inside of the work is the work's own: it may use another database, too.
        return isinstance(error, SQLAlchemyError) or not self._connected

    def _may_be_stored(self, error: BaseException) -> bool:
        """Whether a part of the work is stored, so that to repeat it would be to do that twice."""
        has_committed = self._session is not None and self._session.info.get(COMMITTED) is True
        return has_committed or self._stores_at_once or may_be_stored(error)

    def _wait(self, state: RetryCallState) -> float:
        # Full jitter: two that met each other must not meet again.  The first is short, because what was lost
        # is replaced at once, and most conflicts are over when they are heard of.
        return _PAUSE.after(state.attempt_number) * self._patience.spread()

    def _is_over(self, state: RetryCallState) -> bool:
        # With the pause: an attempt after the end would not be within the patience.
        return self._seconds() + state.upcoming_sleep >= self._patience.seconds

    def _seconds(self) -> float:
        return self._patience.now() - self._began

    def _report(self, state: RetryCallState) -> None:
        error = _error_of(state)
        self._tally.count("retried")
        log.debug(
            "transaction.retried",
            attempt=self._attempts,
            sqlstate=sqlstate_of(error),
            meaning=meaning_of(error).value,
            wait_seconds=round(state.upcoming_sleep, 3),
        )

    def _give_up(self, state: RetryCallState) -> None:
        error, seconds = _error_of(state), self._seconds()
        self._tally.count("exhausted")
        exhausted = RetriesExhausted(
            f"tried {self._attempts} times in {seconds:.1f} s, and nothing was committed; the last attempt "
            f"met: {meaning_of(error).value} (SQLSTATE {sqlstate_of(error) or 'none'}); try again later, and "
            "look for what writes the same rows or keeps the server away"
        )
        exhausted.attempts, exhausted.seconds = self._attempts, seconds
        raise exhausted from error


def _error_of(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    assert error is not None
    return error
