"""What happens to a request before it reaches the Trust Ledger's endpoints?"""

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request

from examples.trust_ledger.logs import request_id
from examples.trust_ledger.middleware import LimitBodies, NameRequests

app = FastAPI()
app.add_middleware(LimitBodies, most_bytes=1000)
app.add_middleware(NameRequests)


@app.post("/length")
async def measure(request: Request) -> dict[str, object]:
    """Say how long the body is, and as which request it came."""
    return {"length": len(await request.body()), "request": request_id.get()}


@pytest.fixture
async def service() -> AsyncIterator[httpx.AsyncClient]:
    """Run an application with one endpoint."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        yield client


async def in_pieces(length: int) -> AsyncIterator[bytes]:
    """Send a body whose length is not announced."""
    for _ in range(length // 10):
        yield b"0123456789"


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in pieces"])
async def test_a_body_up_to_the_limit_is_read(service: httpx.AsyncClient, *, announced: bool) -> None:
    """The limit itself is allowed."""
    answer = await service.post("/length", content=b"x" * 1000 if announced else in_pieces(1000))

    assert answer.json()["length"] == 1000


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in pieces"])
async def test_a_larger_body_is_refused(service: httpx.AsyncClient, *, announced: bool) -> None:
    """Nobody fills the memory of the service, whether the length is announced or not."""
    answer = await service.post("/length", content=b"x" * 1010 if announced else in_pieces(1010))

    assert answer.status_code == 413
    assert "1000 bytes" in answer.json()["detail"]


async def test_a_request_keeps_its_name(service: httpx.AsyncClient) -> None:
    """The name that a proxy gave to a request is in the log and in the answer."""
    answer = await service.post("/length", headers={"X-Request-ID": "from-proxy_1.2"})

    assert answer.headers["X-Request-ID"] == "from-proxy_1.2"
    assert answer.json()["request"] == "from-proxy_1.2"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, '{"forged": 1}', "ü".encode("latin-1")])
async def test_a_name_that_could_mean_something_is_replaced(
    service: httpx.AsyncClient, given: str | bytes
) -> None:
    """Nobody writes lines of their own into the log."""
    headers = [(b"X-Request-ID", given if isinstance(given, bytes) else given.encode())]
    first = await service.post("/length", headers=headers)
    second = await service.post("/length", headers=headers)

    assert len(first.headers["X-Request-ID"]) == 16
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


async def test_an_answer_is_no_news(service: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """A request costs a line of the log only for those who want to see everything."""
    with caplog.at_level(logging.INFO, "examples"):
        await service.post("/length")

    assert caplog.records == []
