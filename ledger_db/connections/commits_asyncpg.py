"""How does a connection of asyncpg's hear that a COMMIT was a rollback?"""

from typing import Any

import asyncpg

from ledger_db.connections.commits import is_commit, refuse_unasked_rollback


class Connection(asyncpg.Connection):  # type: ignore[misc] # it has no types
    """asyncpg's own, which tells; its transactions, and so SQLAlchemy's, send their COMMIT through here."""

    async def execute(self, query: str, *arguments: Any, **named: Any) -> str:
        """Execute as asyncpg's own; PendingRollbackError if *query* is a COMMIT and it was a rollback."""
        tag: str = await super().execute(query, *arguments, **named)
        refuse_unasked_rollback(tag, query)
        return tag

    # A COMMIT has no rows, but who asks for some hears no tag: it goes the way of those who ask for none.

    async def fetch(self, query: str, *arguments: Any, **named: Any) -> list[Any]:
        """Fetch as asyncpg's own; a COMMIT as `execute`."""
        if is_commit(query):
            await self.execute(query, *arguments, timeout=named.get("timeout"))
            return []
        rows: list[Any] = await super().fetch(query, *arguments, **named)
        return rows

    async def fetchrow(self, query: str, *arguments: Any, **named: Any) -> Any:
        """Same as `fetch`, for one row."""
        if is_commit(query):
            return await self.fetchval(query, *arguments, timeout=named.get("timeout"))
        return await super().fetchrow(query, *arguments, **named)

    async def fetchval(self, query: str, *arguments: Any, **named: Any) -> Any:
        """Same as `fetch`, for one value."""
        if is_commit(query):
            await self.execute(query, *arguments, timeout=named.get("timeout"))
            return None
        return await super().fetchval(query, *arguments, **named)
