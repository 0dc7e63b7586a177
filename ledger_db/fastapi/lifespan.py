"""
When are managers opened and closed in a FastAPI service, and where does a request find them?

    app = FastAPI(lifespan=lifespan())
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.types import Lifespan

from ledger_db.errors import ConfigurationError
from ledger_db.fastapi.admission import Admission, AdmissionOptions
from ledger_db.manager import ConnectionManager
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

        finishers: The threads in which synchronous sessions end.  Not those of the endpoints: when all of
            those wait, only a session that ends can free one.
    """

    manager: ConnectionManager
    admission: Admission
    async_admission: Admission
    finishers: CapacityLimiter


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
        LedgerDBError: At start, whatever `ConnectionManager.open_async` raises; nothing is left open.
    """
    if "default" in named:
        raise ConfigurationError(
            "the manager called default is the first argument; give this one another name"
        )
    sources = {"default": source, **named}

    @asynccontextmanager
    async def run(app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            opened: dict[str, Opened] = dict(all_opened(app) or {})
            for name, each in sources.items():
                opened[name] = admitting(await _open(each, stack), admission)
            stack.enter_context(known_to(app, opened))
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
    opened = all_opened(connection)
    if opened is None:
        raise ConfigurationError(_NO_LIFESPAN)
    try:
        return opened[name]
    except KeyError:
        raise ConfigurationError(
            f"there is no manager called {name!r}, only {', '.join(opened)}; name it in lifespan()"
        ) from None


def all_opened(connection: HTTPConnection | Starlette) -> Mapping[str, Opened] | None:
    """Return every open manager by its name; None if no lifespan of ours ran, or it is over."""
    app = connection if isinstance(connection, Starlette) else connection.scope.get("app")
    found: Mapping[str, Opened] | None = getattr(app.state, _KEY, None) if app else None
    if found is None and isinstance(connection, HTTPConnection):
        # The server carries this everywhere: into an application that was mounted late, or behind middleware.
        found = connection.scope.get("state", {}).get(_KEY)
    return found


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
        admission=admission(),
        async_admission=admission(),
        # One for each that has a connection, and one for each that will ask for it at its end: none waits for
        # a thread.
        finishers=CapacityLimiter(2 * capacity),
    )


@contextmanager
def known_to(app: Starlette, opened: Mapping[str, Opened]) -> Iterator[None]:
    """Let requests to *app* find the managers in *opened*, for as long as the block."""
    before = [(each, getattr(each.state, _KEY, None)) for each in _with_mounted(app)]
    for each, _ in before:
        setattr(each.state, _KEY, opened)
    try:
        yield
    finally:
        # As before, so that whoever comes too late hears of the lifespan, not of a closed manager.
        for each, previous in before:
            setattr(each.state, _KEY, previous)


def _with_mounted(app: Starlette) -> Iterator[Starlette]:
    """Iterate over *app* and the applications inside it: a request finds the innermost in its scope."""
    yield app
    for route in app.routes:
        mounted = getattr(route, "app", None)
        if isinstance(mounted, Starlette):
            yield from _with_mounted(mounted)
