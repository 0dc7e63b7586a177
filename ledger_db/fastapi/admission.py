"""
Who may use a connection now, and who waits, for how long?

A pool makes a request wait in a thread.  Threads are few: as many requests as there are threads wait, and
those that have a connection find no thread to finish in.  So requests wait here, before the pool, in the
order in which they came, and a waiting one costs a future.  One that is sent away is told so in the words of
its protocol, whichever error handlers are installed.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from fastapi import HTTPException, WebSocketException, status
from starlette.requests import HTTPConnection

from ledger_db.errors import Saturated

_RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionOptions:
    """
    How requests are let in.

    Attributes:
        reserve: Connections of an engine that no request may take, so that what does not ask here gets on
            while requests hold all the others: session factories in threads, renewals, the check of a new
            password.  With none, threads that wait for a connection could take the last thread from those
            that have one.  An engine's only connection is never reserved.

        patience_seconds: How long a request waits; None for ``pool_timeout_seconds``.

        most_waiting: How many may wait; the next one is refused at once.  None for any number: the patience
            bounds what each of them waits.
    """

    __module__ = "ledger_db.fastapi"

    reserve: int = 1
    patience_seconds: float | None = None
    most_waiting: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionStatus:
    """
    The counters of an `Admission`.

    Attributes:
        places: How many may be in at the same time.

        in_use: How many are.

        waiting: How many wait.

        refused: How many were sent away since the start.
    """

    __module__ = "ledger_db.fastapi"

    places: int
    in_use: int
    waiting: int
    refused: int


class Admission:
    """
    A fair semaphore: a fixed number of places, given out in the order of asking.

    Belongs to one event loop, and needs no lock for that reason.  A place that becomes free goes straight to
    the one who waits longest: nobody who comes later can snatch it in between.
    """

    def __init__(self, places: int, *, patience_seconds: float, most_waiting: int | None = None) -> None:
        self._places = places
        self._patience_seconds = patience_seconds
        self._most_waiting = most_waiting
        self._in_use = 0
        self._refused = 0
        # In order, and one that gives up leaves from the middle.  Somebody waits only while no place is free.
        self._waiting: OrderedDict[asyncio.Future[bool], None] = OrderedDict()

    @property
    def status(self) -> AdmissionStatus:
        """What is going on now."""
        return AdmissionStatus(
            places=self._places, in_use=self._in_use, waiting=len(self._waiting), refused=self._refused
        )

    async def enter(self) -> None:
        """
        Take a place; `leave` gives it back.

        Raises:
            Saturated: None became free in time, or too many are waiting already.  No place was taken.
        """
        if self._in_use < self._places:
            self._in_use += 1
        elif self._most_waiting is not None and len(self._waiting) >= self._most_waiting:
            self._refuse(0.0)
        elif not await self._wait():
            self._refuse(self._patience_seconds)

    def leave(self) -> None:
        """Give the place back, or rather on."""
        while self._waiting:
            following, _ = self._waiting.popitem(last=False)
            # Done already: it was cancelled a moment ago, and has not come to say so.
            if not following.done():
                following.set_result(True)
                return
        self._in_use -= 1

    async def _wait(self) -> bool:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiting[turn] = None
        expiry = loop.call_later(self._patience_seconds, self._expire, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            # Given the place and cancelled, both before this task could run: nobody else knows of the place.
            if not turn.cancelled() and turn.done() and turn.result():
                self.leave()
            raise
        finally:
            expiry.cancel()
            self._waiting.pop(turn, None)

    def _expire(self, turn: "asyncio.Future[bool]") -> None:
        if not turn.done():
            self._waiting.pop(turn, None)
            turn.set_result(False)

    def _refuse(self, waited_seconds: float) -> None:
        self._refused += 1
        raise Saturated(
            f"no connection was free within {waited_seconds:.1f} s (places={self._places}, "
            f"in use={self._in_use}, waiting={len(self._waiting)}); try again later, shorten the "
            "transactions, or raise LEDGER_DB_POOL_SIZE"
        )


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
