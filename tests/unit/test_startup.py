"""Does the startup check wait for what may come, and for nothing else?"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from ledger_db import (
    ConfigurationError,
    CredentialProvider,
    Credentials,
    CredentialsInvalid,
    CredentialsUnavailable,
    Password,
    ServerUnreachable,
)
from ledger_db.answers.aws_parties import tell
from ledger_db.connections.engines import EngineOptions
from ledger_db.connections.startup import Note, async_check, check
from ledger_db.credentials.model import Stage
from ledger_db.manager.opening import Opening
from ledger_db.sqlite.file import SqliteFile
from ledger_db.sqlite.server import SqliteServer
from ledger_db.testing import ScriptedSource
from tests.support.events import event_of, fields_of

REFUSED = ConnectionRefusedError(111, "Connection refused")
NO_DATABASE = Exception('FATAL:  database "nope" does not exist')


class Probe:
    """Fails as scripted, then answers."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self) -> str:
        """Fail or answer."""
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "ready"

    async def on_loop(self) -> str:
        """Fail or answer, asynchronously."""
        return self()


def test_a_server_that_comes_up_late_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """Each retry and the success are logged, with the server's name."""
    probe = Probe(REFUSED, REFUSED)
    with caplog.at_level(logging.INFO):
        assert check("PostgreSQL at h:1", probe, timeout_seconds=10) == "ready"

    # Of this server: a start that another test has given up may still be on its way in its thread.
    of_it = [record for record in caplog.records if fields_of(record).get("server") == "PostgreSQL at h:1"]
    assert [event_of(record) for record in of_it] == [
        "startup.retrying",
        "startup.retrying",
        "startup.checked",
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [(NO_DATABASE, ConfigurationError), (CredentialsInvalid("field"), CredentialsInvalid)],
)
def test_what_only_a_person_can_mend_fails_at_once(error: Exception, expected: type[Exception]) -> None:
    """One call, no wait, and a message that says so."""
    probe = Probe(error, error)
    with pytest.raises(expected):
        check("PostgreSQL at h:1", probe, timeout_seconds=10)
    assert probe.calls == 1


def test_a_server_that_never_comes_is_given_up_in_time() -> None:
    """The error names the server, the time and the last cause."""
    with pytest.raises(ServerUnreachable, match=r"PostgreSQL at h:1 was not ready within .* refused"):
        check("PostgreSQL at h:1", Probe(*[REFUSED] * 99), timeout_seconds=0.3)


async def test_the_asynchronous_check_does_the_same() -> None:
    """Retry and success, on a loop."""
    probe = Probe(REFUSED)
    assert await async_check("x", probe.on_loop, timeout_seconds=10) == "ready"
    assert probe.calls == 2


async def test_an_attempt_that_hangs_is_cancelled() -> None:
    """The time allowed is kept even if one attempt never ends."""
    with pytest.raises(ServerUnreachable, match=r"x was not ready"):
        await async_check("x", asyncio.Event().wait, timeout_seconds=0.1)


class Server(SqliteServer):
    """Its credentials are known or not, and it is checked as told."""

    def __init__(self, name: str, source: ScriptedSource, on_check: Callable[[], object]) -> None:
        super().__init__(SqliteFile.of_url("sqlite://"), options=EngineOptions())
        self.name = name
        self.provider = CredentialProvider(source)
        self.on_check = on_check

    def check(self, *, timeout_seconds: float, note: Note = lambda error: None) -> None:
        """Do as told."""
        self.on_check()


KNOWN = Credentials("app", Password("pw"), "v1", "h", 1, "d")


def test_a_thread_that_hangs_does_not_hold_the_start_up() -> None:
    """What no driver's timeout covers (a resolver) is left behind."""
    never = threading.Event()
    well = Server("Redis", ScriptedSource(KNOWN), lambda: None)
    hanging = Server("PostgreSQL", ScriptedSource(KNOWN), lambda: never.wait(30))
    try:
        with pytest.raises(ServerUnreachable, match=r"did not end within 0\.1 s, for PostgreSQL: "):
            Opening([hanging, well], 0.1).make_ready()
    finally:
        never.set()


class Unread(ScriptedSource):
    """Asks somebody who is silent."""

    def __init__(self, party: str, released: threading.Event, *, after: Exception | None = None) -> None:
        super().__init__(KNOWN)
        self.name = f"secret-of-{party}"
        self._party = party
        self._released = released
        self._after = after

    def fetch(self, stage: Stage) -> Credentials | None:
        """Fail once, if that was said; then wait."""
        failure, self._after = self._after, None
        if failure is not None:
            raise failure
        tell(self._party)
        self._released.wait(30)
        return super().fetch(stage)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What ends every silence."""
    event = threading.Event()
    yield event
    event.set()


def test_a_secret_that_is_not_read_is_told_before_a_server_that_hangs(
    released: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """The step that was under way is named, and the class does not hang on chance."""
    hanging = Server("Redis", ScriptedSource(KNOWN), lambda: released.wait(30))
    unread = Server("PostgreSQL", Unread("STS", released), lambda: None)
    with pytest.raises(CredentialsUnavailable) as raised:
        Opening([hanging, unread], 0.1).make_ready()

    assert str(raised.value) == (
        "startup did not end within 0.1 s: 'secret-of-STS' was not read, still waiting for STS; check the "
        "network on the way to it (VPC endpoint, proxy, DNS); or raise LEDGER_DB_STARTUP_TIMEOUT_SECONDS"
    )
    assert "startup.unreachable" in [event_of(record) for record in caplog.records]


async def test_what_was_met_before_a_silence_is_told_too(released: threading.Event) -> None:
    """An agent that refused at first, then a service that says nothing."""
    met = CredentialsUnavailable("the agent was busy")
    unread = Server("PostgreSQL", Unread("Secrets Manager", released, after=met), lambda: None)
    with pytest.raises(
        CredentialsUnavailable, match="still waiting for Secrets Manager; before that Cred"
    ) as raised:
        await Opening([unread], 0.5).async_make_ready()

    assert raised.value.__cause__ is met


def test_a_source_of_somebodys_own_need_not_say_whom_it_asks(released: threading.Event) -> None:
    """It is named itself."""

    class Own(Unread):
        def fetch(self, stage: Stage) -> Credentials | None:
            self._released.wait(30)
            return KNOWN

    with pytest.raises(
        CredentialsUnavailable, match="'secret-of-vault' was not read, still waiting for its s"
    ):
        Opening([Server("Redis", Own("vault", released), lambda: None)], 0.1).make_ready()


def test_the_first_failure_ends_the_wait_for_the_others() -> None:
    """A malformed secret is reported at once, although another server is still being waited for."""
    never = threading.Event()
    hanging = Server("PostgreSQL", ScriptedSource(KNOWN), lambda: never.wait(30))
    malformed = Server("Redis", ScriptedSource(CredentialsInvalid("field")), lambda: None)
    try:
        with pytest.raises(CredentialsInvalid):
            Opening([hanging, malformed], 30).make_ready()
    finally:
        never.set()
