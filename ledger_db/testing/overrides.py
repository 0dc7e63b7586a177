"""Requests to a FastAPI service that use the manager of a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette

from ledger_db.errors import ConfigurationError
from ledger_db.fastapi.admission import AdmissionOptions
from ledger_db.fastapi.lifetime import admitting
from ledger_db.fastapi.overriding import overridden
from ledger_db.testing.isolation import IsolatedManager

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ledger_db.manager.connection_manager import ConnectionManager


@contextmanager
def override_manager(
    app: "FastAPI", manager: "ConnectionManager", *, name: str = "default"
) -> Iterator[None]:
    """
    Give each request to *app* another manager, in a ``with`` block.

    Every dependency of `ledger_db.fastapi` takes its connections from that one.  The code of the dependencies
    is not replaced, so it is tested too, and ``app.dependency_overrides`` is free for you.  The lifespan of
    *app* may have started, may start in the block, or never.

    A request that does not come through *app* would use a real manager.  While *manager* is an isolated one,
    it hears a `ConfigurationError` instead.

    Args:
        app: The application; all that is reached through it is included, however it is nested.

        manager: An open one, isolated as a rule.

        name: Whose place it takes, as given to `lifespan`.

    Raises:
        ConfigurationError: *app* is what is wrapped around an application.
    """
    if not isinstance(app, Starlette):
        raise ConfigurationError(
            f"override_manager() was given a {type(app).__name__}; give it the FastAPI application itself: "
            "what is wrapped around that one may stay"
        )
    opened = {name: admitting(manager, AdmissionOptions())}
    with overridden(app, opened, leaves_nothing=isinstance(manager, IsolatedManager)):
        yield
