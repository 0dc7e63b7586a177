"""
Does each server answer, now?

Asked on connections that nobody else uses: behind a pool whose connections are all in use, a probe would
wait for as long as a request does, and say that the server is down.  Each server is asked in a thread of its
own, by one at a time, and an answer holds for a moment, so that a crowd of load balancers costs one query.
Who asks never waits longer than the patience, whatever hangs.

Secrets Manager is not asked: each call is billed and throttled.  What is known of it stands in the provider's
status.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Final

from ledger_db.answers.login_errors import find, judge
from ledger_db.answers.reason import Reason, Verdict
from ledger_db.background import in_thread
from ledger_db.errors import LoginRefused, ManagerClosed
from ledger_db.event_log import EventLog
from ledger_db.forking import at_fork
from ledger_db.redaction import describe
from ledger_db.transactions.meaning import Meaning, meaning_of

log: EventLog = EventLog(__name__)

_AWAY: Final = frozenset({Meaning.LOST, Meaning.UNAVAILABLE})
PATIENCE_SECONDS = 3.0
MAX_AGE_SECONDS = 1.0

Ask = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProbe:
    """
    What one server answered.

    Attributes:
        name: ``PostgreSQL``, ``Redis`` or ``SQLite``.

        ok: Whether it did what it was asked.

        latency_seconds: How long it took; None if there was no answer.

        problem: What kind of problem there is; never the text of an error, which names users and addresses.

        asked_at: POSIX seconds at which it was asked.
    """

    name: str
    ok: bool
    latency_seconds: float | None
    problem: str | None
    asked_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """
    What all servers of a manager answered.

    Attributes:
        ok: Whether the manager is open and every server answered well.

        servers: One entry for each configured server; none unless the manager is open.
    """

    ok: bool
    servers: tuple[ServerProbe, ...]


NOT_OPEN = ProbeReport(ok=False, servers=())


class Prober:
    """Asks the servers of one manager; from any number of threads and event loops."""

    def __init__(
        self,
        servers: Mapping[str, Ask],
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        now: Callable[[], float] = time.monotonic,
        posix_now: Callable[[], float] = time.time,
    ) -> None:
        """
        Ask nothing yet.

        Args:
            servers: By name, who asks each one: returns if it answered, raises if it did not.

            patience_seconds: The longest wait for an answer.

            now: Seconds on a clock that never goes back.

            posix_now: POSIX seconds, to say when.
        """
        self._servers = [_Asked(name, ask, now, posix_now) for name, ask in servers.items()]
        self._patience_seconds = patience_seconds
        at_fork(in_child=self.after_fork)

    def probe(self, *, max_age_seconds: float = MAX_AGE_SECONDS) -> ProbeReport:
        """
        Return what each server answers.  Never raises, and never takes longer than the patience.

        Args:
            max_age_seconds: How old an answer may be that somebody else has got.
        """
        asked = [(server, server.begin(max_age_seconds)) for server in self._servers]
        for server, answer in asked:
            wait([answer], server.left(self._patience_seconds))
        return self._report(asked)

    async def async_probe(self, *, max_age_seconds: float = MAX_AGE_SECONDS) -> ProbeReport:
        """Same as `probe`, on an event loop, without a thread of the loop's executor: all may be busy."""
        asked = [(server, server.begin(max_age_seconds)) for server in self._servers]
        for server, answer in asked:
            if not answer.done():
                await _wait(answer, server.left(self._patience_seconds))
        return self._report(asked)

    def after_fork(self) -> None:
        """Forget what threads of the parent process are asking."""
        for server in self._servers:
            server.after_fork()

    def _report(self, asked: "list[tuple[_Asked, Future[ServerProbe]]]") -> ProbeReport:
        servers = tuple(server.outcome(answer, self._patience_seconds) for server, answer in asked)
        return ProbeReport(ok=all(server.ok for server in servers), servers=servers)


class _Asked:
    """One server: who asks it now, and what it answered last."""

    def __init__(self, name: str, ask: Ask, now: Callable[[], float], posix_now: Callable[[], float]) -> None:
        self._name = name
        self._ask = ask
        self._now = now
        self._posix_now = posix_now
        self._was_ok = True
        self.after_fork()

    def after_fork(self) -> None:
        # Guards the fields below.  Never held while the server is asked.
        self._lock = threading.Lock()
        self._answer: Future[ServerProbe] | None = None
        self._began = 0.0
        self._asked_at = 0.0

    def begin(self, max_age_seconds: float) -> "Future[ServerProbe]":
        """Begin to ask, or join who asks already, or return an answer that is young enough."""
        with self._lock:
            if self._answer is not None and (
                # One that hangs is joined, not doubled: there is one connection, and one thread that waits.
                not self._answer.done() or self._now() - self._began < max_age_seconds
            ):
                return self._answer
            self._began, self._asked_at = self._now(), self._posix_now()
            self._answer = in_thread(self._run, name="ledger_db-probe")
            return self._answer

    def left(self, patience_seconds: float) -> float:
        """Return the seconds until nobody waits any more for who asks now."""
        return max(0.0, self._began + patience_seconds - self._now())

    def outcome(self, answer: "Future[ServerProbe]", patience_seconds: float) -> ServerProbe:
        """Return what *answer* has, or that there is none yet."""
        if answer.done():
            # It never raises, so what has failed is the thread.
            error = answer.exception()
            if error is not None:
                return self._failure("no thread is left to ask it", describe(error))
            return answer.result()
        return self._failure(f"no answer within {patience_seconds:g} s", "it hangs")

    def _run(self) -> ServerProbe:
        began = self._now()
        try:
            self._ask()
        except Exception as error:  # noqa: BLE001 - a driver may raise anything
            return self._failure(_problem_of(error), describe(error))
        return self._success(self._now() - began)

    def _success(self, latency_seconds: float) -> ServerProbe:
        if self._changes_to(ok=True):
            log.info("probe.recovered", server=self._name)
        return ServerProbe(
            name=self._name,
            ok=True,
            latency_seconds=latency_seconds,
            problem=None,
            asked_at=self._asked_at,
        )

    def _failure(self, problem: str, cause: str) -> ServerProbe:
        # Once an outage, not once a probe.
        if self._changes_to(ok=False):
            log.warning("probe.failed", server=self._name, problem=problem, cause=cause)
        return ServerProbe(
            name=self._name, ok=False, latency_seconds=None, problem=problem, asked_at=self._asked_at
        )

    def _changes_to(self, *, ok: bool) -> bool:
        with self._lock:
            before, self._was_ok = self._was_ok, ok
        return before != ok


async def _wait(answer: "Future[ServerProbe]", timeout_seconds: float) -> None:
    waiting = asyncio.wrap_future(answer)
    try:
        await asyncio.wait([waiting], timeout=timeout_seconds)
    finally:
        # This wait only: the answer may come when this loop is no more, and then must find nobody here.
        waiting.cancel()


def _problem_of(error: Exception) -> str:
    if isinstance(error, ManagerClosed):
        return "the manager is closed"
    if isinstance(error, LoginRefused) or judge(error) is Verdict.REFUSED:
        return "the login is refused"
    if find(error).reason is Reason.NOT_PRIMARY:
        return "takes no writes"
    if meaning_of(error) in _AWAY or judge(error) is Verdict.TRANSIENT:
        return "cannot be reached"
    return "only a person can mend it: see the log"
