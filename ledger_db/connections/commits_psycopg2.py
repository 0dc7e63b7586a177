"""How does a connection of psycopg2's hear that a COMMIT was a rollback?"""

from typing import Any

from psycopg2 import extensions

from ledger_db.connections.commits import refuse_unasked_rollback, refusing_rollback


class Cursor(extensions.cursor):  # type: ignore[misc] # it has no types
    """psycopg2's own, which tells what became of a COMMIT that was written out."""

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - its name
        """Execute as psycopg2's own; PendingRollbackError if *query* is a COMMIT and it was a rollback."""
        super().execute(query, vars)
        refuse_unasked_rollback(self.statusmessage, query)


class Connection(extensions.connection):  # type: ignore[misc] # it has no types
    """psycopg2's own, each COMMIT of which raises PendingRollbackError if it was a rollback."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.cursor_factory = Cursor

    def commit(self) -> None:
        """Commit as psycopg2's own."""
        with refusing_rollback(self):
            super().commit()

    def tpc_commit(self, *xid: Any) -> None:
        """Commit as psycopg2's own, in one phase where nothing was prepared."""
        with refusing_rollback(self):
            super().tpc_commit(*xid)
