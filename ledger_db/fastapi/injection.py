"""
When does an injected session end, however it was asked for?

FastAPI ends a dependency with ``yield`` when the client has its answer, unless ``scope="function"`` is said
wherever it is named, and takes one that is named in two ways for two.  So ours have no ``yield``: they put
the end of their session before the response by themselves, and look whether the request has it already.

A dependency of the application's own that takes such a session ends before it does: it may have to write.
An endpoint with ``yield`` runs when the response has begun, and is refused one.
"""

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar, cast

from fastapi.dependencies.utils import get_dependant
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
_STREAMS = (
    "this endpoint has a yield, so it runs when the response has begun, and the session of its request has "
    "ended by then; let it take SessionFactoryDep or AsyncSessionFactoryDep, and a session for each batch"
)

_NO_OVERRIDES: Mapping[Any, Any] = {}

# By identity, as what an application depends on may have no hash.
_openers: dict[int, Opener[Any]] = {}


def opener_of(opening: Opening[Injected]) -> Opener[Injected]:
    """
    Return the dependency whose session is opened by *opening*, and ends before the response leaves.

    It raises ConfigurationError where it would end too early, or never.
    """

    async def session(connection: HTTPConnection) -> Injected:
        # Where FastAPI ends what has scope="function".
        stack = connection.scope.get("fastapi_function_astack")
        if stack is None:
            raise ConfigurationError(_NO_ENDPOINT)
        known = connection.scope.setdefault(_SESSIONS, {})
        # With the stack: the scope may be handed on, to an application that is called by hand.
        key = (stack, session)
        if key not in known or _is_wanted_apart(connection, session):
            late = _have_dependents_end_before(connection)
            known[key] = await stack.enter_async_context(opening(connection))
            stack.push(_let_through(sys.exc_info()[1]))
            if late:
                stack.push_async_exit(_EndingFirst(connection.scope["fastapi_inner_astack"]))
        return cast("Injected", known[key])

    _openers[id(session)] = session
    return session


class _EndingFirst:
    """
    Ends what was entered in *stack* after this was made.

    That is more than what takes a session of ours, so it is done where nobody can say it better: while a
    test overrides anything, FastAPI makes its tree of dependencies anew for each request, and shows it to
    nobody.
    """

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._before = stack.pop_all()

    async def __aexit__(self, *raised: Any) -> bool | None:  # noqa: PYI036 - handed on
        after = self._stack.pop_all()
        self._stack.push_async_exit(self._before)
        return await after.__aexit__(*raised)


def _let_through(before: BaseException | None) -> Callable[..., None]:
    """Return what raises again what a dependency has swallowed: there is no answer that could succeed."""

    def look(_: object, error: object, __: object) -> None:
        swallowed = sys.exc_info()[1]
        if error is None and swallowed is not None and swallowed is not before:
            raise swallowed

    return look


def _is_wanted_apart(connection: HTTPConnection, opener: Opener[Any]) -> bool:
    """Whether the endpoint has said use_cache=False, where FastAPI promises another one."""
    return any(
        each.call is opener and not each.use_cache
        for endpoint, overrides in _endpoints(connection)
        for each in _below(endpoint, overrides)
    )


def _have_dependents_end_before(connection: HTTPConnection) -> bool:
    """
    Have whatever takes a session of ours end before the response.

    Returns:
        Whether there is something that cannot be told to.

    Raises:
        ConfigurationError: An endpoint takes one that will have ended.
    """
    late = False
    for endpoint, overrides in _endpoints(connection):
        _refuse_stream(endpoint, overrides)
        if overrides:
            late = late or any(
                _has_yield(each.call) and _takes_one(each, overrides) for each in _below(endpoint, overrides)
            )
        else:
            for each in endpoint.dependencies:
                _end_before(each)
    return late


def _refuse_stream(endpoint: Any, overrides: Mapping[Any, Any]) -> None:
    # What is listed, without a name, has done its work by then.
    named = (each for each in _beneath(endpoint, overrides) if each.name)
    if any(id(each.call) in _openers for each in named) and _has_yield(endpoint.call):
        raise ConfigurationError(_STREAMS)


def _takes_one(dependant: Any, overrides: Mapping[Any, Any]) -> bool:
    return any(id(each.call) in _openers for each in _below(dependant, overrides))


def _end_before(dependant: Any) -> bool:
    """Have whatever takes a session of ours end before the response, and return whether this does."""
    if id(dependant.call) in _openers:
        return True
    # A list, as all of them are to be looked at.
    takes = [_end_before(each) for each in dependant.dependencies]
    if any(takes):
        # FastAPI looks at it when all that the dependency takes is there, hence after this.
        dependant.scope = "function"
    return any(takes)


def _has_yield(call: Any) -> bool:
    return any(
        inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each)
        for each in (inspect.unwrap(call), getattr(call, "__call__", None))  # noqa: B004 - an instance's own
    )


def _below(dependant: Any, overrides: Mapping[Any, Any]) -> Iterator[Any]:
    for each in _beneath(dependant, overrides):
        yield each
        yield from _below(each, overrides)


def _beneath(dependant: Any, overrides: Mapping[Any, Any]) -> Iterator[Any]:
    """Iterate over what *dependant* takes; as FastAPI does it while anything is overridden, made anew."""
    for each in dependant.dependencies:
        if overrides:
            call = overrides.get(each.call, each.call)
            yield get_dependant(path=each.path or "", call=call, name=each.name, use_cache=each.use_cache)
        else:
            yield each


def _endpoints(connection: HTTPConnection) -> Iterator[tuple[Any, Mapping[Any, Any]]]:
    """
    Iterate over what FastAPI knows of the endpoint, and what it puts in the place of its dependencies.

    An included router has a view of it of its own.
    """
    scope = connection.scope
    for route in (scope.get("route"), scope.get("fastapi", {}).get("effective_route_context")):
        endpoint = getattr(route, "dependant", None)
        if endpoint is not None:
            provider = getattr(route, "dependency_overrides_provider", None)
            yield endpoint, getattr(provider, "dependency_overrides", _NO_OVERRIDES)
