"""The half of a manager that gives out sessions, and repeats transactions."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, TypeVar, Unpack

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ledger_db.settings import Settings
from ledger_db.transactions import run as transactions, sessions
from ledger_db.transactions.run import Patience, TransactionTally
from ledger_db.transactions.sessions import NO_OPTIONS, SessionArguments, SessionOptions

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

T = TypeVar("T")


class Sessions(ABC):
    """Sessions on the two engines of whoever derives from it."""

    _tally: TransactionTally

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """For `session`, `begin` and `run`."""

    @property
    @abstractmethod
    def async_engine(self) -> "AsyncEngine":
        """For their asynchronous twins."""

    @property
    @abstractmethod
    def settings(self) -> Settings:
        """They say how long a transaction is repeated."""

    def session(self, **options: Unpack[SessionArguments]) -> Session:
        """
        Return a session for ``with``; nothing is committed unless you do.

        Args:
            options: ``read_only``, ``isolation_level``, ``statement_timeout_seconds``; see `SessionOptions`.
        """
        return sessions.open_session(self.engine, SessionOptions(**options) if options else NO_OPTIONS)

    def begin(self, **options: Unpack[SessionArguments]) -> AbstractContextManager[Session]:
        """Return a transaction for ``with``: commits at its end, rolls back on an error; as `session`."""
        return sessions.begin(self.engine, SessionOptions(**options) if options else NO_OPTIONS)

    def async_session(self, **options: Unpack[SessionArguments]) -> "AsyncSession":
        """Same as `session`, for ``async with``."""
        return sessions.async_open_session(
            self.async_engine, SessionOptions(**options) if options else NO_OPTIONS
        )

    def async_begin(self, **options: Unpack[SessionArguments]) -> "AbstractAsyncContextManager[AsyncSession]":
        """Same as `begin`, for ``async with``."""
        return sessions.async_begin(self.async_engine, SessionOptions(**options) if options else NO_OPTIONS)

    def run(
        self,
        work: Callable[[Session], T],
        *,
        patience_seconds: float | None = None,
        **options: Unpack[SessionArguments],
    ) -> T:
        """
        Return what *work* returns, once its transaction is committed; see `transactions.run`.

        It is repeated after conflicts and lost connections, each time from the start and with a new session,
        so it must do nothing outside of the session that cannot be done twice.

        Args:
            work: Is given the session; which attempt it is says ``session.info["attempt"]``.

            patience_seconds: When to stop; ``retry_patience_seconds`` of the settings if None.

            options: As `session`.

        Raises:
            RetriesExhausted: Patience is over, and nothing is committed.

            OutcomeUnknown: The answer to COMMIT got lost: it is done, or it is not.
        """
        opened = partial(sessions.open_session, self.engine, SessionOptions(**options))
        return transactions.run(opened, work, patience=self._patience(patience_seconds), tally=self._tally)

    async def async_run(
        self,
        work: "Callable[[AsyncSession], Awaitable[T]]",
        *,
        patience_seconds: float | None = None,
        **options: Unpack[SessionArguments],
    ) -> T:
        """Same as `run`, on an event loop."""
        opened = partial(sessions.async_open_session, self.async_engine, SessionOptions(**options))
        patience = self._patience(patience_seconds)
        return await transactions.async_run(opened, work, patience=patience, tally=self._tally)

    def _patience(self, seconds: float | None) -> Patience:
        return Patience(seconds=self.settings.retry_patience_seconds if seconds is None else seconds)
