"""
How does a synchronous session end, seen from an event loop that must not wait for a server?

And so that nobody can interrupt it: a request can be cancelled at every ``await``, by a server that shuts
down or by a timeout in a middleware.  The end of a session must not be: half of it is a connection that never
comes back.  So it is a task of its own, which nobody cancels, and the request only waits for it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import IllegalStateChangeError, InvalidRequestError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import QueuePool

from ledger_db.event_log import EventLog
from ledger_db.fastapi.places import Place
from ledger_db.redaction import describe
from ledger_db.transactions import sessions
from ledger_db.transactions.kinds import COMMITTED
from ledger_db.transactions.meaning import note_stored

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession

    from ledger_db.transactions.lent import LentSession

log: EventLog = EventLog(__name__)

_ROLLBACK = "ledger_db.rollback"
_LOOK_AGAIN_SECONDS = 0.01

_LOST = (
    "the endpoint closed its session before what it had written was committed, so nothing of it is stored; "
    "leave the session open, as it is committed when the endpoint returns, or call commit() before it is "
    "closed, or rollback() if it shall be undone"
)


def mark_rollback(session: "Session | AsyncSession") -> None:
    """Have this injected session rolled back although the endpoint returns: for an error that is returned."""
    session.info[_ROLLBACK] = True


def is_marked(session: "Session | AsyncSession") -> bool:
    """Whether `mark_rollback` was called."""
    return _ROLLBACK in session.info


def lend(session: Session, place: Place, *, promised: bool) -> None:
    """Have *session* ask at *place* for its connections; *promised* is a COMMIT when it comes back."""
    lent = cast("LentSession", session)
    lent.place, lent.promised = place, promised


def take_back(session: Session) -> None:
    """
    Note that its end is ours from here on.

    Raises:
        InvalidRequestError: It was closed before what it wrote was committed, and nobody has said that this
            was to be undone.  An answer of success would be about something that is not there.
    """
    lent = cast("LentSession", session)
    lent.promised = False
    if lent.lost and not is_marked(session):
        raise InvalidRequestError(_LOST)


@contextmanager
def noting_what_is_stored(session: Session) -> Iterator[None]:
    """Note on an error that a transaction of *session* before it is stored: nobody may do all of it again."""
    try:
        yield
    except Exception as error:
        # A row that was not as expected is SQLAlchemy's own finding, which no listener hears of.
        if COMMITTED in session.info or (isinstance(error, StaleDataError) and _stores_at_once(session)):
            note_stored(error)
        raise


def _stores_at_once(session: Session) -> bool:
    begun: Connection | None = cast("LentSession", session).begun
    return begun is not None and begun.get_execution_options().get("isolation_level") == "AUTOCOMMIT"


def returns_connection(session: Session) -> bool:
    """
    Whether the end of *session* gives a connection back to a pool, where the next one may wait for it.

    It may have none yet, or none any more.  And without a pool nobody waits: the next one opens a connection
    of its own, beyond what is allowed.
    """
    begun: Connection | None = cast("LentSession", session).begun
    return begun is not None and not begun.closed and isinstance(begun.engine.pool, QueuePool)


class Finishers:
    """
    A thread pool in which sessions end, and the tasks that wait for it.

    Args:
        threads: How many sessions may be ending at the same time; the others wait.
    """

    def __init__(self, threads: int) -> None:
        self._limiter = CapacityLimiter(threads)
        # An event loop keeps only weak references.
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """How many sessions are ending now."""
        return len(self._tasks)

    async def run(self, work: Callable[[Session], None], session: Session, place: Place) -> None:
        """
        Do *work* with *session* in a thread, even if the caller is cancelled meanwhile.

        Args:
            work: Gives the connection back, whatever happens.

            session: Whose connection it is.

            place: Given back when *work* is done: not before there is a connection for the next one.

        Raises:
            Exception: What *work* raises.
        """
        task = asyncio.create_task(to_thread.run_sync(work, session, limiter=self._limiter))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: place.leave())
        try:
            await asyncio.wait((task,))
            task.result()
        except asyncio.CancelledError:
            task.add_done_callback(_note_unheard)
            raise
        finally:
            # Else an error and its traceback hold each other, and the session with them.
            del task

    async def drain(self, timeout_seconds: float) -> None:
        """Wait until no session is ending any more, but not longer than that."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_seconds)


async def end(session: Session, finishers: Finishers, place: Place, *, commit: bool) -> None:
    """
    Close *session*; commit it before, if that is asked for and it is not marked otherwise.

    All of it is done even if the caller is cancelled meanwhile; *place* is given back at its end.

    Raises:
        Exception: What `sessions.commit` raises; the session is closed all the same.
    """
    cast("LentSession", session).promised = False
    if not session.in_transaction():
        session.close()  # there is nothing to tell the server
        place.leave()
        return
    # This one needs no thread of the endpoints any more, so those who wait are not in its way.
    if returns_connection(session):
        place.hand_on()
    commit = commit and not is_marked(session)
    await finishers.run(_commit_and_close if commit else _close, session, place)


async def take_away(session: Session, finishers: Finishers, place: Place) -> None:
    """
    Close *session*, and its connection for good: its request was cancelled.

    A task can be cancelled while the thread of its ``def`` endpoint goes on (asyncio's own cancellation does
    not wait for it; a server that shuts down uses that).  Such a thread may be about to send a statement: on
    a connection that went back to the pool, that would be in somebody else's transaction.
    """
    await finishers.run(_invalidate, session, place)


def _commit_and_close(session: Session) -> None:
    try:
        sessions.commit(session)
    finally:
        session.close()


def _close(session: Session) -> None:
    session.close()


def _invalidate(session: Session) -> None:
    while True:
        try:
            session.invalidate()
        except IllegalStateChangeError:
            # The thread is inside of the session, about to get its connection.  That is bounded: the pool and
            # the login have timeouts.
            time.sleep(_LOOK_AGAIN_SECONDS)
        else:
            return


def _note_unheard(task: "asyncio.Task[None]") -> None:
    # Also takes note of the error as asyncio sees it, which would report it as never retrieved.
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.debug("session.end_unheard", cause=describe(error))
