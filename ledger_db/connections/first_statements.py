"""
What becomes of a new connection whose first statements fail, which SQLAlchemy sends by itself?

On an engine's first connection it asks what server this is; on each of asyncpg's, before 0.31, for two types.
No pool has the connection yet, so whoever meets an error there has to tell it and to hang up:

SQLAlchemy 2.0:  leaves the connection open, which nobody knows any more; and rolls back whatever happened, so
                 that the error of the rollback hides the real one.
asyncpg:         its errors pass as they are, by no name that anybody who catches SQLAlchemy's would expect.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import Engine


def tell_first_statements(engine: Engine) -> None:
    """
    Let a connection of *engine* end whose first statements fail or are cancelled, with the error as it is.

    Args:
        engine: The synchronous core, for an ``AsyncEngine``.
    """
    # SQLAlchemy's listener for a new connection cannot be taken out; what it calls is the dialect's, which
    # belongs to this one engine.
    dialect: Any = engine.dialect
    dialect.initialize = _initialize_or_end(dialect)
    if dialect.driver == "asyncpg":
        dialect.setup_asyncpg_json_codec = _ask_or_end(dialect.setup_asyncpg_json_codec)
        dialect.setup_asyncpg_jsonb_codec = _ask_or_end(dialect.setup_asyncpg_jsonb_codec)


def _initialize_or_end(dialect: Any) -> Callable[[Any], None]:
    initialize = dialect.initialize

    def initialize_or_end(connection: Any) -> None:
        proxied = connection.connection
        try:
            initialize(connection)
            # SQLAlchemy does so after this, where a failure would leave the connection open; twice is once.
            dialect.do_rollback(proxied)
        except BaseException:
            # Then SQLAlchemy 2.0 rolls nothing back.  It is closed already if a statement found it broken.
            if not connection.closed:
                connection.invalidate()
            # And whoever was cancelled waits for no server, as the adapter's `terminate` would for seconds.
            dialect.do_close(proxied.dbapi_connection)
            raise

    return initialize_or_end


def _ask_or_end(ask: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    async def ask_or_end(connection: Any) -> None:
        try:
            await ask(connection)
        except BaseException as error:
            # Nobody waits for a goodbye here: this is not SQLAlchemy's greenlet, where dialects close.
            connection.driver_connection.terminate()
            if isinstance(error, Exception):
                # As each later statement's; private, and a test misses it when it moves.
                connection._handle_exception(error)  # noqa: SLF001 - as said above
            raise

    return ask_or_end
