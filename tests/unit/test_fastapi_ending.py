"""Does a session end as a whole, whatever becomes of its request?"""

import asyncio
import gc
import logging
import threading
from typing import Any

import pytest
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from ledger_db.fastapi.admission import Admission
from ledger_db.fastapi.ending import Finishers
from ledger_db.fastapi.places import ThreadPlace
from tests.support.events import event_of, fields_of


class Ending:
    """The end of a session that takes until it may go on."""

    def __init__(self, error: Exception | None = None) -> None:
        self.began, self.may_go_on, self.over = threading.Event(), threading.Event(), threading.Event()
        self._error = error

    def __call__(self, session: Session) -> None:
        """End *session*."""
        self.began.set()
        assert self.may_go_on.wait(20)
        self.over.set()
        if self._error is not None:
            raise self._error


async def start(finishers: Finishers, ending: Ending) -> tuple[Admission, asyncio.Task[None]]:
    """Let a request come to its end."""
    admission = Admission(1, patience_seconds=1)
    place = ThreadPlace(admission, HTTPConnection({"type": "http"}))
    await place.enter()
    request = asyncio.create_task(finishers.run(ending, Session(), place))
    return admission, request


async def cancel(request: "asyncio.Task[None]") -> None:
    """Cancel *request*, and wait until it has noticed."""
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()


async def test_a_cancelled_request_leaves_no_session_half_ended() -> None:
    """Its end goes on without it, and the place is given back when there is a connection for the next one."""
    finishers, ending = Finishers(1), Ending()
    admission, request = await start(finishers, ending)
    await asyncio.to_thread(ending.began.wait, 20)
    await cancel(request)

    assert (finishers.busy, admission.status.in_use) == (1, 1)

    ending.may_go_on.set()
    await finishers.drain(20)

    assert ending.over.is_set()
    assert (finishers.busy, admission.status.in_use) == (0, 0)


async def test_a_cancellation_may_come_while_no_thread_is_free() -> None:
    """A session that has not begun to end yet ends nevertheless."""
    finishers, first, second = Finishers(1), Ending(), Ending()
    _, ahead = await start(finishers, first)
    await asyncio.to_thread(first.began.wait, 20)
    admission, request = await start(finishers, second)
    await asyncio.sleep(0)
    await cancel(request)
    for ending in (first, second):
        ending.may_go_on.set()
    await finishers.drain(20)
    await ahead

    assert second.over.is_set()
    assert admission.status.in_use == 0


async def test_an_error_that_nobody_waits_for_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Asyncio does not report it as one that was never retrieved: the request is gone, and nothing failed."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    finishers, ending = Finishers(1), Ending(ValueError("refused"))
    with caplog.at_level(logging.DEBUG, "ledger_db.fastapi"):
        _, request = await start(finishers, ending)
        await asyncio.to_thread(ending.began.wait, 20)
        await cancel(request)
        ending.may_go_on.set()
        await finishers.drain(20)
    gc.collect()

    assert [(event_of(record), fields_of(record)["cause"]) for record in caplog.records] == [
        ("session.end_unheard", "ValueError: refused")
    ]
    assert reported == []


async def test_an_error_that_somebody_waits_for_is_theirs() -> None:
    """A COMMIT that is refused is an error of its request."""
    finishers, ending = Finishers(1), Ending(ValueError("refused"))
    ending.may_go_on.set()
    admission, request = await start(finishers, ending)
    with pytest.raises(ValueError, match="refused"):
        await request

    assert admission.status.in_use == 0


async def test_a_service_that_stops_waits_for_sessions_but_not_for_ever() -> None:
    """A server that never answers does not keep it from stopping."""
    finishers, ending = Finishers(1), Ending()
    _, request = await start(finishers, ending)
    await asyncio.to_thread(ending.began.wait, 20)
    await finishers.drain(0.01)

    assert finishers.busy == 1

    ending.may_go_on.set()
    await request
