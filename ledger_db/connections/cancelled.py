"""
What does a statement wait for that is cancelled on an event loop, through psycopg?

psycopg waits until the server has answered it: for ever if that has stalled, or for 10 s in its newest
releases; and where libpq is older than 17 the whole process stands still meanwhile.  A start would not end in
its time, nor a request in its own.  SQLAlchemy gives a connection up on which a statement was cancelled, so
there is nothing to wait for: somebody else tells the server, and the line is hung up.  asyncpg does the same.
"""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
from psycopg import generators, pq, waiting

from ledger_db.background import in_thread
from ledger_db.connections.commits_psycopg import AsyncConnection

# psycopg's own, after which it looks at the line though nothing has happened there.
_LOOK_SECONDS = 0.1


class Connection(AsyncConnection):
    """psycopg's own, which tells of its COMMITs and waits for nobody when it is cancelled."""

    async def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
        """Wait for what *gen* does on the connection; as psycopg's own, except where that is cancelled."""
        try:
            # What else there is to say differs from release to release.
            return await waiting.wait_async(gen, self.pgconn.socket, *arguments, **named)
        except (asyncio.CancelledError, KeyboardInterrupt):
            if self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                if can_be_told():
                    in_thread(partial(_tell, self.pgconn.cancel_conn()), name="ledger_db-cancel")
                self.pgconn.finish()
            raise


def can_be_told() -> bool:
    """Whether this libpq cancels without standing still; where not, the server finds out by itself."""
    has_cancel_safe = getattr(getattr(psycopg, "capabilities", None), "has_cancel_safe", None)
    return has_cancel_safe is not None and has_cancel_safe()


def _tell(cancelling: Any) -> None:
    # It needs a connection of its own, which may fail as any other.
    with suppress(psycopg.Error):
        cancelling.start()
        waiting.wait_conn(generators.cancel(cancelling), interval=_LOOK_SECONDS)
    cancelling.finish()
