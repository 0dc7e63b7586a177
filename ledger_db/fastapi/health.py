"""
Endpoints for those who watch a service: a load balancer, an orchestrator, a person.

Live:      the event loop turns.  Nothing is asked: restarting a service does not mend its database.
Ready:     requests should come here.  The database is asked, on a connection that no request uses.
Database:  the counters, without asking anybody; quick whatever hangs.
Detailed:  the same, and how fast each server answers.

None of them takes a thread of the endpoints' or a connection of the pools', which may all be in use just when
somebody wants to know.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ledger_db.connections.probe import NOT_OPEN, ProbeReport
from ledger_db.fastapi.health_model import (
    DatabaseHealth,
    Liveness,
    ManagerReadiness,
    ManagerState,
    Readiness,
    answer_of,
    state_of,
)
from ledger_db.fastapi.lifetime import Opened, all_opened, opened_of

Told = TypeVar("Told", Liveness, Readiness, DatabaseHealth)
_Endpoint = Callable[..., Coroutine[Any, Any, BaseModel]]


def make_router(*names: str) -> APIRouter:
    """
    Return a router with the health endpoints, below ``/health``.

    Args:
        names: The managers that it tells of, and that have to be well for the service to be ready; all if
            none is named.
    """
    made = APIRouter(prefix="/health", tags=["health"])
    watch = _Watch(names)
    _add(made, "/live", watch.live, "The event loop turns")
    _add(made, "/ready", watch.ready, "Requests should come here", otherwise=Readiness)
    _add(made, "/database", watch.database, "All is well, as far as is known", otherwise=DatabaseHealth)
    _add(
        made,
        "/database/detailed",
        watch.detailed,
        "All is well, as the servers say",
        otherwise=DatabaseHealth,
    )
    return made


def _add(
    router: APIRouter, path: str, endpoint: _Endpoint, well: str, otherwise: type[BaseModel] | None = None
) -> None:
    responses: dict[int | str, dict[str, Any]] = {}
    if otherwise is not None:
        responses[503] = {"model": otherwise, "description": "It is not so"}
    router.add_api_route(path, endpoint, methods=["GET"], response_description=well, responses=responses)
    # Apart and undocumented: one operation with two methods would have one name for two things.
    router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)


class _Watch:
    """The endpoints, for the managers of some names."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    async def live(self, response: Response) -> Liveness:
        """Say that the service is alive; nothing is asked."""
        return _told(response, Liveness())

    async def ready(self, request: Request, response: Response) -> Readiness:
        """Say whether requests should come here: the manager is open, and its database answers."""
        opened = self._managers(request)
        reports = await _ask(opened)
        managers = {name: _readiness(opened[name], report) for name, report in reports.items()}
        return _told(response, Readiness(ok=_well(managers), managers=managers))

    async def database(self, request: Request, response: Response) -> DatabaseHealth:
        """Say how pools and credentials are; no server is asked."""
        return _told(response, _health(self._managers(request), {}))

    async def detailed(self, request: Request, response: Response) -> DatabaseHealth:
        """
        Say how pools and credentials are, and how fast each server answers.

        Secrets Manager is not asked, as that is billed and throttled: it is told how long ago it answered.
        """
        managers = self._managers(request)
        return _told(response, _health(managers, await _ask(managers)))

    def _managers(self, request: Request) -> Mapping[str, Opened]:
        known = all_opened(request)
        if not known:
            return {}  # it is starting, closing, or was given no lifespan: not well in any case
        return {name: opened_of(request, name) for name in self._names or known}


async def _ask(managers: Mapping[str, Opened]) -> dict[str, ProbeReport]:
    # At once: they wait for each other's time, not for the sum.
    reports = await asyncio.gather(*(opened.manager.async_probe() for opened in managers.values()))
    return dict(zip(managers, reports, strict=True))


def _readiness(opened: Opened, report: ProbeReport) -> ManagerReadiness:
    answers = {server.name: answer_of(server) for server in report.servers}
    # A service without its cache is slow; one that is sent no requests because of it is down.  So Redis
    # counts only where there is nothing else.
    decisive = [answer for name, answer in answers.items() if name != "Redis"] or list(answers.values())
    state = opened.manager.health().state
    ok = state == "open" and bool(decisive) and all(answer.ok for answer in decisive)
    return ManagerReadiness(ok=ok, state=state, servers=answers)


def _health(managers: Mapping[str, Opened], reports: Mapping[str, ProbeReport]) -> DatabaseHealth:
    told = {name: state_of(opened, reports.get(name, NOT_OPEN)) for name, opened in managers.items()}
    return DatabaseHealth(ok=_well(told), managers=told)


def _well(managers: Mapping[str, ManagerReadiness | ManagerState]) -> bool:
    return bool(managers) and all(each.ok for each in managers.values())


def _told(response: Response, answer: Told) -> Told:
    response.status_code = 200 if answer.ok else 503
    # An answer from a cache on the way would be about another moment.
    response.headers["Cache-Control"] = "no-store"
    return answer


router: Final = make_router()
"""The health endpoints, for all managers."""
