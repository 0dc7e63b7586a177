"""
What happens to every request before it reaches an endpoint?

It gets a name, for the log and for whoever has to ask about it, and a body that is too large is not read.
Plain ASGI: middleware that wraps requests in objects of its own breaks streams and background tasks.
"""

import logging
import re
import secrets
import time

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from examples.trust_ledger.logs import request_id

# A name is repeated in the log and in the answer: nothing may be in it that means something there.
_SOUND_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = logging.getLogger(__name__)


class NameRequests:
    """Gives every request the name in its X-Request-ID header, or a new one, and sends it back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _SOUND_ID.fullmatch(given) else secrets.token_hex(8)
        began = time.perf_counter()

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = name
                seconds = round(time.perf_counter() - began, 4)
                answered = {"method": scope["method"], "status": message["status"], "seconds": seconds}
                log.debug("request.answered", extra=answered)
            await send(message)

        token = request_id.set(name)
        try:
            await self._app(scope, receive, send_named)
        finally:
            request_id.reset(token)


class LimitBodies:
    """Ends a request with 413 as soon as its body is known to be above a size, announced or counted."""

    def __init__(self, app: ASGIApp, *, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        expected = int(announced) if announced.isdecimal() else 0
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            # Raised where the endpoint reads, so that it is answered as every other error is.
            self._refuse_above(expected)
            message = await receive()
            received += len(message.get("body", b""))
            self._refuse_above(received)
            return message

        await self._app(scope, receive_counted, send)

    def _refuse_above(self, size_bytes: int) -> None:
        if size_bytes > self._most_bytes:
            raise HTTPException(413, f"the body is larger than {self._most_bytes} bytes; send less at a time")
