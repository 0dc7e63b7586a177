"""
How does a connection of psycopg's hear that a COMMIT was a rollback?

Its transactions send their COMMIT past `commit`, so they look at the transaction before they end.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import psycopg
from psycopg import pq

from ledger_db.connections.commits import refuse_unasked_rollback, refusing_rollback, undone


class Cursor(psycopg.Cursor[Any]):
    """psycopg's own, which tells what became of a COMMIT that was written out."""

    def execute(self, query: Any, *arguments: Any, **named: Any) -> Self:
        """Execute as psycopg's own; PendingRollbackError if *query* is a COMMIT and it was a rollback."""
        super().execute(query, *arguments, **named)
        refuse_unasked_rollback(self.statusmessage, query)
        return self


class AsyncCursor(psycopg.AsyncCursor[Any]):
    """Same as `Cursor`, for an event loop."""

    async def execute(self, query: Any, *arguments: Any, **named: Any) -> Self:
        """See `Cursor.execute`."""
        await super().execute(query, *arguments, **named)
        refuse_unasked_rollback(self.statusmessage, query)
        return self


class Connection(psycopg.Connection[Any]):
    """psycopg's own, each COMMIT of which raises PendingRollbackError if it was a rollback."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.cursor_factory = Cursor

    def commit(self) -> None:
        """Commit as psycopg's own."""
        with refusing_rollback(self):
            super().commit()

    def tpc_commit(self, *xid: Any) -> None:
        """Commit as psycopg's own, in one phase where nothing was prepared."""
        with refusing_rollback(self):
            super().tpc_commit(*xid)

    @contextmanager
    def transaction(self, *arguments: Any, **named: Any) -> Iterator[psycopg.Transaction]:
        """Begin a block as psycopg's own."""
        with super().transaction(*arguments, **named) as transaction:
            yield transaction
            _refuse_if_aborted(transaction)


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """Same as `Connection`, for an event loop."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.cursor_factory = AsyncCursor

    async def commit(self) -> None:
        """See `Connection.commit`."""
        with refusing_rollback(self):
            await super().commit()

    async def tpc_commit(self, *xid: Any) -> None:
        """See `Connection.tpc_commit`."""
        with refusing_rollback(self):
            await super().tpc_commit(*xid)

    @asynccontextmanager
    async def transaction(self, *arguments: Any, **named: Any) -> AsyncIterator[psycopg.AsyncTransaction]:
        """See `Connection.transaction`."""
        async with super().transaction(*arguments, **named) as transaction:
            yield transaction
            _refuse_if_aborted(transaction)


def _refuse_if_aborted(transaction: psycopg.Transaction | psycopg.AsyncTransaction) -> None:
    """Raise before the end of a block, which then rolls back and passes it on."""
    pgconn = transaction.connection.pgconn
    # In a pipeline the transaction's status is as it was when the server was last heard of.
    is_aborted = (
        pgconn.transaction_status == pq.TransactionStatus.INERROR
        or pgconn.pipeline_status == pq.PipelineStatus.ABORTED
    )
    if is_aborted and not transaction.force_rollback:
        raise undone()
