"""A request to an ASGI application in this process: no socket, no client library, nothing else to measure."""

from collections.abc import MutableMapping
from typing import Any

from fastapi import FastAPI

Message = MutableMapping[str, Any]


async def request(app: FastAPI, path: str) -> int:
    """Send a GET request, and return the status of the answer; 500 for whatever the application raises."""
    status = 500

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }
    try:
        await app(scope, receive, send)
    except Exception:  # noqa: BLE001 - it was answered with a 500, which is what is counted
        return status
    return status
