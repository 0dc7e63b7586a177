"""What does a client hear when every connection is in use, whichever error handlers are installed?"""

from typing import TYPE_CHECKING

from fastapi import HTTPException, WebSocketException, status
from starlette.requests import HTTPConnection

from ledger_db.errors import Saturated
from ledger_db.fastapi.admission import Admission

if TYPE_CHECKING:
    import asyncio

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
    """A place that was taken; it can be given back as often as one likes, and counts once."""

    __slots__ = ("_admission",)

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission

    def leave(self) -> None:
        """Give it back."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.leave()

    def keep_until(self, task: "asyncio.Task[None]") -> None:
        """Give it back when *task* is done, and not before; `leave` does nothing any more."""
        admission, self._admission = self._admission, None
        if admission is not None:
            task.add_done_callback(lambda _: admission.leave())


async def admit(connection: HTTPConnection, admission: Admission) -> Place:
    """
    Take a place for a request or a websocket.

    Raises:
        Saturated: As a client of this *connection* can be told of it.
    """
    try:
        await admission.enter()
    except Saturated as error:
        raise _told_to(connection, str(error)) from None
    return Place(admission)


def overdue(connection: HTTPConnection) -> Saturated:
    """Return the same for a place without a connection: the pool gave it to others, who do not ask here."""
    return _told_to(
        connection,
        "a request was let in, and no connection came back to the pool in time; try again later, look for "
        "session factories and engines that hold connections for long, or raise LEDGER_DB_POOL_SIZE",
    )


def _told_to(connection: HTTPConnection, message: str) -> Saturated:
    return (BusyWebSocket if connection.scope["type"] == "websocket" else Busy)(message)
