"""
Who may use a connection now, and who waits, for how long?

A pool makes a request wait in a thread.  Threads are few: as many requests as there are threads wait, and
those that have a connection find no thread to finish in.  So requests wait here, before the pool, in the
order in which they came, and a waiting one costs a future.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from ledger_db.errors import Saturated


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
        places: How many requests may use a connection at the same time.

        in_use: How many places are taken: for a connection in use or, by a ``def`` endpoint, before it runs.
            More than *places* while such endpoints have committed and go on; nobody is let in meanwhile.

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

    Args:
        places: How many there are.

        patience_seconds: How long one waits for one.

        most_waiting: How many may wait; None for any number.

        in_advance: Whether places are taken before there is a use for a connection; for the message.
    """

    def __init__(
        self,
        places: int,
        *,
        patience_seconds: float,
        most_waiting: int | None = None,
        in_advance: bool = False,
    ) -> None:
        self._places = places
        self._patience_seconds = patience_seconds
        self._most_waiting = most_waiting
        self._in_advance = in_advance
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

    def overdraw(self) -> None:
        """
        Take a place without waiting for it, be there one or not; `leave` gives it back.

        For who cannot wait here, and has to be counted: until there are places again, nobody is let in.
        """
        self._in_use += 1

    def leave(self) -> None:
        """Give the place back, or rather on."""
        while self._waiting and self._in_use <= self._places:
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
        in_advance = (
            "def endpoints have a place from before they run until they commit, roll back or close; "
            if self._in_advance
            else ""
        )
        raise Saturated(
            f"no connection was free within {waited_seconds:.1f} s (places={self._places}, "
            f"in use={self._in_use}, waiting={len(self._waiting)}); {in_advance}try again later, shorten the "
            "transactions, or raise LEDGER_DB_POOL_SIZE"
        )
