"""
The asynchronous shells of `dependencies`: the same names with async_, the same rules.

They stand in a file of their own because SQLAlchemy's asyncio half needs greenlet, which a service that only
has ``def`` endpoints need not install.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Annotated, Unpack

from fastapi import Depends, params
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from ledger_db.fastapi.admission import admit, overdue
from ledger_db.fastapi.ending import is_marked, returns_connection
from ledger_db.fastapi.lifetime import Opened, opened_of
from ledger_db.transactions import sessions
from ledger_db.transactions.sessions import NO_OPTIONS, SessionArguments, SessionOptions, async_open_session

_Opener = Callable[[HTTPConnection], AsyncIterator[AsyncSession]]


def async_session_dependency(
    name: str = "default", *, commit: bool = True, **options: Unpack[SessionArguments]
) -> params.Depends:
    """Same as `session_dependency`, for ``Annotated[AsyncSession, ...]``."""
    kind = SessionOptions(**options) if options else NO_OPTIONS
    return params.Depends(_session(name, commit=commit, options=kind), scope="function")


class AsyncSessionFactory:
    """
    Opens sessions for work that goes on when the response has begun: streams, background tasks, websockets.

    Take one for each batch of such work, so that no connection is held while a client reads.  Each waits for
    its turn among the requests.
    """

    __module__ = "ledger_db.fastapi"

    def __init__(self, opened: Opened, connection: HTTPConnection) -> None:
        self._opened = opened
        self._connection = connection

    @asynccontextmanager
    async def session(self, **options: Unpack[SessionArguments]) -> AsyncIterator[AsyncSession]:
        """
        Open a session for ``async with``; nothing is committed unless you do.

        Raises:
            Saturated: No connection was free in time; a client hears 503 or, on a websocket, 1013.
        """
        async with self._admitted(), self._opened.manager.async_session(**options) as session:
            yield session

    @asynccontextmanager
    async def begin(self, **options: Unpack[SessionArguments]) -> AsyncIterator[AsyncSession]:
        """
        Open a transaction for ``async with``; commits at its end, rolls back on an error.

        Raises:
            Saturated: As in `session`.
        """
        async with self._admitted(), self._opened.manager.async_begin(**options) as session:
            yield session

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        place = await admit(self._connection, self._opened.async_admission)
        try:
            yield
        except PoolTimeout as error:
            raise overdue(self._connection) from error
        finally:
            place.leave()


@cache
def async_session_factory_dependency(name: str) -> params.Depends:
    """Return what ``Annotated[AsyncSessionFactory, ...]`` needs for a named manager."""

    async def named_factory(connection: HTTPConnection) -> AsyncSessionFactory:
        return AsyncSessionFactory(opened_of(connection, name), connection)

    return params.Depends(named_factory)


@cache
def _session(name: str, *, commit: bool, options: SessionOptions) -> _Opener:
    async def session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
        opened = opened_of(connection, name)
        place = await admit(connection, opened.async_admission)
        try:
            manager = opened.manager
            async with async_open_session(
                manager.async_engine, options, kind=manager.session_kind
            ) as session:
                yield session
                # Before the COMMIT; see the synchronous twin.
                if returns_connection(session.sync_session):
                    place.leave()
                if commit and not is_marked(session):
                    await sessions.async_commit(session)
        except PoolTimeout as error:
            raise overdue(connection) from error
        finally:
            place.leave()

    return session


async def async_session_factory(connection: HTTPConnection) -> AsyncSessionFactory:
    """Return a factory of sessions of the manager called ``default``."""
    return AsyncSessionFactory(opened_of(connection), connection)


_READ_ONLY = SessionOptions(read_only=True)
_SERIALIZABLE = SessionOptions(isolation_level="SERIALIZABLE")

async_session: _Opener = _session("default", commit=True, options=NO_OPTIONS)
async_manual_session: _Opener = _session("default", commit=False, options=NO_OPTIONS)
async_read_only_session: _Opener = _session("default", commit=True, options=_READ_ONLY)
async_serializable_session: _Opener = _session("default", commit=True, options=_SERIALIZABLE)

AsyncSessionDep = Annotated[AsyncSession, Depends(async_session, scope="function")]
"""Committed for you."""

AsyncManualSessionDep = Annotated[AsyncSession, Depends(async_manual_session, scope="function")]
"""Rolled back unless the endpoint commits."""

AsyncReadOnlySessionDep = Annotated[AsyncSession, Depends(async_read_only_session, scope="function")]
"""PostgreSQL refuses writes."""

AsyncSerializableSessionDep = Annotated[AsyncSession, Depends(async_serializable_session, scope="function")]
"""As if alone.  A conflict is an error here: see `ConnectionManager.async_run` for what repeats it."""

AsyncSessionFactoryDep = Annotated[AsyncSessionFactory, Depends(async_session_factory)]
"""For streams, background tasks and websockets."""
