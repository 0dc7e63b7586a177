"""A service that asks for its session in one of the ways that FastAPI has, on one of the drivers."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Security, params
from sqlalchemy import Executable

from ledger_db import Settings
from ledger_db.fastapi import (
    async_manual_session,
    async_session,
    async_session_dependency,
    install_error_handlers,
    lifespan,
    manual_session,
    session,
    session_dependency,
)
from tests.support.any_driver import choice_of, is_on_loop
from tests.support.notes_service import INSERT, INSERT_ORPHAN

Marker = Callable[[Any], Any]
"""Makes what stands at a parameter from a dependency."""


class Half:
    """The names of one half, and dependencies over them, for the driver that is tested."""

    def __init__(self, driver: str) -> None:
        self.on_loop = is_on_loop(driver)
        self.session: Any = async_session if self.on_loop else session
        self.manual_session: Any = async_manual_session if self.on_loop else manual_session
        self.own: Any = (async_session_dependency if self.on_loop else session_dependency)(read_only=False)

    def writer(self, marker: Any, statement: Executable, key: int = 1) -> Callable[..., Any]:
        """Return an endpoint, or a dependency, that writes into the session which *marker* gives it."""

        def write(session: Any = marker) -> None:
            session.execute(statement, {"id": key})

        async def write_async(session: Any = marker) -> None:
            await session.execute(statement, {"id": key})

        return write_async if self.on_loop else write

    def giver(self, marker: Any) -> Callable[..., Any]:
        """Return a dependency that gives on the session which *marker* gives it."""

        def give(session: Any = marker) -> Any:
            return session

        return give

    def unit_of_work(self, marker: Any, *, then: Callable[[Any], Any] | None = None) -> Callable[..., Any]:
        """Return a dependency that does *then* with its session when the endpoint has returned."""

        def unit(session: Any = marker) -> Iterator[Any]:
            yield session
            if then:
                then(session)

        async def unit_async(session: Any = marker) -> AsyncIterator[Any]:
            yield session
            if then:
                await then(session)

        return unit_async if self.on_loop else unit


def _class_of(opener: Any) -> type:
    class Work:
        def __init__(self, session: Annotated[Any, Depends(opener)]) -> None:
            self.execute = session.execute

    return Work


WAYS: dict[str, Callable[[Half], Any]] = {
    "bare": lambda half: Depends(half.session),
    "security": lambda half: Security(half.session, scopes=["notes"]),
    "function": lambda half: Depends(half.session, scope="function"),
    "request": lambda half: Depends(half.session, scope="request"),
    "uncached": lambda half: Depends(half.session, use_cache=False),
    "own": lambda half: half.own,
    "own, by its dependency": lambda half: Depends(half.own.dependency),
    "below": lambda half: Depends(half.giver(Depends(half.session))),
    "below, as a class": lambda half: Depends(_class_of(half.session)),
    "yield": lambda half: Depends(half.unit_of_work(Depends(half.session))),
    "yield in function": lambda half: Depends(half.unit_of_work(Depends(half.session)), scope="function"),
    "yield in request": lambda half: Depends(half.unit_of_work(Depends(half.session)), scope="request"),
    "yield over uncached": lambda half: Depends(
        half.unit_of_work(Depends(half.session, use_cache=False)), use_cache=False
    ),
}

STATEMENTS = {"good": INSERT, "orphan": INSERT_ORPHAN}


def new_app(settings: Settings, driver: str, **arguments: Any) -> FastAPI:
    """Make a service without endpoints, with problem documents, on *driver*."""
    app = FastAPI(lifespan=lifespan(settings.model_copy(update=choice_of(driver))), **arguments)
    install_error_handlers(app)
    return app


def add_annotated(app: FastAPI, half: Half, marker: params.Depends) -> None:
    """Add the endpoints with *marker* in the annotation, and with it as the default value."""
    for name, statement in STATEMENTS.items():
        write = half.writer(marker, statement)
        app.add_api_route(f"/default/{name}", write, status_code=201, response_model=None)
        annotated = half.writer(inspect.Parameter.empty, statement)
        annotated.__annotations__ = {"session": Annotated[Any, marker]}
        annotated.__defaults__ = None
        app.add_api_route(f"/annotated/{name}", annotated, status_code=201, response_model=None)


def listed(settings: Settings, driver: str, where: str, statement: Executable) -> FastAPI:
    """Make a service whose only writer is in a list of dependencies: of the route, a router, the app."""
    half = Half(driver)
    writers = [Depends(half.writer(Depends(half.session), statement))]
    app = new_app(settings, driver, **({"dependencies": writers} if where == "app" else {}))
    router = APIRouter(dependencies=writers if where == "router" else [])
    arguments: dict[str, Any] = {"dependencies": writers} if where == "route" else {}
    router.add_api_route("/", lambda: None, status_code=201, **arguments)
    if where == "mounted":
        part = new_app(settings, driver, dependencies=writers)
        part.include_router(router)
        app.mount("", part)
    else:
        app.include_router(router, dependencies=writers if where == "inclusion" else [])
    return app
