"""
Sessions with the three options that a transaction may need, and a COMMIT whose outcome is told.

None of the options leaks to the next borrower of a connection: isolation and read-only are reset when it is
returned, and the statement timeout is ``SET LOCAL``, set anew in each transaction of the session.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, cast, get_args

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.orm import Session, SessionTransaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

_AnyEngine = TypeVar("_AnyEngine", Engine, "AsyncEngine")

IsolationLevel = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]

# PostgreSQL counts in milliseconds, in 32 bits; its 0 would mean "for ever".
_LONGEST_TIMEOUT_SECONDS = 2_147_483.0

_LIMIT_STATEMENTS = text("SELECT set_config('statement_timeout', :milliseconds, true)")

COMMITTED = "ledger_db.committed"
"""Key of `Session.info`: true once `commit` has committed anything of this session."""


class SessionArguments(TypedDict, total=False):
    """The fields of `SessionOptions`, as keyword arguments."""

    read_only: bool
    isolation_level: IsolationLevel | None
    statement_timeout_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """
    What `session`, `begin` and `run` may be asked for.

    Attributes:
        read_only: Whether the database refuses writes.

        isolation_level: As PostgreSQL names it; None for the server's default.

        statement_timeout_seconds: When PostgreSQL cancels a statement; None for the server's default.

    Raises:
        ValueError: An isolation level or a timeout that does not exist.
    """

    read_only: bool = False
    isolation_level: IsolationLevel | None = None
    statement_timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        # Here, and not where they are used: that is inside of somebody's transaction.
        levels = get_args(IsolationLevel)
        if self.isolation_level is not None and self.isolation_level not in levels:
            raise ValueError(f"no isolation level {self.isolation_level!r}; use one of {', '.join(levels)}")
        seconds = self.statement_timeout_seconds
        if seconds is not None and not 0 < seconds <= _LONGEST_TIMEOUT_SECONDS:
            raise ValueError(
                f"no statement timeout of {seconds} s; use more than 0 and at most "
                f"{_LONGEST_TIMEOUT_SECONDS:.0f} s, or None for the server's default"
            )

    def bind_to(self, engine: _AnyEngine) -> _AnyEngine:
        """Return *engine*, or another face of it whose transactions begin as was asked for."""
        options: dict[str, Any] = {}
        if self.isolation_level is not None:
            options["isolation_level"] = self.isolation_level
        if self.read_only:
            options["postgresql_readonly"] = True
        # Pool, dialect and listeners are shared.  A Session takes options itself only since SQLAlchemy 2.1.
        return engine.execution_options(**options) if options else engine


NO_OPTIONS = SessionOptions()


class ManagedSession(Session):
    """
    An ordinary Session whose `commit` raises `OutcomeUnknown` if that is what it is.

    Attributes:
        options: What it was asked for.

        begun: The connection of its last transaction; None before the first statement.
    """

    options: SessionOptions = NO_OPTIONS
    begun: Connection | None = None

    def commit(self) -> None:
        """Commit, as `commit` of this module does."""
        commit(self)


def open_session(engine: Engine, options: SessionOptions) -> Session:
    """Return a session that was not used yet; it cannot be used again once it is closed."""
    session = ManagedSession(
        options.bind_to(engine),
        expire_on_commit=False,
        # A session that is used after its request would quietly check out a connection for good.
        close_resets_only=False,
    )
    session.options = options
    return session


def async_open_session(engine: "AsyncEngine", options: SessionOptions) -> "AsyncSession":
    """Same as `open_session`, for an event loop."""
    session = _async_session_class()(
        options.bind_to(engine),
        expire_on_commit=False,
        close_resets_only=False,
        sync_session_class=ManagedSession,
    )
    cast("ManagedSession", session.sync_session).options = options
    return session


@cache
def _async_session_class() -> "type[AsyncSession]":
    # Imported at the first use: a script without an event loop does not need the memory.
    from sqlalchemy.ext.asyncio import AsyncSession  # noqa: PLC0415

    return AsyncSession


@contextmanager
def begin(engine: Engine, options: SessionOptions) -> Iterator[Session]:
    """Open a session, commit it at the end, roll back on an error."""
    with open_session(engine, options) as session, session.begin() as transaction:
        yield session
        commit_unless_ended(session, transaction)


@asynccontextmanager
async def async_begin(engine: "AsyncEngine", options: SessionOptions) -> "AsyncIterator[AsyncSession]":
    """Same as `begin`, on an event loop."""
    async with async_open_session(engine, options) as session, session.begin() as transaction:
        yield session
        await session.run_sync(commit_unless_ended, transaction.sync_transaction)


def commit(session: Session) -> None:
    """
    Flush, then COMMIT; any Session will do.

    What the server refuses (a deferred constraint, a conflict) is SQLAlchemy's error, and not committed.  So
    is a connection that broke before; see `commits` for the rest.

    Raises:
        OutcomeUnknown: COMMIT was sent, and the connection broke before the answer.  Never for a read-only
            session, which has nothing to lose.

        Exception: SQLAlchemy's; nothing is committed.
    """
    # Before: a connection that breaks while something is still being written is no riddle.
    session.flush()
    # Session's own: a ManagedSession's comes here.
    Session.commit(session)
    session.info[COMMITTED] = True


async def async_commit(session: "AsyncSession") -> None:
    """Same as `commit`, on an event loop.  A cancellation stays one, and nobody knows the outcome either."""
    await session.run_sync(commit)


def commit_unless_ended(session: Session, transaction: SessionTransaction | None) -> None:
    """
    Commit *transaction* of *session*, unless the body of a block has ended it by itself.

    Raises:
        Exception: As `commit`.  Also if a flush has failed and its error was caught: nothing is stored.
    """
    # Not "is_active", which a failed flush ends too: then the block would end as if all were well.
    if transaction is not None and session.get_transaction() is transaction:
        commit(session)


@event.listens_for(ManagedSession, "after_begin")
def _note_begin(session: ManagedSession, transaction: SessionTransaction, connection: Connection) -> None:
    session.begun = connection
    seconds = session.options.statement_timeout_seconds
    # A savepoint has what its transaction has.
    if seconds is not None and not transaction.nested:
        # set_config takes a bound value where SET LOCAL takes none; true makes it local to the transaction.
        connection.execute(_LIMIT_STATEMENTS, {"milliseconds": str(max(1, round(seconds * 1000)))})
