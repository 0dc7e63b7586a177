"""
What is left of a transaction that the server has refused to begin?

A standby refuses a serializable one, and a server that is out of time any.  libpq's drivers go by what the
server says.  asyncpg notes a transaction before it begins, and forgets it where it ends; of one that never
began the note would stay, and each later BEGIN on that connection be a savepoint of nothing, which fails.
"""

from typing import Any

from sqlalchemy import Engine, ExceptionContext, event

from ledger_db.connections.commits import info_of


def forget_refused(engine: Engine) -> None:
    """
    Let a connection of *engine*, which is asyncpg's, be as good as before after a BEGIN that was refused.

    Args:
        engine: The synchronous core of an ``AsyncEngine``.
    """
    event.listen(engine, "handle_error", _forget_unless_begun)


def _forget_unless_begun(context: ExceptionContext) -> None:
    connection = context.connection
    if connection is None or info_of(connection) is None:
        return
    driver: Any = connection.connection.driver_connection
    # Private, and a test says when it moves.  asyncpg's own `reset` would tell the event loop of a mistake.
    noted = getattr(driver, "_top_xact", None)
    if noted is not None and not driver.is_closed() and not driver.is_in_transaction():
        driver._top_xact = None  # noqa: SLF001 - as said above
