"""How does a connection of asyncpg's hear that a COMMIT was a rollback?"""

from typing import Any

import asyncpg

from ledger_db.connections.commits import refuse_unasked_rollback


class Connection(asyncpg.Connection):  # type: ignore[misc] # it has no types
    """asyncpg's own, which tells; its transactions, and so SQLAlchemy's, send their COMMIT through here."""

    async def execute(self, query: str, *arguments: Any, **named: Any) -> str:
        """Execute as asyncpg's own; PendingRollbackError if *query* is a COMMIT and it was a rollback."""
        tag: str = await super().execute(query, *arguments, **named)
        refuse_unasked_rollback(tag, query)
        return tag
