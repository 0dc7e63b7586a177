"""
Sessions with the options that a transaction may need, and a COMMIT whose outcome is told.

None of the options leaks to the next borrower of a connection: isolation, read-only and deferrable are reset
when it is returned, and the statement timeout is ``SET LOCAL``, set anew in each transaction of the session.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, cast, get_args

from sqlalchemy import Engine
from sqlalchemy.orm import Session, SessionTransaction

from ledger_db.transactions.kinds import COMMITTED, PLAIN, ManagedSession, SessionKind

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

_AnyEngine = TypeVar("_AnyEngine", Engine, "AsyncEngine")

IsolationLevel = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT"]

# PostgreSQL counts in milliseconds, in 32 bits; its 0 would mean "for ever".
_LONGEST_TIMEOUT_SECONDS = 2_147_483.0


class SessionArguments(TypedDict, total=False):
    """The fields of `SessionOptions`, as keyword arguments."""

    read_only: bool
    isolation_level: IsolationLevel | None
    deferrable: bool
    statement_timeout_seconds: float | None
    expire_on_commit: bool | None
    autoflush: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """
    What `session`, `begin` and `run` may be asked for.

    Attributes:
        read_only: Whether the database refuses writes.

        isolation_level: As PostgreSQL names it; None for the server's default.  ``AUTOCOMMIT`` for statements
            that take no transaction, as VACUUM: each is stored at once, and none is undone.

        deferrable: Whether a long look at everything waits for a moment in which nothing can interrupt it.

        statement_timeout_seconds: When PostgreSQL cancels a statement; None for the server's default.

        expire_on_commit: As SQLAlchemy's; None for what the manager's sessions do.

        autoflush: As SQLAlchemy's; None for what the manager's sessions do.

    Raises:
        ValueError: An isolation level or a timeout that does not exist, or what does not go together.
    """

    read_only: bool = False
    isolation_level: IsolationLevel | None = None
    deferrable: bool = False
    statement_timeout_seconds: float | None = None
    expire_on_commit: bool | None = None
    autoflush: bool | None = None

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
        self._refuse_what_has_no_meaning()

    @property
    def has_transaction(self) -> bool:
        """Whether what is written is stored together, or not at all."""
        return self.isolation_level != "AUTOCOMMIT"

    def bind_to(self, engine: _AnyEngine) -> _AnyEngine:
        """Return *engine*, or another face of it whose transactions begin as was asked for."""
        options: dict[str, Any] = {}
        if self.isolation_level is not None:
            options["isolation_level"] = self.isolation_level
        if self.read_only:
            options["postgresql_readonly"] = True
        if self.deferrable:
            options["postgresql_deferrable"] = True
        # Pool, dialect and listeners are shared.  A Session takes options itself only since SQLAlchemy 2.1.
        return engine.execution_options(**options) if options else engine

    def _refuse_what_has_no_meaning(self) -> None:
        # PostgreSQL takes each of these without a word, and does something else than was asked for.
        if self.deferrable and not (self.read_only and self.isolation_level == "SERIALIZABLE"):
            raise ValueError(
                "deferrable has a meaning for isolation_level='SERIALIZABLE' with read_only=True only; "
                "add both, or leave it out"
            )
        if not self.has_transaction and (self.read_only or self.statement_timeout_seconds is not None):
            raise ValueError(
                "AUTOCOMMIT has no transaction that read_only or statement_timeout_seconds could hold for; "
                "leave them out, or set LEDGER_DB_STATEMENT_TIMEOUT_SECONDS for all sessions"
            )


NO_OPTIONS = SessionOptions()


def asked_for(arguments: SessionArguments) -> SessionOptions:
    """Return *arguments* as `SessionOptions`; most requests ask for none, and share those."""
    return SessionOptions(**arguments) if arguments else NO_OPTIONS


def open_session(engine: Engine, options: SessionOptions, *, kind: SessionKind = PLAIN) -> Session:
    """Return a session that was not used yet; it cannot be used again once it is closed."""
    session = kind.managed()(options.bind_to(engine), **_arguments(kind, options))
    session.statement_timeout_seconds = options.statement_timeout_seconds
    return session


def async_open_session(
    engine: "AsyncEngine", options: SessionOptions, *, kind: SessionKind = PLAIN
) -> "AsyncSession":
    """Same as `open_session`, for an event loop."""
    session_class, inner = kind.on_loop()
    session = session_class(options.bind_to(engine), sync_session_class=inner, **_arguments(kind, options))
    cast("ManagedSession", session.sync_session).statement_timeout_seconds = options.statement_timeout_seconds
    return session


def _arguments(kind: SessionKind, options: SessionOptions) -> dict[str, Any]:
    expire, flush = options.expire_on_commit, options.autoflush
    return {
        "expire_on_commit": kind.expire_on_commit if expire is None else expire,
        "autoflush": kind.autoflush if flush is None else flush,
        # A session that is used after its request would quietly check out a connection for good.
        "close_resets_only": False,
    }


@contextmanager
def begin(engine: Engine, options: SessionOptions, *, kind: SessionKind = PLAIN) -> Iterator[Session]:
    """Open a session, commit it at the end, roll back on an error."""
    asked = one_transaction(options)
    with open_session(engine, asked, kind=kind) as session, session.begin() as transaction:
        yield session
        commit_unless_ended(session, transaction)


@asynccontextmanager
async def async_begin(
    engine: "AsyncEngine", options: SessionOptions, *, kind: SessionKind = PLAIN
) -> "AsyncIterator[AsyncSession]":
    """Same as `begin`, on an event loop."""
    asked = one_transaction(options)
    async with (
        async_open_session(engine, asked, kind=kind) as session,
        session.begin() as transaction,
    ):
        yield session
        await session.run_sync(commit_unless_ended, transaction.sync_transaction)


def one_transaction(options: SessionOptions) -> SessionOptions:
    """Return *options*; ValueError where they have no transaction, and one is what is asked for."""
    if not options.has_transaction:
        raise ValueError("AUTOCOMMIT has no transaction to commit, undo or repeat; use session() instead")
    return options


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
    # Before, as a ManagedSession does by itself.
    session.flush()
    session.commit()
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
