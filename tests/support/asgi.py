"""How does a test run a service as a server would, without sockets?"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

Message = MutableMapping[str, Any]


@dataclass(slots=True)
class Served:
    """
    An application whose lifespan runs.

    Attributes:
        app: It.

        state: What its lifespan yielded, which a server hands to every request.

        client: Sends requests to it; what the application raises becomes a 500.
    """

    app: FastAPI
    state: dict[str, Any]
    client: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self, raise_app_exceptions=False),
            base_url="http://service",
            timeout=60,
        )

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Hand the state on, as servers do."""
        await self.app({**scope, "state": dict(self.state)}, receive, send)

    async def get(self, path: str, on_send: Callable[[Message], Awaitable[None]]) -> None:
        """Send a GET request, and show *on_send* each message before it would leave."""
        first: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            return first.pop() if first else await asyncio.Future()

        await self(_scope("http", path), receive, on_send)

    async def talk(self, path: str, texts: Sequence[str] = ()) -> list[Message]:
        """Connect to a websocket, send *texts* and disconnect; return what the application sent."""
        said: list[Message] = [{"type": "websocket.connect"}]
        said += [{"type": "websocket.receive", "text": each} for each in texts]
        heard: list[Message] = []

        async def receive() -> Message:
            return said.pop(0) if said else {"type": "websocket.disconnect", "code": 1000}

        async def send(message: Message) -> None:
            heard.append(message)

        await self(_scope("websocket", path), receive, send)
        return heard


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[Served]:
    """Start *app*, and stop it at the end."""
    async with app.router.lifespan_context(app) as state:
        served = Served(app, dict(state or {}))
        async with served.client:
            yield served


def _scope(kind: str, path: str) -> Message:
    scheme = {"http": "http", "websocket": "ws"}[kind]
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
        "server": ("service", 80),
    }
