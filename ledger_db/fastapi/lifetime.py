"""
When are managers opened and closed in a FastAPI service, and where does a request find them?

    app = FastAPI(lifespan=lifespan())
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.types import Lifespan

from ledger_db.errors import ConfigurationError
from ledger_db.fastapi import overriding
from ledger_db.fastapi.admission import Admission, AdmissionOptions
from ledger_db.fastapi.ending import Finishers
from ledger_db.manager.connection_manager import ConnectionManager
from ledger_db.settings import Settings

Source: TypeAlias = Settings | ConnectionManager | Callable[[], ConnectionManager] | None
"""Where a manager comes from: settings, None for those of the environment, a manager, or who makes one."""

Opener: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]
"""What FastAPI takes as ``lifespan=``; yields what every connection shall know."""

_KEY = "ledger_db"
_NO_LIFESPAN = (
    "no lifespan of ledger_db ran for this application; make it with FastAPI(lifespan=lifespan()), use a "
    "TestClient in a 'with' block, and let a lifespan of your own that runs ours yield what ours yields"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """
    An open manager, and how requests get at its connections.

    Attributes:
        manager: It.

        admission: Who may use a connection of `engine`.

        async_admission: The same for `async_engine`, which has a pool of its own.

        finishers: Where synchronous sessions end.  Not in the threads of the endpoints: when all of those
            wait, only a session that ends can free one.
    """

    manager: ConnectionManager
    admission: Admission
    async_admission: Admission
    finishers: Finishers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """
    What requests to one application can find; replaced as a whole.

    Attributes:
        own: What its starts have opened, the latest first.

        above: The same of applications that it is mounted in.
    """

    own: tuple[Mapping[str, Opened], ...] = ()
    above: tuple[Mapping[str, Opened], ...] = ()


_NOTHING = _Known()
_EMPTY: Mapping[str, Any] = {}


def lifespan(
    source: Source = None,
    *,
    then: Lifespan[Any] | None = None,
    admission: AdmissionOptions = AdmissionOptions(),  # noqa: B008 - frozen
    **named: Source,
) -> Opener:
    """
    Return a lifespan that opens managers before the first request, and closes them after the last.

    A start that fails ends the service: uvicorn exits with status 3.  Settings are read and managers made
    when the service starts, not before, and anew each time that it does.

    Args:
        source: Where the manager called ``default`` comes from.  One that is open already is used, and left
            open: whoever opened it closes it.

        then: A lifespan of your own, run while the managers are open; `manager_of` takes its ``app``.

        admission: How requests are let in.

        named: More managers, by name.

    Raises:
        LedgerDBError: At start, whatever `ConnectionManager.async_open` raises; nothing is left open.
    """
    if "default" in named:
        raise ConfigurationError(
            "the manager called default is the first argument; give this one another name"
        )
    sources = {"default": source, **named}

    @asynccontextmanager
    async def run(app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            opened: dict[str, Opened] = dict(_latest(app))
            for name, each in sources.items():
                opened[name] = one = admitting(await _open(each, stack), admission)
                # Sessions of requests that were cancelled may still be ending.
                stack.push_async_callback(one.finishers.drain, one.manager.settings.pool_timeout_seconds)
            stack.enter_context(_offered(app, opened))
            more = await stack.enter_async_context(then(app)) if then else None
            # What *then* yields goes last: it may be one of ours, which knows our managers and its own.
            yield {_KEY: opened, **(more or {})}

    return run


def manager_of(connection: HTTPConnection | Starlette, name: str = "default") -> ConnectionManager:
    """
    Return an open manager.

    Args:
        connection: A request, a websocket, or the application itself.

        name: As given to `lifespan`.

    Raises:
        ConfigurationError: There is no such manager, or no lifespan ran.
    """
    return opened_of(connection, name).manager


def opened_of(connection: HTTPConnection | Starlette, name: str = "default") -> Opened:
    """Same as `manager_of`, with what surrounds the manager."""
    instead = overriding.instead_of(_asked(connection), name)
    if instead is not None:
        return instead
    for opened in _sources(connection):
        if name in opened:
            return opened[name]
    known = all_opened(connection)
    if known is None:
        raise ConfigurationError(_NO_LIFESPAN)
    raise ConfigurationError(
        f"there is no manager called {name!r}, only {', '.join(known)}; name it in lifespan()"
    )


def all_opened(connection: HTTPConnection | Starlette) -> Mapping[str, Opened] | None:
    """Return every open manager by its name; None if no lifespan of ours ran, or it is over."""
    merged = dict(overriding.all_instead(_asked(connection)))
    for opened in _sources(connection):
        merged = {**opened, **merged}
    return merged or None


def _sources(connection: HTTPConnection | Starlette) -> Iterator[Mapping[str, Opened]]:
    """Iterate over what was opened, beginning with what goes before the rest."""
    known, carried = _known(_asked(connection)), None
    if not isinstance(connection, Starlette):
        # The server carries this everywhere: into an application mounted late, or behind middleware.
        carried = connection.scope.get("state", _EMPTY).get(_KEY)
    # What is carried belongs to the start that serves this very request, where an application runs twice at
    # once.  But one that is mounted may have been started by hand: then what is carried is not its own.
    if carried is not None and (not known.own or any(each is carried for each in known.own)):
        yield carried
    yield from known.own
    yield from known.above
    if carried is not None:
        yield carried


def _asked(connection: HTTPConnection | Starlette) -> Starlette | None:
    return connection if isinstance(connection, Starlette) else connection.scope.get("app")


def _known(app: Starlette | None) -> _Known:
    known: _Known = _NOTHING if app is None else getattr(app.state, _KEY, _NOTHING)
    return known


async def _open(source: Source, stack: AsyncExitStack) -> ConnectionManager:
    if source is None or isinstance(source, Settings):
        manager = ConnectionManager(source)
    else:
        manager = source if isinstance(source, ConnectionManager) else source()
    if not manager.is_open:
        await stack.enter_async_context(manager)
    return manager


def admitting(manager: ConnectionManager, options: AdmissionOptions) -> Opened:
    """Put *manager* behind an admission of the size of its pools."""
    settings = manager.settings
    capacity = settings.pool_size + settings.max_overflow
    patience = options.patience_seconds
    admission = partial(
        Admission,
        max(1, capacity - options.reserve),
        patience_seconds=settings.pool_timeout_seconds if patience is None else patience,
        most_waiting=options.most_waiting,
    )
    return Opened(
        manager=manager,
        # Two, because the engines do not share connections.
        admission=admission(in_advance=True),
        async_admission=admission(),
        # One for each that has a connection, and one for each that will ask for it at its end: none waits for
        # a thread.
        finishers=Finishers(2 * capacity),
    )


@contextmanager
def _offered(app: Starlette, opened: Mapping[str, Opened]) -> Iterator[None]:
    """Let requests to *app* find what a start of it has opened, for as long as the block."""
    mounted = list(_with_mounted(app))[1:]
    _change(app, own=(opened, *_known(app).own))
    for each in mounted:
        _change(each, above=(opened, *_known(each).above))
    try:
        yield
    finally:
        # Its own and no other's: starts need not end in turn.  Whoever comes too late hears of the lifespan,
        # not of a closed manager.
        _change(app, own=_without(_known(app).own, opened))
        for each in mounted:
            _change(each, above=_without(_known(each).above, opened))


def _change(app: Starlette, **changes: Any) -> None:
    setattr(app.state, _KEY, replace(_known(app), **changes))


def _without(
    offers: tuple[Mapping[str, Opened], ...], opened: Mapping[str, Opened]
) -> tuple[Mapping[str, Opened], ...]:
    return tuple(each for each in offers if each is not opened)


def _latest(app: Starlette) -> Mapping[str, Opened]:
    """Return what the latest start has opened: a lifespan that runs inside of another one adds to it."""
    return next(iter((*_known(app).own, *_known(app).above)), _EMPTY)


def _with_mounted(app: Starlette) -> Iterator[Starlette]:
    """Iterate over *app* and the applications inside it: a request finds the innermost in its scope."""
    yield app
    for route in app.routes:
        mounted = getattr(route, "app", None)
        if isinstance(mounted, Starlette):
            yield from _with_mounted(mounted)
