"""
When does a request have a place, and what does its client hear if there is none?

On a loop:    taken at BEGIN, when a connection is about to be, and given back with it.  A request that has
              committed, or has executed nothing, is in nobody's way.
In a thread:  taken before the endpoint runs, as a thread must not wait for one; given back in the same way.
              When such an endpoint begins again, it goes to the pool, and requests that come later wait.

One that is sent away is told so in the words of its protocol, whichever error handlers are installed.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from fastapi import HTTPException, WebSocketException, status
from sqlalchemy.util import await_only
from starlette.requests import HTTPConnection

from ledger_db.errors import Saturated
from ledger_db.fastapi.admission import Admission

_RETRY_AFTER_SECONDS = 1


class Busy(Saturated, HTTPException):
    """
    A `Saturated` that FastAPI itself answers with 503 and Retry-After.

    A handler for `Saturated` or what it derives from goes before that: those classes come first here.
    """

    def __init__(self, message: str) -> None:
        HTTPException.__init__(
            self,
            status.HTTP_503_SERVICE_UNAVAILABLE,
            "all connections to the database are in use; try again later",
            {"Retry-After": str(_RETRY_AFTER_SECONDS)},
        )
        self.message = message

    def __str__(self) -> str:
        return self.message


class BusyWebSocket(Saturated, WebSocketException):
    """The same for a websocket: closed with 1013, "try again later"."""

    def __init__(self, message: str) -> None:
        WebSocketException.__init__(self, status.WS_1013_TRY_AGAIN_LATER, "try again later")
        self.message = message

    def __str__(self) -> str:
        return self.message


class Place:
    """
    A place for each transaction of a session on the event loop.

    It can be given back as often as one likes, and counts once.

    Args:
        admission: Who gives it.

        connection: Whose client is told if there is none.

    Attributes:
        taken: Whether the transaction that runs now has had it.  It may have been handed on since.
    """

    __slots__ = ("_admission", "_connection", "_held", "taken")

    def __init__(self, admission: Admission, connection: HTTPConnection) -> None:
        self.taken: bool = False
        self._admission = admission
        self._connection = connection
        self._held = False

    async def enter(self) -> None:
        """
        Take it, when it is one's turn.

        Raises:
            Saturated: As the client can be told of it.
        """
        try:
            await self._admission.enter()
        except Saturated as error:
            raise self._told(str(error)) from None
        self.taken = self._held = True

    def take(self) -> None:
        """Take it for a transaction that begins; waits inside of SQLAlchemy's greenlet."""
        await_only(self.enter())

    def leave(self) -> None:
        """Give it back."""
        if self._held:
            self._held = False
            self._admission.leave()

    def hand_on(self) -> None:
        """
        Give it back before the COMMIT that ends the request.

        So that the next one comes while the connection is on its way back: if nobody waits, the pool closes
        what it has beyond its size, and has to open it again.
        """
        self.leave()

    def end(self) -> None:
        """Give it back: the transaction is over."""
        self.taken = False
        self.leave()

    def overdue(self) -> Saturated:
        """Return what to raise for a place without a connection: others have it, who do not ask here."""
        return self._told(
            "a request was let in, and no connection came back to the pool in time; try again later, look "
            "for session factories and engines that hold connections for long, or raise LEDGER_DB_POOL_SIZE"
        )

    def _told(self, message: str) -> Saturated:
        return (BusyWebSocket if self._connection.scope["type"] == "websocket" else Busy)(message)


class ThreadPlace(Place):
    """The same for a session that is used in a thread; for its first transaction, `enter` comes before."""

    __slots__ = ("_counted", "_loop")

    def __init__(self, admission: Admission, connection: HTTPConnection) -> None:
        super().__init__(admission, connection)
        self._loop = asyncio.get_running_loop()
        # Written where the session is used.  Spares the way to the loop at the end of each ordinary request.
        self._counted = True

    def take(self) -> None:
        """Count one more that uses a connection.  It does not wait, except for the pool."""
        self.taken = self._counted = True
        self._on_loop(self._overdraw)

    def hand_on(self) -> None:
        """Give it back before the COMMIT; the endpoint has returned, and its thread asks for nothing more."""
        self._counted = False
        super().hand_on()

    def end(self) -> None:
        """Give it back, from whichever thread."""
        self.taken = False
        if self._counted:
            self._counted = False
            self._on_loop(self.leave)

    def _overdraw(self) -> None:
        if not self._held:
            self._held = True
            self._admission.overdraw()

    def _on_loop(self, work: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and with it all that was counted
            self._loop.call_soon_threadsafe(work)
