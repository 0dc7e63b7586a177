"""Requests to a FastAPI service that use the manager of a test."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from ledger_db.fastapi.admission import AdmissionOptions
from ledger_db.fastapi.lifetime import admitting, all_opened, known_to

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ledger_db.fastapi.lifetime import Opened
    from ledger_db.manager.connection_manager import ConnectionManager


@contextmanager
def override_manager(
    app: "FastAPI", manager: "ConnectionManager", *, name: str = "default"
) -> Iterator[None]:
    """
    Give each request to *app* another manager.

    Every dependency of `ledger_db.fastapi` takes its connections from that one.  The code of the dependencies
    is not replaced, so it is tested too, and ``app.dependency_overrides`` is free for you.  The lifespan of
    *app* may have started, may start in the block, or never.

    Args:
        app: The application; those that are mounted in it are included.

        manager: An open one, isolated as a rule.

        name: Whose place it takes, as given to `lifespan`.
    """
    opened = {name: admitting(manager, AdmissionOptions())}
    with _in_front(app, opened), _in_front_after_start(app, opened):
        yield


def _in_front(app: "FastAPI", opened: "dict[str, Opened]") -> AbstractContextManager[None]:
    return known_to(app, {**(all_opened(app) or {}), **opened})


@contextmanager
def _in_front_after_start(app: "FastAPI", opened: "dict[str, Opened]") -> Iterator[None]:
    """Let a start that comes later not take the place back."""
    original = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(started: Any) -> AsyncIterator[Any]:
        async with original(started) as state:
            with _in_front(app, opened):
                yield state

    app.router.lifespan_context = lifespan
    try:
        yield
    finally:
        app.router.lifespan_context = original
