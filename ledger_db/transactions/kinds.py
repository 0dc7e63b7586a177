"""
Which class is a session of, and what does that class do that SQLAlchemy's own does not?

It notes what it has committed, limits its statements in each transaction, and remembers its connection.  A
class of the application's own, or SQLModel's with its `exec`, gets all of that in front of what it is.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypedDict

from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session, SessionTransaction

from ledger_db.errors import ConfigurationError
from ledger_db.transactions.lent import LentSession

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

COMMITTED = "ledger_db.committed"
"""Key of `Session.info`: true once anything of this session was committed."""

_LIMIT_STATEMENTS = text("SELECT set_config('statement_timeout', :milliseconds, true)")


class ManagedSession(LentSession):
    """
    An ordinary Session whose `commit` raises `OutcomeUnknown` if that is what it is.

    Attributes:
        statement_timeout_seconds: When PostgreSQL cancels a statement of it; None for the server's default.
    """

    statement_timeout_seconds: float | None = None

    def commit(self) -> None:
        """Commit, and tell if the outcome is unknown; see `sessions.commit`."""
        # Before: a connection that breaks while something is still being written is no riddle.
        self.flush()
        super().commit()


class SessionKindArguments(TypedDict, total=False):
    """The fields of `SessionKind`, as keyword arguments."""

    session_class: type[Session]
    async_session_class: "type[AsyncSession] | None"
    expire_on_commit: bool
    autoflush: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKind:
    """
    What all sessions of a manager are like, unless one is asked to be otherwise.

    Attributes:
        session_class: A Session, or a class of the application's own.

        async_session_class: The same on an event loop; None for an AsyncSession over `session_class`.

        expire_on_commit: As SQLAlchemy's, whose default is true: here objects can be used after the commit,
            when their connection is another's already.

        autoflush: As SQLAlchemy's.

    Raises:
        ConfigurationError: What is given is no class of sessions.
    """

    session_class: type[Session] = Session
    async_session_class: "type[AsyncSession] | None" = None
    expire_on_commit: bool = False
    autoflush: bool = True

    def __post_init__(self) -> None:
        given: Any = self.session_class
        if not (isinstance(given, type) and issubclass(given, Session)):
            raise ConfigurationError(
                "session_class is to be a class derived from sqlalchemy.orm.Session: give the class itself, "
                "not a sessionmaker, and an AsyncSession's as async_session_class"
            )
        # Asked by what it has, as the module that it comes from is not loaded for who has no event loop.
        on_loop = self.async_session_class
        if on_loop is not None and not hasattr(on_loop, "sync_session_class"):
            raise ConfigurationError(
                "async_session_class is to be a class derived from sqlalchemy.ext.asyncio.AsyncSession"
            )

    def managed(self) -> type[ManagedSession]:
        """Return the class for a thread."""
        # Any, as a type checker asks whether sessions can be hashed, and not whether classes can.
        chosen: Any = self.session_class
        return _managed(chosen)

    def on_loop(self) -> "tuple[type[AsyncSession], type[ManagedSession]]":
        """Return the class for an event loop, and that of the session inside of it."""
        # Imported at the first use: a script without an event loop does not need the memory.
        from sqlalchemy.ext.asyncio import AsyncSession  # noqa: PLC0415

        chosen: Any = self.async_session_class or AsyncSession
        # SQLModel's brings its own; that of AsyncSession is Session itself, which says nothing.
        inner: Any = chosen.sync_session_class
        return _managed_on_loop(chosen), self.managed() if inner is Session else _managed(inner)


PLAIN = SessionKind()


@cache
def _managed(session_class: Any) -> type[ManagedSession]:
    """Return *session_class* with a `commit` that tells, before its own."""
    if session_class is Session:
        return ManagedSession
    made: type[ManagedSession] = type(f"Managed{session_class.__name__}", (ManagedSession, session_class), {})
    return made


@cache
def _managed_on_loop(session_class: Any) -> "type[AsyncSession]":
    from ledger_db.transactions.async_lent import AsyncLentSession  # noqa: PLC0415 - as in `on_loop`

    if issubclass(AsyncLentSession, session_class):
        return AsyncLentSession
    made: type[AsyncSession] = type(f"Managed{session_class.__name__}", (AsyncLentSession, session_class), {})
    return made


@event.listens_for(ManagedSession, "after_begin")
def _note_begin(session: ManagedSession, transaction: SessionTransaction, connection: Connection) -> None:
    session.begun = connection
    seconds = session.statement_timeout_seconds
    # A savepoint has what its transaction has.
    if seconds is not None and not transaction.nested:
        # set_config takes a bound value where SET LOCAL takes none; true makes it local to the transaction.
        connection.execute(_LIMIT_STATEMENTS, {"milliseconds": str(max(1, round(seconds * 1000)))})


@event.listens_for(ManagedSession, "after_commit")
def _note_commit(session: ManagedSession) -> None:
    # Also one by the block of `Session.begin`.  The release of a savepoint stores nothing.
    if session.begun is not None and not session.in_nested_transaction():
        session.info[COMMITTED] = True
