"""Does a probe tell the truth, soon, and at the price of one question?"""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from ledger_db.connections.probe import Prober
from ledger_db.errors import ConfigurationError, LoginRefused, ManagerClosed, ServerUnreachable
from ledger_db.testing import ManualClock
from tests.support.events import event_of, fields_of
from tests.support.waiting import eventually


class Server:
    """Counts how often it is asked, and answers as it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()

    def ask(self) -> None:
        """Answer, once it may."""
        self.asked += 1
        self.may_answer.wait(20)
        if self.error is not None:
            raise self.error


def prober(server: Server, clock: ManualClock | None = None) -> Prober:
    """Make a prober of one server."""
    return Prober({"PostgreSQL": server.ask}, now=clock or ManualClock())


def test_a_crowd_costs_one_question() -> None:
    """However many load balancers ask in one second, the server is asked once."""
    server, clock = Server(), ManualClock()
    probing = prober(server, clock)
    server.may_answer.clear()
    with ThreadPoolExecutor(20) as crowd:
        answers = [crowd.submit(probing.probe) for _ in range(20)]
        server.may_answer.set()
        reports = {answer.result() for answer in answers}
    probing.probe()

    assert (server.asked, len(reports)) == (1, 1)
    clock.advance(1.1)
    probing.probe()
    assert server.asked == 2


def test_an_answer_that_is_too_old_is_asked_anew() -> None:
    """Who needs to know exactly asks for an answer of its own."""
    server = Server()
    probing = prober(server)
    for _ in range(3):
        probing.probe(max_age_seconds=0)

    assert server.asked == 3


def test_a_server_that_hangs_is_reported_in_time_and_asked_once() -> None:
    """The answer comes when patience is over; after that at once, and no second thread is stuck."""
    server, clock, healthy = Server(), ManualClock(), Server()
    probing = Prober({"PostgreSQL": server.ask, "Redis": healthy.ask}, patience_seconds=0.05, now=clock)
    server.may_answer.clear()

    hanging, answering = probing.probe().servers
    assert (hanging.ok, hanging.problem) == (False, "no answer within 0.05 s")
    assert answering.ok

    clock.advance(10)
    assert not probing.probe().ok
    assert (server.asked, healthy.asked) == (1, 2)

    server.may_answer.set()
    eventually(lambda: probing.probe(max_age_seconds=0).ok, "it is well again")


async def test_an_event_loop_goes_on_while_a_server_hangs() -> None:
    """The other endpoints answer while a probe waits; whoever stops waiting does not stop the others."""
    server = Server()
    probing = prober(server)
    server.may_answer.clear()
    impatient = asyncio.create_task(probing.async_probe())
    patient = asyncio.create_task(probing.async_probe())
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    server.may_answer.set()

    assert impatient.cancelled()
    assert (await patient).ok
    assert server.asked == 1


def test_an_answer_after_the_loop_has_ended_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A service that ends while its server hangs says nothing about loops that are closed."""
    server = Server()
    probing = Prober({"PostgreSQL": server.ask}, patience_seconds=0.01)
    server.may_answer.clear()

    assert not asyncio.run(probing.async_probe()).ok

    server.may_answer.set()
    eventually(lambda: probing.probe(max_age_seconds=0).ok, "it has answered")
    assert [record for record in caplog.records if record.name.startswith(("concurrent", "asyncio"))] == []


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OperationalError("SELECT 1", {}, Exception("connection refused by 10.0.0.1")), "cannot be reached"),
        (ServerUnreachable("10.0.0.1"), "cannot be reached"),
        (DBAPIError("x", {}, Exception("gone"), connection_invalidated=True), "cannot be reached"),
        (OperationalError("x", {}, Exception("too many clients already")), "cannot be reached"),
        (LoginRefused("user at 10.0.0.1"), "the login is refused"),
        (ManagerClosed("closed"), "the manager is closed"),
        (ConfigurationError("10.0.0.1"), "only a person can mend it: see the log"),
        (RuntimeError("10.0.0.1"), "only a person can mend it: see the log"),
    ],
    ids=repr,
)
def test_a_problem_is_told_by_its_kind(error: Exception, problem: str) -> None:
    """The text of an error names users and addresses, and is for the log."""
    server = Server()
    server.error = error

    (answer,) = prober(server).probe().servers
    assert (answer.ok, answer.latency_seconds, answer.problem) == (False, None, problem)


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    """Two lines, however often it is asked in between; the first has the cause."""
    server = Server()
    probing = prober(server)
    with caplog.at_level(logging.INFO, "ledger_db.connections.probe"):
        for error in (None, ServerUnreachable("away"), ServerUnreachable("away"), None, None):
            server.error = error
            probing.probe(max_age_seconds=0)

    assert [event_of(record) for record in caplog.records] == ["probe.failed", "probe.recovered"]
    assert fields_of(caplog.records[0])["cause"] == "ServerUnreachable: away"


def test_a_process_without_threads_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe never raises, and the next one tries again."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server, clock = Server(), ManualClock()
    probing = prober(server, clock)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        (answer,) = probing.probe().servers

    assert (answer.ok, answer.problem) == (False, "no thread is left to ask it")
    clock.advance(1.1)
    assert probing.probe().ok


def test_a_child_process_does_not_wait_for_its_parents_thread() -> None:
    """What hung in the parent when it forked is not there in the child, which asks for itself."""
    server = Server()
    probing = Prober({"PostgreSQL": server.ask}, patience_seconds=0.01)
    server.may_answer.clear()
    probing.probe()

    probing.after_fork()
    probing.probe()

    server.may_answer.set()
    assert server.asked == 2
