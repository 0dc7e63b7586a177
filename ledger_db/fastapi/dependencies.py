"""
Synchronous sessions for endpoints, and the manager itself.

Each alias is for annotations, each function of the same name in small letters is its key in
``app.dependency_overrides``.  A session is committed before the response leaves, so a client that has an
answer can rely on it, and a COMMIT that fails is an error that it hears of.  What an endpoint raises rolls
back; what it returns is committed, whatever its status, unless `mark_rollback` was called.

An endpoint that takes two sessions of different kinds takes two connections.  When many do so at once, each
may hold one and wait for another: they are refused after ``pool_timeout_seconds``, so take one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from functools import cache
from typing import Annotated, Unpack

from fastapi import Depends, params
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from ledger_db.fastapi.ending import end, lend, noting_what_is_stored, take_away, take_back
from ledger_db.fastapi.injection import Opener, opener_of
from ledger_db.fastapi.lifetime import manager_of, opened_of
from ledger_db.fastapi.places import ThreadPlace
from ledger_db.manager.connection_manager import ConnectionManager
from ledger_db.transactions.sessions import NO_OPTIONS, SessionArguments, SessionOptions, open_session


def session_dependency(
    name: str = "default", *, commit: bool = True, **options: Unpack[SessionArguments]
) -> params.Depends:
    """
    Return what ``Annotated[Session, ...]`` needs for a session of your own kind.

    The same arguments return the same ``.dependency``: two parameters of one request share a session, and
    tests can override it.

    Args:
        name: Which manager, as given to `lifespan`.

        commit: Whether the session is committed when the endpoint returns; else it is rolled back, and what
            the endpoint committed itself stays.

        options: ``read_only``, ``isolation_level``, ``statement_timeout_seconds``; see `SessionOptions`.
    """
    kind = SessionOptions(**options) if options else NO_OPTIONS
    return params.Depends(_session(name, commit=commit, options=kind))


class SessionFactory:
    """
    Opens sessions for work that goes on when the response has begun: streams, background tasks, websockets.

    Take one for each batch of such work, so that no connection is held while a client reads.  Used in a
    thread, where waiting for a place among the requests would keep the thread from them; so it does not ask,
    and finds the connections that `AdmissionOptions.reserve` keeps free.
    """

    __module__ = "ledger_db.fastapi"

    def __init__(self, manager: ConnectionManager) -> None:
        self._manager = manager

    def session(self, **options: Unpack[SessionArguments]) -> Session:
        """See `ConnectionManager.session`."""
        return self._manager.session(**options)

    def begin(self, **options: Unpack[SessionArguments]) -> AbstractContextManager[Session]:
        """See `ConnectionManager.begin`."""
        return self._manager.begin(**options)


@cache
def manager_dependency(name: str) -> params.Depends:
    """Return what ``Annotated[ConnectionManager, ...]`` needs for a named manager."""

    async def named_manager(connection: HTTPConnection) -> ConnectionManager:
        return manager_of(connection, name)

    return params.Depends(named_manager)


@cache
def session_factory_dependency(name: str) -> params.Depends:
    """Return what ``Annotated[SessionFactory, ...]`` needs for a named manager."""

    async def named_factory(connection: HTTPConnection) -> SessionFactory:
        return SessionFactory(manager_of(connection, name))

    return params.Depends(named_factory)


@cache
def _session(name: str, *, commit: bool, options: SessionOptions) -> Opener[Session]:
    # On the loop, because to open it needs no I/O; only its end does, and goes to a thread.
    @asynccontextmanager
    async def opening(connection: HTTPConnection) -> AsyncIterator[Session]:
        opened = opened_of(connection, name)
        session = open_session(opened.manager.engine, options, kind=opened.manager.session_kind)
        place = ThreadPlace(opened.admission, connection)
        await place.enter()
        lend(session, place, promised=commit and not options.read_only)
        with noting_what_is_stored(session):
            try:
                yield session
                take_back(session)
            except asyncio.CancelledError:
                await take_away(session, opened.finishers, place)
                raise
            except BaseException:
                await end(session, opened.finishers, place, commit=False)
                raise
            await end(session, opened.finishers, place, commit=commit)

    return opener_of(opening)


async def manager(connection: HTTPConnection) -> ConnectionManager:
    """Return the manager called ``default``."""
    return manager_of(connection)


async def session_factory(connection: HTTPConnection) -> SessionFactory:
    """Return a factory of sessions of the manager called ``default``."""
    return SessionFactory(manager_of(connection))


_READ_ONLY = SessionOptions(read_only=True)
_SERIALIZABLE = SessionOptions(isolation_level="SERIALIZABLE")

session: Opener[Session] = _session("default", commit=True, options=NO_OPTIONS)
"""What `SessionDep` depends on."""

manual_session: Opener[Session] = _session("default", commit=False, options=NO_OPTIONS)
"""What `ManualSessionDep` depends on."""

read_only_session: Opener[Session] = _session("default", commit=True, options=_READ_ONLY)
"""What `ReadOnlySessionDep` depends on."""

serializable_session: Opener[Session] = _session("default", commit=True, options=_SERIALIZABLE)
"""What `SerializableSessionDep` depends on."""

SessionDep = Annotated[Session, Depends(session)]
"""Committed for you."""

ManualSessionDep = Annotated[Session, Depends(manual_session)]
"""Rolled back unless the endpoint commits."""

ReadOnlySessionDep = Annotated[Session, Depends(read_only_session)]
"""PostgreSQL refuses writes."""

SerializableSessionDep = Annotated[Session, Depends(serializable_session)]
"""As if alone.  A conflict is an error here: only a callable can be repeated, see `ConnectionManager.run`."""

SessionFactoryDep = Annotated[SessionFactory, Depends(session_factory)]
"""For streams, background tasks and websockets."""

ManagerDep = Annotated[ConnectionManager, Depends(manager)]
"""The manager itself: `run`, the engines, health."""
