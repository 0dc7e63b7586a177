"""
Is this the server that takes writes?

An endpoint follows a failover late, and a connection that was opened meanwhile leads to what is a standby
now: it answers every ping and no write, for as long as the pool keeps it.  A login asks for a server that
takes writes, which keeps such connections out.  This is for those that are in: a server may become a standby
behind a proxy, or be told to take no writes.

What refuses a write ends its own connection, not the pool; the next login finds the right server or says that
there is none.  A session that asked to be read-only is left alone.  One that made itself read-only cannot be
told from a standby: so if the successor of a connection that was ended says the same, it is believed.
"""

import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from ledger_db.answers.login_errors import find
from ledger_db.answers.postgres import takes_no_writes
from ledger_db.answers.reason import Reason
from ledger_db.connections.commits import has_committed, info_of

_SUCCEEDED_AT: Final = "ledger_db.succeeded_at"
# A successor is used soon, if anybody wants to write at all.  After that a refusal is news again.
_SUCCESSION_SECONDS: Final = 30.0


class Primary:
    """
    What the engines of one database know of their server.

    For any number of threads and event loops: each field is replaced, and none depends on another.

    Attributes:
        takes_writes: False once a login has found a standby, until one has found the right server.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self.takes_writes = True
        self._now = now
        self._ended_at = float("-inf")

    def insist(self, engine: Engine) -> None:
        """
        Let no connection of *engine* that refuses a write be lent again.

        Args:
            engine: The synchronous core, for an ``AsyncEngine``; its logins ask for a primary by themselves.
        """
        event.listen(engine, "connect", self._note_login)
        event.listen(engine, "handle_error", self._look_at_error)

    def _note_login(self, dbapi: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        self.takes_writes = True
        if self._is_recent(self._ended_at):
            record.info[_SUCCEEDED_AT] = self._now()

    def _look_at_error(self, context: ExceptionContext) -> None:
        error, connection = context.original_exception, context.connection
        if connection is None:
            # A login has failed.
            if find(error).reason is Reason.NOT_PRIMARY:
                self.takes_writes = False
        elif takes_no_writes(error) and self._is_news_of(connection):
            self._ended_at = self._now()
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False

    def _is_news_of(self, connection: Connection) -> bool:
        info = info_of(connection)
        if info is None or connection.get_execution_options().get("postgresql_readonly"):
            return False
        return has_committed(info) or not self._is_recent(info.get(_SUCCEEDED_AT, float("-inf")))

    def _is_recent(self, moment: float) -> bool:
        return self._now() - moment < _SUCCESSION_SECONDS
