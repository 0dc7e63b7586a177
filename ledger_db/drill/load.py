"""
Who uses the service while its passwords rotate?

A fixed number of clients, each sending one request after the other.  They never repeat a request that
failed: a retry would hide exactly what the drill is looking for.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from ledger_db.drill.report import RequestRecord

ANSWER_TIMEOUT_SECONDS = 20.0
"""Longer than the manager's patience with a refused login and its wait for the pool together."""

# Shorter than the five seconds after which uvicorn closes an idle connection.  Otherwise both ends may decide
# in the same moment, one to close and one to send, and a request fails that no rotation has to do with.
_KEEP_ALIVE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """
    One request to be sent.

    Attributes:
        name: What kind of request it is, for the report.

        method: GET, POST, ...

        path: Path and query, below the address of the service.

        headers: Headers of its own.

        body: Sent as JSON; None for none.
    """

    name: str
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None


class Workload(Protocol):
    """What the clients ask for, and what they expect of an answer."""

    def plan(self, client: int) -> RequestPlan:
        """Choose the next request of client number *client*."""
        ...

    def judge(self, client: int, request: RequestPlan, response: httpx.Response) -> str | None:
        """
        Look at a successful answer, and remember what it promised.

        Returns:
            What is wrong with it; None if it is right.
        """
        ...

    async def inspect(self, service: httpx.AsyncClient) -> tuple[str, ...]:
        """
        Check, once all requests are answered, that everything is there that answers have promised.

        Returns:
            What is wrong, in one sentence each.
        """
        ...


class Load:
    """
    The clients.

    Not safe for threads: everything happens in the event loop that ``run`` is awaited in.
    """

    def __init__(
        self,
        url: str,
        workload: Workload,
        *,
        clients: int = 8,
        pause_seconds: float = 0.02,
        most_requests: int | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """
        Prepare the clients; nothing is sent yet.

        Args:
            url: Address of the service.

            workload: What to send.

            clients: How many at once.

            pause_seconds: How long a client thinks between an answer and its next request.

            most_requests: Where to end even if nobody asks to; None for never.

            transport: What requests go through instead of the network.
        """
        self.requests: int = 0
        self.failed: int = 0
        self._url = url
        self._workload = workload
        self._clients = clients
        self._pause_seconds = pause_seconds
        self._most_requests = most_requests
        self._transport = transport
        self._outcomes: list[RequestRecord] = []

    def take_outcomes(self, *, until: float) -> list[RequestRecord]:
        """
        Hand over the outcomes of answered requests that started before *until*, each of them once.

        They are forgotten here: a drill may run for days.  A request that is answered only later is handed
        over the next time.
        """
        taken = [outcome for outcome in self._outcomes if outcome.started < until]
        self._outcomes = [outcome for outcome in self._outcomes if outcome.started >= until]
        return taken

    async def run(self, stop: asyncio.Event) -> None:
        """Send requests until *stop* is set.  What was sent by then is waited for."""
        limits = httpx.Limits(max_connections=self._clients, keepalive_expiry=_KEEP_ALIVE_SECONDS)
        # trust_env: a proxy of this machine has no business between the drill and a service beside it.
        async with (
            httpx.AsyncClient(
                base_url=self._url,
                limits=limits,
                timeout=ANSWER_TIMEOUT_SECONDS,
                trust_env=False,
                transport=self._transport,
            ) as service,
            asyncio.TaskGroup() as group,
        ):
            for client in range(self._clients):
                group.create_task(self._behave(client, service, stop))

    async def _behave(self, client: int, service: httpx.AsyncClient, stop: asyncio.Event) -> None:
        while not stop.is_set() and not self._enough():
            self.requests += 1
            outcome = await self._send(client, service, self._workload.plan(client))
            self.failed += outcome.failed
            self._outcomes.append(outcome)
            await _wait(stop, self._pause_seconds)

    def _enough(self) -> bool:
        return self._most_requests is not None and self.requests >= self._most_requests

    async def _send(self, client: int, service: httpx.AsyncClient, request: RequestPlan) -> RequestRecord:
        started = time.monotonic()
        status = None
        try:
            response = await service.request(
                request.method, request.path, headers=dict(request.headers), json=request.body
            )
            status = response.status_code
            problem = (
                self._workload.judge(client, request, response)
                if response.is_success
                else response.text[:300]
            )
        except Exception as error:  # noqa: BLE001 - no answer, or one that the workload can not even read
            problem = f"{type(error).__name__}: {error}"
        return RequestRecord(
            name=request.name,
            started=started,
            seconds=time.monotonic() - started,
            status=status,
            problem=problem,
        )


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
