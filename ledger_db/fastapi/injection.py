"""
When does an injected session end, however it was asked for?

FastAPI ends a dependency with ``yield`` when the client has its answer, unless ``scope="function"`` is said
wherever it is named, and takes one that is named in two ways for two.  So ours have no ``yield``: they put
the end of their session before the response by themselves, and look whether the request has it already.

A dependency of the application's own that takes such a session ends before it does: it may have to write.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, cast

from starlette.requests import HTTPConnection

from ledger_db.errors import ConfigurationError

Injected = TypeVar("Injected")

Opening = Callable[[HTTPConnection], AbstractAsyncContextManager[Injected]]
"""Opens a session for a request, and ends it."""

Opener = Callable[[HTTPConnection], Awaitable[Injected]]
"""What a dependency names."""

_SESSIONS = "ledger_db.sessions"

_NO_ENDPOINT = (
    "a session for a request was asked for where FastAPI calls no endpoint (a middleware, an exception "
    "handler), so nobody would end it; use manager_of(request).begin() or async_begin() there"
)

_openers: set[Any] = set()


def opener_of(opening: Opening[Injected]) -> Opener[Injected]:
    """Return the dependency whose session is opened by *opening*, and ends before the response leaves."""

    async def session(connection: HTTPConnection) -> Injected:
        # Where FastAPI ends what has scope="function".
        stack = connection.scope.get("fastapi_function_astack")
        if stack is None:
            raise ConfigurationError(_NO_ENDPOINT)
        known = connection.scope.setdefault(_SESSIONS, {})
        # With the stack: the scope may be handed on, to an application that is called by hand.
        key = (stack, session)
        if key not in known or _is_wanted_apart(connection, session):
            _end_dependents_before(connection)
            known[key] = await stack.enter_async_context(opening(connection))
        return cast("Injected", known[key])

    _openers.add(session)
    return session


def _is_wanted_apart(connection: HTTPConnection, opener: Opener[Any]) -> bool:
    """Whether the endpoint has said use_cache=False, where FastAPI promises another one."""
    return any(
        each.call is opener and not each.use_cache
        for dependant in _dependants(connection)
        for each in _below(dependant)
    )


def _end_dependents_before(connection: HTTPConnection) -> None:
    # FastAPI looks at the scope of a dependency when all that it takes is there, hence after this.
    for dependant in _dependants(connection):
        for each in dependant.dependencies:
            _end_before(each)


def _end_before(dependant: Any) -> bool:
    """Have whatever takes a session of ours end before the response, and return whether this does."""
    if dependant.call in _openers:
        return True
    # A list, as all of them are to be looked at.
    takes = [_end_before(each) for each in dependant.dependencies]
    if any(takes):
        dependant.scope = "function"
    return any(takes)


def _below(dependant: Any) -> Iterator[Any]:
    for each in dependant.dependencies:
        yield each
        yield from _below(each)


def _dependants(connection: HTTPConnection) -> Iterator[Any]:
    """Iterate over what FastAPI knows of the endpoint: an included router has a view of it of its own."""
    scope = connection.scope
    for route in (scope.get("route"), scope.get("fastapi", {}).get("effective_route_context")):
        dependant = getattr(route, "dependant", None)
        if dependant is not None:
            yield dependant
