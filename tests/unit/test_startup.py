"""Does the startup check wait for what may come, and for nothing else?"""

import asyncio
import logging
import threading

import pytest

from ledger_db import ConfigurationError, CredentialsInvalid, ServerUnreachable
from ledger_db.connections.startup import all_within, async_check, check

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

    assert [record.message for record in caplog.records] == [
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


def test_a_thread_that_hangs_does_not_hold_the_start_up() -> None:
    """What no driver's timeout covers (a resolver) is left behind."""
    never = threading.Event()
    try:
        with pytest.raises(ServerUnreachable, match=r"did not end within 0\.1 s"):
            all_within(0.1, lambda: never.wait(30), lambda: None)
    finally:
        never.set()


def test_the_first_failure_ends_the_wait_for_the_others() -> None:
    """A malformed secret is reported at once, although another server is still being waited for."""
    never = threading.Event()

    def fail() -> None:
        raise CredentialsInvalid("field")

    try:
        with pytest.raises(CredentialsInvalid):
            all_within(30, lambda: never.wait(30), fail)
    finally:
        never.set()
