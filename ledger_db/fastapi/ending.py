"""How does a synchronous session end, seen from an event loop that must not wait for a server?"""

import time
from typing import TYPE_CHECKING

from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from ledger_db.fastapi.busy import Place
from ledger_db.fastapi.finishers import Finishers
from ledger_db.transactions import sessions

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession

_ROLLBACK = "ledger_db.rollback"
_LOOK_AGAIN_SECONDS = 0.01


def mark_rollback(session: "Session | AsyncSession") -> None:
    """Have this injected session rolled back although the endpoint returns: for an error that is returned."""
    session.info[_ROLLBACK] = True


def is_marked(session: "Session | AsyncSession") -> bool:
    """Whether `mark_rollback` was called."""
    return _ROLLBACK in session.info


def returns_connection(session: Session) -> bool:
    """
    Whether the end of *session* gives a connection back to a pool, where the next one may wait for it.

    It may have none yet, or none any more.  And without a pool nobody waits: the next one opens a connection
    of its own, beyond what is allowed.
    """
    begun: Connection | None = getattr(session, "begun", None)
    return begun is not None and not begun.closed and isinstance(begun.engine.pool, QueuePool)


async def end(session: Session, finishers: Finishers, place: Place, *, commit: bool) -> None:
    """
    Close *session*; commit it before, if that is asked for and it is not marked otherwise.

    All of it is done even if the caller is cancelled meanwhile; *place* is given back at its end.

    Raises:
        Exception: What `sessions.commit` raises; the session is closed all the same.
    """
    if not session.in_transaction():
        session.close()  # there is nothing to tell the server
    elif commit and not is_marked(session):
        await finishers.run(_commit_and_close, session, place)
    else:
        await finishers.run(Session.close, session, place)


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
