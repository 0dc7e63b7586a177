"""Do the clients of a drill send what they should, and tell the truth about the answers?"""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from ledger_db.drill.load import Load, RequestPlan
from ledger_db.drill.report import RequestRecord

Handler = Callable[[httpx.Request], httpx.Response]


class CountingWorkload:
    """Sends numbered requests, and expects an answer to hold the word ``right``."""

    def __init__(self) -> None:
        self.planned: dict[int, int] = {}

    def plan(self, client: int) -> RequestPlan:
        """Number the requests of each client."""
        self.planned[client] = self.planned.get(client, 0) + 1
        return RequestPlan("ask", "POST", f"/{client}", headers={"X-Number": "1"}, body={"client": client})

    def judge(self, client: int, request: RequestPlan, response: httpx.Response) -> str | None:
        """Look for the word."""
        return None if response.json()["answer"] == "right" else "a wrong answer"

    async def inspect(self, service: httpx.AsyncClient) -> tuple[str, ...]:
        """Find nothing wrong."""
        return ()


async def run_load(
    handler: Handler, *, requests: int = 6, clients: int = 2
) -> tuple[Load, list[RequestRecord]]:
    """Send some requests to *handler* and return what became of them."""
    load = Load(
        "http://service",
        CountingWorkload(),
        clients=clients,
        pause_seconds=0,
        most_requests=requests,
        transport=httpx.MockTransport(handler),
    )
    await load.run(asyncio.Event())
    return load, load.take_outcomes(until=float("inf"))


def answer_right(request: httpx.Request) -> httpx.Response:
    """Answer as the workload expects."""
    return httpx.Response(201, json={"answer": "right"})


async def test_all_clients_send_until_there_were_enough() -> None:
    """The number of requests is bounded, and everybody takes part."""
    paths = []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return answer_right(request)

    load, outcomes = await run_load(handler)

    assert sorted(set(paths)) == ["/0", "/1"]
    assert (load.requests, load.failed, len(outcomes)) == (6, 0, 6)


async def test_headers_and_body_are_sent() -> None:
    """A request is sent as it was planned."""
    seen = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.headers["X-Number"], request.content))
        return answer_right(request)

    await run_load(handler, requests=1, clients=1)

    assert seen == [("POST", "1", b'{"client":0}')]


def refuse(request: httpx.Request) -> httpx.Response:
    """Fail as a service that is down."""
    raise httpx.ConnectError("connection refused")


@pytest.mark.parametrize(
    ("handler", "status", "problem"),
    [
        (lambda _: httpx.Response(503, text="try again later"), 503, "try again later"),
        (lambda _: httpx.Response(302, text="elsewhere"), 302, "elsewhere"),
        (lambda _: httpx.Response(200, json={"answer": "else"}), 200, "a wrong answer"),
        (lambda _: httpx.Response(200, text="<html>"), 200, "JSONDecodeError"),
        (lambda _: httpx.Response(200, json=[]), 200, "TypeError"),
        (refuse, None, "ConnectError: connection refused"),
    ],
    ids=["status", "redirect", "wrong", "unreadable", "another shape", "no answer"],
)
async def test_a_failure_is_recorded_and_not_repeated(
    handler: Handler, status: int | None, problem: str
) -> None:
    """Whatever goes wrong is one failed request with its reason, and the next one is another request."""
    load, outcomes = await run_load(handler, requests=3, clients=1)

    assert (load.requests, load.failed) == (3, 3)
    assert all(outcome.failed and outcome.status == status for outcome in outcomes)
    assert all(problem in str(outcome.problem) for outcome in outcomes)


async def test_outcomes_are_handed_over_once_and_by_their_start() -> None:
    """Every request belongs to exactly one stretch of time."""
    load, _ = await run_load(answer_right, requests=0)
    load._outcomes = [
        RequestRecord("ask", started=at, seconds=9, status=200, problem=None) for at in (1.0, 2.0, 3.0)
    ]

    assert [outcome.started for outcome in load.take_outcomes(until=3.0)] == [1.0, 2.0]
    assert [outcome.started for outcome in load.take_outcomes(until=9.0)] == [3.0]
    assert load.take_outcomes(until=9.0) == []


async def test_a_request_under_way_is_waited_for_when_the_load_ends() -> None:
    """Ending a drill does not turn a slow answer into a failure."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def handler(request: httpx.Request) -> httpx.Response:
        asked.set()
        await answer.wait()
        return answer_right(request)

    stop = asyncio.Event()
    load = Load("http://service", CountingWorkload(), clients=1, transport=httpx.MockTransport(handler))
    running = asyncio.create_task(load.run(stop))
    await asked.wait()
    stop.set()
    answer.set()
    await running

    assert (load.requests, load.failed) == (1, 0)
