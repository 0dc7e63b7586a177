"""
Sessions with the three options that a transaction may need.

None of them leaks to the next borrower of a connection: isolation and read-only are reset when it is
returned, and the statement timeout is ``SET LOCAL``, set anew in each transaction of the session.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.orm import Session, SessionTransaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

IsolationLevel = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


class SessionArguments(TypedDict, total=False):
    """The fields of `SessionOptions`, as keyword arguments."""

    read_only: bool
    isolation_level: IsolationLevel | None
    statement_timeout_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """
    What `session` and `begin` may be asked for.

    Attributes:
        read_only: Whether PostgreSQL refuses writes.

        isolation_level: As PostgreSQL names it; None for the server's default.

        statement_timeout_seconds: When PostgreSQL cancels a statement; None for the server's default.
    """

    read_only: bool = False
    isolation_level: IsolationLevel | None = None
    statement_timeout_seconds: float | None = None

    def execution_options(self) -> dict[str, Any]:
        """Return them as SQLAlchemy's."""
        if self is NO_OPTIONS:
            return _NONE
        options: dict[str, Any] = {}
        if self.isolation_level is not None:
            options["isolation_level"] = self.isolation_level
        if self.read_only:
            options["postgresql_readonly"] = True
        return options


NO_OPTIONS = SessionOptions()
_NONE: dict[str, Any] = {}


def open_session(engine: Engine, options: SessionOptions) -> Session:
    """Return a session that was not used yet; it cannot be used again once it is closed."""
    session = Session(
        engine,
        expire_on_commit=False,
        # A session that is used after its request would quietly check out a connection for good.
        close_resets_only=False,
        execution_options=options.execution_options(),
    )
    if options.statement_timeout_seconds is not None:
        _limit_statements(session, options.statement_timeout_seconds)
    return session


def open_async_session(engine: "AsyncEngine", options: SessionOptions) -> "AsyncSession":
    """Same as `open_session`, for an event loop."""
    session = _async_session_class()(
        engine,
        expire_on_commit=False,
        close_resets_only=False,
        execution_options=options.execution_options(),
    )
    if options.statement_timeout_seconds is not None:
        _limit_statements(session.sync_session, options.statement_timeout_seconds)
    return session


@cache
def _async_session_class() -> "type[AsyncSession]":
    # Imported at the first use: a script without an event loop does not need the memory.
    from sqlalchemy.ext.asyncio import AsyncSession  # noqa: PLC0415

    return AsyncSession


@contextmanager
def begin(engine: Engine, options: SessionOptions) -> Iterator[Session]:
    """Open a session, commit it at the end, roll back on an error."""
    with open_session(engine, options) as session, session.begin():
        yield session


@asynccontextmanager
async def begin_async(engine: "AsyncEngine", options: SessionOptions) -> "AsyncIterator[AsyncSession]":
    """Same as `begin`, on an event loop."""
    async with open_async_session(engine, options) as session, session.begin():
        yield session


def _limit_statements(session: Session, seconds: float) -> None:
    event.listen(session, "after_begin", partial(_set_local_timeout, max(1, round(seconds * 1000))))


def _set_local_timeout(
    milliseconds: int, session: Session, transaction: SessionTransaction, connection: Connection
) -> None:
    # set_config takes a bound value where SET LOCAL takes none; true makes it local to the transaction.
    connection.execute(
        text("SELECT set_config('statement_timeout', :milliseconds, true)"),
        {"milliseconds": str(milliseconds)},
    )
