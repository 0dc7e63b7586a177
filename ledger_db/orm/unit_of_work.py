"""
Several repositories, one transaction, and what to do once it is committed.

::

    with UnitOfWork(db) as work:
        work.repository(Accounts).add(Account(owner="ada"))
        with work.savepoint():
            ...                                  # undone alone if it raises
        work.after_commit(lambda: cache.delete("accounts"))
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from inspect import isawaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, Unpack, cast

from sqlalchemy import event
from sqlalchemy.orm import Session

from ledger_db.event_log import EventLog
from ledger_db.orm.repository import AsyncRepository, Repository
from ledger_db.transactions.sessions import SessionArguments

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

log: EventLog = EventLog(__name__)

AnySession = TypeVar("AnySession")
SomeRepository = TypeVar("SomeRepository", bound=Repository[Any])
SomeAsyncRepository = TypeVar("SomeAsyncRepository", bound=AsyncRepository[Any])


class Begins(Protocol):
    """Whoever can begin a transaction: a `ConnectionManager`, a session factory."""

    def begin(self, **options: Unpack[SessionArguments]) -> AbstractContextManager[Session]:
        """Return a transaction that commits at the end of its block."""


class AsyncBegins(Protocol):
    """A `ConnectionManager`, on an event loop."""

    def async_begin(self, **options: Unpack[SessionArguments]) -> "AbstractAsyncContextManager[AsyncSession]":
        """Return a transaction that commits at the end of its block."""


class BeginsOnLoop(Protocol):
    """A session factory, on an event loop."""

    def begin(self, **options: Unpack[SessionArguments]) -> "AbstractAsyncContextManager[AsyncSession]":
        """Return a transaction that commits at the end of its block."""


class _Work(Generic[AnySession]):
    """What the two units of work have in common: no line of it waits for a server."""

    def __init__(self) -> None:
        self._session: AnySession | None = None
        self._repositories: dict[type[Any], Any] = {}
        self._callbacks: list[Callable[[], object]] = []
        self._commits = True
        self._committed = False
        self._used = False

    @property
    def session(self) -> AnySession:
        """The session, for everything that no repository does."""
        if self._session is None:
            raise RuntimeError("this unit of work is not under way; use it inside of its with block")
        return self._session

    def after_commit(self, callback: Callable[[], object]) -> None:
        """
        Call *callback* once everything is committed; never if it is not.

        Use it to tell others: fill a cache, publish.  It is forgotten if the savepoint around it is rolled
        back.  What it raises is logged and not raised: an error here would look like a failed transaction,
        and somebody would repeat it.  It must not use the session, which is closed by then.

        Args:
            callback: On an event loop it may return an awaitable.

        Raises:
            RuntimeError: Somebody else commits this session.
        """
        if not self._commits:
            raise RuntimeError("somebody else commits this session; do it where that is done")
        self._callbacks.append(callback)

    def _use(self) -> None:
        if self._used:
            raise RuntimeError(
                "a unit of work is one transaction, and this one was begun already; make another"
            )
        self._used = True

    def _begun(self, session: AnySession, listened_to: Session) -> None:
        self._session = session
        event.listen(listened_to, "after_commit", self._note_commit)

    def _note_commit(self, session: Session) -> None:
        # SQLAlchemy says the same when a savepoint is released.  And the end of the block does not tell: its
        # body may have rolled back without an error.
        self._committed = self._committed or not session.in_nested_transaction()

    def _ended(self) -> list[Callable[[], object]]:
        """Return what is to be called now."""
        self._session = None
        callbacks, self._callbacks = self._callbacks, []
        return callbacks if self._committed else []

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Forget what was to be called if the savepoint around it is rolled back."""
        known = len(self._callbacks)
        try:
            yield
        except BaseException:
            del self._callbacks[known:]
            raise

    def _made(self, kind: type[Any]) -> Any:
        session = self.session
        if kind not in self._repositories:
            self._repositories[kind] = kind(session)
        return self._repositories[kind]


class UnitOfWork(_Work[Session]):
    """
    One transaction: commits at the end of its block, rolls back on an error.

    Args:
        db: Who begins the transaction: a `ConnectionManager`, or a session factory.

        options: ``read_only``, ``isolation_level``, ``statement_timeout_seconds``; see `SessionOptions`.
    """

    __module__ = "ledger_db"

    def __init__(self, db: Begins, **options: Unpack[SessionArguments]) -> None:
        super().__init__()
        self._transaction = db.begin(**options)

    @classmethod
    def over(cls, session: Session) -> Self:
        """
        Return one that works at once, in a session that somebody else commits: a FastAPI dependency, `run`.

        A ``with`` block around it neither commits nor rolls back.
        """
        work = cls(_Given(session))
        work._session, work._commits = session, False
        return work

    def __enter__(self) -> Self:
        self._use()
        session = self._transaction.__enter__()
        self._begun(session, session)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._transaction.__exit__(kind, error, traceback)
        finally:
            for callback in self._ended():
                _call(callback)

    def repository(self, kind: type[SomeRepository]) -> SomeRepository:
        """Return the repository of a class; the same one each time."""
        return cast("SomeRepository", self._made(kind))

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """
        Undo what is done inside if it raises, and nothing else; the error goes on to the caller.

        Objects that it changed are read again when they are next used.
        """
        with self._forgetting(), self.session.begin_nested():
            yield


class AsyncUnitOfWork(_Work["AsyncSession"]):
    """
    Same as `UnitOfWork`, on an event loop.

    Args:
        db: Likewise.

        options: Likewise.
    """

    __module__ = "ledger_db"

    def __init__(self, db: AsyncBegins | BeginsOnLoop, **options: Unpack[SessionArguments]) -> None:
        super().__init__()
        begin = getattr(db, "async_begin", None) or cast("BeginsOnLoop", db).begin
        self._transaction: AbstractAsyncContextManager[AsyncSession] = begin(**options)

    @classmethod
    def over(cls, session: "AsyncSession") -> Self:
        """Same as `UnitOfWork.over`."""
        work = cls(_Given(session))
        work._session, work._commits = session, False
        return work

    async def __aenter__(self) -> Self:
        self._use()
        session = await self._transaction.__aenter__()
        self._begun(session, session.sync_session)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._transaction.__aexit__(kind, error, traceback)
        finally:
            for callback in self._ended():
                await _async_call(callback)

    def repository(self, kind: type[SomeAsyncRepository]) -> SomeAsyncRepository:
        """Return the repository of a class; the same one each time."""
        return cast("SomeAsyncRepository", self._made(kind))

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """
        Same as `UnitOfWork.savepoint`.

        Objects that it changed are read again by ``await work.session.refresh(...)``: using them cannot wait.
        """
        with self._forgetting():
            async with self.session.begin_nested():
                yield


class _Given(Generic[AnySession]):
    """Begins nothing: the session is somebody else's."""

    def __init__(self, session: AnySession) -> None:
        self._session = session

    def begin(self, **options: Unpack[SessionArguments]) -> nullcontext[AnySession]:
        return nullcontext(self._session)


def _call(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception as error:
        log.error("unit_of_work.callback_failed", exc_info=error, callback=_name(callback))


async def _async_call(callback: Callable[[], object]) -> None:
    try:
        result = callback()
        if isawaitable(result):
            await result
    except Exception as error:
        log.error("unit_of_work.callback_failed", exc_info=error, callback=_name(callback))


def _name(callback: Callable[[], object]) -> str:
    return getattr(callback, "__qualname__", type(callback).__name__)
