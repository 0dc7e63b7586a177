"""
The asynchronous shells of `dependencies`: the same names with async_, the same rules.

They stand in a file of their own because SQLAlchemy's asyncio half needs greenlet, which a service that only
has ``def`` endpoints need not install.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Annotated, Unpack

from fastapi import Depends, params
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from ledger_db.fastapi.ending import (
    is_marked,
    lend,
    noting_what_is_stored,
    returns_connection,
    take_back,
)
from ledger_db.fastapi.injection import Opener, opener_of
from ledger_db.fastapi.lifetime import Opened, opened_of
from ledger_db.fastapi.places import Place
from ledger_db.transactions import sessions
from ledger_db.transactions.sessions import NO_OPTIONS, SessionArguments, SessionOptions, async_open_session


def async_session_dependency(
    name: str = "default", *, commit: bool = True, **options: Unpack[SessionArguments]
) -> params.Depends:
    """Same as `session_dependency`, for ``Annotated[AsyncSession, ...]``."""
    kind = SessionOptions(**options) if options else NO_OPTIONS
    return params.Depends(_session(name, commit=commit, options=kind))


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
        async with self._opened.manager.async_session(**options) as session:
            self._lend(session)
            yield session

    @asynccontextmanager
    async def begin(self, **options: Unpack[SessionArguments]) -> AsyncIterator[AsyncSession]:
        """
        Open a transaction for ``async with``; commits at its end, rolls back on an error.

        Raises:
            Saturated: As in `session`.
        """
        async with self._opened.manager.async_begin(**options) as session:
            self._lend(session)
            yield session

    def _lend(self, session: AsyncSession) -> None:
        place = Place(self._opened.async_admission, self._connection)
        lend(session.sync_session, place, promised=False)


@cache
def async_session_factory_dependency(name: str) -> params.Depends:
    """Return what ``Annotated[AsyncSessionFactory, ...]`` needs for a named manager."""

    async def named_factory(connection: HTTPConnection) -> AsyncSessionFactory:
        return AsyncSessionFactory(opened_of(connection, name), connection)

    return params.Depends(named_factory)


@cache
def _session(name: str, *, commit: bool, options: SessionOptions) -> Opener[AsyncSession]:
    @asynccontextmanager
    async def opening(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
        opened = opened_of(connection, name)
        place = Place(opened.async_admission, connection)
        try:
            manager = opened.manager
            async with async_open_session(
                manager.async_engine, options, kind=manager.session_kind
            ) as session:
                lend(session.sync_session, place, promised=commit and not options.read_only)
                with noting_what_is_stored(session.sync_session):
                    yield session
                    take_back(session.sync_session)
                    if returns_connection(session.sync_session):
                        place.hand_on()
                    # Nothing to do, and no error, where the endpoint has committed or closed it.
                    if commit and session.in_transaction() and not is_marked(session):
                        await sessions.async_commit(session)
        finally:
            place.leave()

    return opener_of(opening)


async def async_session_factory(connection: HTTPConnection) -> AsyncSessionFactory:
    """Return a factory of sessions of the manager called ``default``."""
    return AsyncSessionFactory(opened_of(connection), connection)


_READ_ONLY = SessionOptions(read_only=True)
_SERIALIZABLE = SessionOptions(isolation_level="SERIALIZABLE")

async_session: Opener[AsyncSession] = _session("default", commit=True, options=NO_OPTIONS)
"""What `AsyncSessionDep` depends on."""

async_manual_session: Opener[AsyncSession] = _session("default", commit=False, options=NO_OPTIONS)
"""What `AsyncManualSessionDep` depends on."""

async_read_only_session: Opener[AsyncSession] = _session("default", commit=True, options=_READ_ONLY)
"""What `AsyncReadOnlySessionDep` depends on."""

async_serializable_session: Opener[AsyncSession] = _session("default", commit=True, options=_SERIALIZABLE)
"""What `AsyncSerializableSessionDep` depends on."""

AsyncSessionDep = Annotated[AsyncSession, Depends(async_session)]
"""Committed for you."""

AsyncManualSessionDep = Annotated[AsyncSession, Depends(async_manual_session)]
"""Rolled back unless the endpoint commits."""

AsyncReadOnlySessionDep = Annotated[AsyncSession, Depends(async_read_only_session)]
"""PostgreSQL refuses writes."""

AsyncSerializableSessionDep = Annotated[AsyncSession, Depends(async_serializable_session)]
"""As if alone.  A conflict is an error here: see `ConnectionManager.async_run` for what repeats it."""

AsyncSessionFactoryDep = Annotated[AsyncSessionFactory, Depends(async_session_factory)]
"""For streams, background tasks and websockets."""
