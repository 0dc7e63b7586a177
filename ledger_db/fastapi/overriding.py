"""
Whose manager does a request get while a test has put another in its place?

Entered:  an application that is overridden marks all that runs inside of it.  The mark goes where the request
          goes: into what is mounted there in whatever way, behind any middleware, into threads.
Strayed:  a request that came by another way is refused if the test's manager leaves nothing behind: it would
          write for real.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from ledger_db.errors import ConfigurationError

if TYPE_CHECKING:
    from ledger_db.fastapi.lifetime import Opened


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Override:
    """
    What stands in for the managers of one application.

    Attributes:
        app: Which one.

        opened: By the names whose place they take.

        leaves_nothing: Whether what is written there is undone.
    """

    app: Starlette
    opened: "Mapping[str, Opened]"
    leaves_nothing: bool


# In the order in which they began.  Replaced as a whole: an application may run in another thread.
_active: tuple[_Override, ...] = ()

_entered: ContextVar[tuple[Starlette, ...]] = ContextVar("ledger_db.entered", default=())
"""The overridden applications that this request has come through."""


@contextmanager
def overridden(app: Starlette, opened: "Mapping[str, Opened]", *, leaves_nothing: bool) -> Iterator[None]:
    """
    Let all that *app* is asked find the managers in *opened*, for as long as the block.

    Args:
        app: A client may talk to it, or to what it is mounted in.

        opened: By the names whose place they take.  Of two blocks the one that began later counts.

        leaves_nothing: Whether a request that takes one of these names, and does not come through here, has
            to be refused.
    """
    global _active  # noqa: PLW0603 - overrides are the process's, as the applications are
    one = _Override(app=app, opened=opened, leaves_nothing=leaves_nothing)
    before = app.__class__
    # Not its routes, which a middleware, a router or a factory may hide: every request begins with this call.
    app.__class__ = _marking(before)
    _active = (*_active, one)
    try:
        yield
    finally:
        _active = tuple(each for each in _active if each is not one)
        app.__class__ = before


def instead_of(app: Starlette | None, name: str) -> "Opened | None":
    """
    Return what stands in for the manager called *name*; None if nothing does.

    Args:
        app: Who asks.  It need not be overridden itself, if it is asked by one that is.

        name: As given to `lifespan`.

    Raises:
        ConfigurationError: This is no request to an overridden application, and another is isolated.
    """
    if not _active:
        return None
    for one in _applying_to(app):
        if name in one.opened:
            return one.opened[name]
    if any(one.leaves_nothing and name in one.opened for one in _active):
        raise ConfigurationError(
            f"a test has put its own manager in the place of {name!r}, and this was asked for past the "
            "application that override_manager() was given, so that its writes would stay; give "
            "override_manager() the application that the client talks to, or this one as well"
        )
    return None


def all_instead(app: Starlette | None) -> "Mapping[str, Opened]":
    """Return everything that stands in for a manager, by name."""
    found: dict[str, Opened] = {}
    for one in _applying_to(app):
        found = {**one.opened, **found}
    return found


def _applying_to(app: Starlette | None) -> Iterator[_Override]:
    entered = _entered.get()
    return (one for one in reversed(_active) if one.app is app or any(one.app is each for each in entered))


def _marking(kind: type[Starlette]) -> type[Starlette]:
    """Return the class of an application that marks what runs inside of it, and is a *kind* otherwise."""

    async def call(self: Starlette, scope: Scope, receive: Receive, send: Send) -> None:
        before = _entered.set((*_entered.get(), self))
        try:
            await kind.__call__(self, scope, receive, send)
        finally:
            _entered.reset(before)

    names: dict[str, Any] = {"__call__": call, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), names)
