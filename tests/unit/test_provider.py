"""Does the provider know, ask, adopt and keep what it should?"""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

import pytest

from ledger_db import Credentials, CredentialsInvalid, CredentialsUnavailable, ManagerClosed, Password
from ledger_db.credentials.model import Stage
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.schedule import Schedule
from ledger_db.errors import ConfigurationError, LoginRefused, ServerUnreachable
from ledger_db.redaction import describe
from ledger_db.testing import ManualClock, ScriptedSource
from tests.support.events import event_of, fields_of

DOWN = CredentialsUnavailable("down")
DENIED = ConfigurationError("AccessDenied")


def version(name: str, *, stamp: str = "", expires_at: float | None = None) -> Credentials:
    """Return the credentials of one version."""
    return Credentials("app", Password(f"pw-{name}"), name, "h", 1, "d", stamp=stamp, expires_at=expires_at)


V1, V2, V3 = version("v1"), version("v2"), version("v3")


def loaded(source: ScriptedSource, clock: ManualClock | None = None) -> CredentialProvider:
    """Return a provider that has read its source once."""
    clock = clock or ManualClock()
    provider = CredentialProvider(source, Schedule(), now=clock, posix_now=clock, spread=lambda: 1.0)
    provider.load()
    return provider


def test_nothing_is_known_before_the_first_read() -> None:
    """Asking too early is a bug of the caller, and says so."""
    provider = CredentialProvider(ScriptedSource(V1))

    with pytest.raises(ManagerClosed, match="open the manager first"):
        _ = provider.current


def test_loading_twice_reads_once() -> None:
    """The first read is enough."""
    source = ScriptedSource(V1, V2)
    provider = loaded(source)

    assert provider.load() == V1
    assert source.reads == ["AWSCURRENT"]


def test_a_retired_provider_reads_again_once_it_is_revived() -> None:
    """What was current at the close may have rotated; until that is known nothing is in good standing."""
    source = ScriptedSource(V1, V2)
    provider = loaded(source)
    told: list[Credentials] = []
    provider.subscribe(told.append)
    provider.retire()
    provider.revive()
    assert provider.stamp == ""

    assert provider.load() == V2
    assert provider.stamp == "v2"
    assert provider.load() == V2
    assert told == [V2]


def test_polling_follows_a_rotation() -> None:
    """A new version becomes current, and subscribers are told after it did."""
    provider = loaded(ScriptedSource(V1, V2))
    told: list[tuple[Credentials, Credentials]] = []
    provider.subscribe(lambda fresh: told.append((fresh, provider.current)))

    wait = provider.tick()

    assert provider.current == V2
    assert told == [(V2, V2)]
    assert wait == 300


def test_polling_adopts_nothing_that_cannot_log_in() -> None:
    """A wrong password in AWSCURRENT breaks nothing: what works stays, and the wrong one is tried again."""
    source = ScriptedSource(V1, V2)
    clock = ManualClock()
    provider = loaded(source, clock)
    tried: list[str] = []

    def verify(credentials: Credentials) -> None:
        tried.append(credentials.version)
        if len(tried) < 3:
            raise LoginRefused("refused")

    provider.probe_with(verify)
    waits = []
    while provider.current != V2:
        waits.append(provider.tick())
        clock.advance(waits[-1])

    assert waits == [1, 2, 300]
    assert tried == ["v2", "v2", "v2"]


def test_a_doubted_version_is_not_tried_at_every_look() -> None:
    """Hints and short intervals do not turn into refused logins on the server."""
    provider = loaded(ScriptedSource(V1, V2))
    tried: list[str] = []

    def verify(credentials: Credentials) -> None:
        tried.append(credentials.version)
        raise LoginRefused("refused")

    provider.probe_with(verify)
    for _ in range(20):
        provider.tick()

    assert tried == ["v2"]


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (LoginRefused("refused"), False),
        (ServerUnreachable("away"), False),
        (ConnectionRefusedError("port closed"), False),
        (ConfigurationError("no such database"), True),
        (ValueError("nobody has ever seen it"), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_trial_fails_for_it_is_repeated_ever_more_rarely(
    error: Exception, *, permanent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a second for ever was 115,000 reads a day; it is told once, and health names it to its end."""
    clock = ManualClock()
    provider = loaded(ScriptedSource(V1, V2), clock)

    def verify(credentials: Credentials) -> None:
        raise error

    provider.probe_with(verify)
    waits, problems = [], set()
    for _ in range(11):
        waits.append(provider.tick())
        problems.add((str(provider.status.problem), provider.status.permanent))
        # A login reads it meanwhile, and that it can be read mends nothing.
        provider.look("AWSCURRENT", "v1", None)
        problems.add((str(provider.status.problem), provider.status.permanent))
        clock.advance(waits[-1])

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert problems == {(f"version v2 is not in use: {describe(error)}", permanent)}
    assert [
        record.levelname for record in caplog.records if event_of(record) == "credentials.not_adopted"
    ] == ["WARNING"]


def test_a_version_that_is_taken_back_is_no_problem_any_more() -> None:
    """Somebody has mended the secret, and not what the version needed."""
    provider = loaded(ScriptedSource(V1, V2, V1))

    def verify(credentials: Credentials) -> None:
        raise ConfigurationError("no such database")

    provider.probe_with(verify)
    provider.tick()
    assert provider.status.permanent
    provider.tick()

    assert (provider.status.problem, provider.status.permanent) == (None, False)


def test_many_who_wait_for_a_read_are_one_in_the_books(caplog: pytest.LogCaptureFixture) -> None:
    """Fifteen threads that a throttled window has refused were 3,000 warnings for 28 reads."""
    source = ScriptedSource(V1, CredentialsUnavailable("Rate exceeded"))
    provider = loaded(source)
    with ThreadPoolExecutor(15) as threads:
        found = list(threads.map(lambda _: provider.look("AWSCURRENT", "v1", 5), range(15)))

    assert found == [None] * 15
    assert provider.status.failures == 1
    assert [event_of(record) for record in caplog.records] == ["credentials.stale"]


def test_one_cause_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """However many reads fail meanwhile; another cause is told at once."""
    clock = ManualClock()
    throttled = CredentialsUnavailable("Rate exceeded (request 5f3c-1a)")
    again = CredentialsUnavailable("Rate exceeded (request 77b0-9d)")
    source = ScriptedSource(V1, throttled, again, CredentialsUnavailable("away"), throttled, throttled)
    provider = loaded(source, clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            provider.tick()
        clock.advance(60)
        provider.tick()

    assert [fields_of(record)["failures"] for record in caplog.records] == [1, 3, 5]


class Mute(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Odd(ScriptedSource):
    """A source of somebody's own that makes a mistake once it is asked again."""

    def __init__(self, mistake: object) -> None:
        super().__init__(V1)
        self._mistake = mistake
        self._asked = 0

    def fetch(self, stage: Stage) -> Credentials | None:
        """Do it wrong."""
        self._asked += 1
        if self._asked == 1:
            return V1
        if isinstance(self._mistake, BaseException):
            raise self._mistake
        return cast("Credentials", self._mistake)


@pytest.mark.parametrize(
    "mistake",
    ["hunter2", {"password": "hunter2"}, 7, SystemExit(1), KeyboardInterrupt(), KeyError("host"), Mute()],
    ids=lambda mistake: type(mistake).__name__,
)
def test_a_source_that_makes_mistakes_ends_nothing(mistake: object) -> None:
    """What is known stays in use, the watcher goes on, and health says what it was, but no value."""
    provider = loaded(Odd(mistake))

    assert provider.tick() == 1
    assert provider.current == V1
    assert provider.status.permanent
    assert "hunter2" not in str(provider.status.problem)
    assert provider.look("AWSCURRENT", "v1", 5) is None


@pytest.mark.parametrize("mistake", [RuntimeError, SystemExit, asyncio.CancelledError])
def test_a_subscriber_that_raises_ends_nothing(
    mistake: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """It is the application's own; the others are told, and whoever adopted goes on."""
    provider = loaded(ScriptedSource(V1, V2))
    told: list[Credentials] = []

    def fail(credentials: Credentials) -> None:
        raise mistake("a mistake")

    provider.subscribe(fail)
    provider.subscribe(told.append)

    assert provider.tick() == 300
    assert provider.adopt(V3, instead_of="v2")
    assert told == [V2, V3]
    assert [event_of(record) for record in caplog.records if record.levelname == "ERROR"] == [
        "credentials.subscriber_failed"
    ] * 2


def test_a_good_read_ends_what_a_bad_one_reported() -> None:
    """One AccessDenied during a refused login does not show in health after the next good answer."""
    source = ScriptedSource(V1, DENIED, V1)
    clock = ManualClock()
    provider = loaded(source, clock)
    provider.look("AWSCURRENT", "v1", None)
    assert provider.status.permanent
    clock.advance(1)
    provider.look("AWSCURRENT", "v1", None)

    assert provider.status.problem is None


def test_polling_does_not_hurry_back_to_what_was_refused() -> None:
    """While a rotation is stuck, AWSCURRENT still names the old version: it is not tried again at once."""
    provider = loaded(ScriptedSource(V1))
    tried: list[str] = []
    provider.probe_with(lambda credentials: tried.append(credentials.version))
    provider.adopt(V2, instead_of="v1")

    provider.tick()

    assert provider.current == V2
    assert tried == []


def test_a_rotation_that_was_rolled_back_is_followed_in_the_end() -> None:
    """The old version becomes current again once it logs in."""
    clock = ManualClock()
    provider = loaded(ScriptedSource(V1), clock)
    provider.probe_with(lambda credentials: None)
    provider.adopt(V2, instead_of="v1")

    clock.advance(1.0)
    provider.tick()

    assert provider.current == V1


def test_a_new_token_needs_no_trial() -> None:
    """A token with the same stamp opens no connection, so none is tried with it."""
    old, new = version("t1", stamp="iam", expires_at=1900), version("t2", stamp="iam", expires_at=2800)
    clock = ManualClock(1000.0)
    provider = loaded(ScriptedSource(old, new), clock)
    provider.probe_with(lambda credentials: pytest.fail("tried"))

    clock.advance(800.0)
    wait = provider.tick()

    assert provider.current == new
    assert wait == 300


def test_an_outage_keeps_the_last_known_credentials(caplog: pytest.LogCaptureFixture) -> None:
    """While the source is down we stay on what worked, back off, and warn."""
    provider = loaded(ScriptedSource(V1, DOWN, DOWN, DOWN, V1))

    with caplog.at_level(logging.WARNING):
        waits = [provider.tick() for _ in range(3)]

    assert waits == [1, 2, 4]
    assert provider.current == V1
    assert {event_of(record) for record in caplog.records} == {"credentials.stale"}
    assert provider.status.problem is not None
    assert not provider.status.permanent
    provider.tick()
    assert provider.status.problem is None


@pytest.mark.parametrize("error", [DENIED, CredentialsInvalid("field 'password'"), RuntimeError("bug")])
def test_what_only_a_person_can_mend_is_loud(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A denied or malformed secret is an error in the log and in health; nobody is cut off."""
    provider = loaded(ScriptedSource(V1, error))

    with caplog.at_level(logging.WARNING):
        provider.tick()

    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert provider.status.permanent
    assert provider.current == V1


def test_a_crowd_causes_one_read() -> None:
    """However many callers are refused at once, the source is asked once."""
    entered, go_on = threading.Event(), threading.Event()

    class Slow(ScriptedSource):
        def fetch(self, stage: str) -> Credentials | None:
            answer = super().fetch("AWSCURRENT")
            if len(self.reads) > 1:
                entered.set()
                assert go_on.wait(60)
            return answer

    source = Slow(V1, V2)
    provider = loaded(source)
    answers: list[Credentials | None] = []
    crowd = [
        threading.Thread(target=lambda: answers.append(provider.look("AWSCURRENT", "v1", None)))
        for _ in range(20)
    ]
    for thread in crowd:
        thread.start()
    assert entered.wait(60)
    go_on.set()
    for thread in crowd:
        thread.join(60)

    assert answers == [V2] * 20
    assert source.reads == ["AWSCURRENT"] * 2


def test_a_read_that_brought_nothing_is_not_repeated_at_once() -> None:
    """Between two reads there is a floor, and it doubles."""
    source = ScriptedSource(V1)
    clock = ManualClock()
    provider = loaded(source, clock)
    read_at = []
    for tenths in range(40):
        before = len(source.reads)
        assert provider.look("AWSCURRENT", "v1", None) is None
        if len(source.reads) > before:
            read_at.append(tenths)
        clock.advance(0.1)

    assert read_at == [0, 3, 8, 18, 38]


def test_an_adoption_starts_the_floor_again() -> None:
    """The next rotation is not slowed down by the last one."""
    source = ScriptedSource(V1)
    clock = ManualClock()
    provider = loaded(source, clock)
    for _ in range(5):
        provider.look("AWSCURRENT", "v1", None)
        clock.advance(1)
    provider.adopt(V2, instead_of="v1")
    source.publish("AWSCURRENT", V3)

    assert provider.look("AWSCURRENT", "v2", None) == V3


def test_a_caller_with_little_patience_does_not_wait_for_a_slow_source() -> None:
    """A read that takes too long goes on without the caller, and the next one finds its answer."""
    go_on = threading.Event()

    class Stuck(ScriptedSource):
        def fetch(self, stage: str) -> Credentials | None:
            if self.reads:
                assert go_on.wait(60)
            return super().fetch("AWSCURRENT")

    provider = loaded(Stuck(V1, V2))

    assert provider.look("AWSCURRENT", "v1", 0.01) is None
    go_on.set()
    assert provider.look("AWSCURRENT", "v1", 10) == V2


def test_a_late_adoption_does_not_undo_a_newer_one() -> None:
    """Adopting compares first: v2, logged in slowly, does not replace v3."""
    provider = loaded(ScriptedSource(V1))
    assert provider.adopt(V3, instead_of="v1")

    assert not provider.adopt(V2, instead_of="v1")
    assert provider.current == V3


@pytest.mark.parametrize("answer", [None, DENIED, DOWN, V1])
def test_a_pending_version_may_be_missing_denied_or_nothing_new(
    answer: Credentials | Exception | None,
) -> None:
    """Each of these means: wait for AWSCURRENT."""
    provider = loaded(ScriptedSource(V1, pending=[answer]))

    assert provider.look("AWSPENDING", "v1", None) is None


def test_a_pending_version_is_offered() -> None:
    """Between setSecret and finishSecret it is the one that works."""
    assert loaded(ScriptedSource(V1, pending=[V2])).look("AWSPENDING", "v1", None) == V2


def test_a_failing_read_during_a_refusal_reaches_health() -> None:
    """The login reports its own refusal; what Secrets Manager said is in the status."""
    provider = loaded(ScriptedSource(V1, DENIED))

    assert provider.look("AWSCURRENT", "v1", None) is None
    assert "AccessDenied" in str(provider.status.problem)


def test_generations_count_adoptions() -> None:
    """Health can tell how often credentials have changed."""
    provider = loaded(ScriptedSource(V1))
    provider.adopt(V2, instead_of="v1")

    assert (provider.status.generation, provider.status.version) == (2, "v2")


def test_after_a_fork_the_provider_still_works() -> None:
    """Locks that another thread may have held in the parent are new in the child."""
    source = ScriptedSource(V1)
    provider = loaded(source)
    provider._swap.acquire()
    provider.after_fork()
    source.publish("AWSCURRENT", V2)

    assert provider.look("AWSCURRENT", "v1", 5) == V2
    assert provider.adopt(V2, instead_of="v1")


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), MemoryError(), KeyboardInterrupt()]
)
def test_a_read_that_cannot_begin_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Without a thread there is no answer now, which passes; whoever asks next gets one."""
    source, clock = ScriptedSource(V1), ManualClock()
    provider = loaded(source, clock)
    source.publish("AWSCURRENT", V2)

    def refuse(thread: threading.Thread) -> None:
        raise error

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(threading.Thread, "start", refuse)
        assert provider.look("AWSCURRENT", "v1", 5) is None
        assert (provider.status.failures, provider.status.permanent) == (1, False)
    clock.advance(1.0)

    assert provider.look("AWSCURRENT", "v1", 5) == V2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"version": None}, "version is a NoneType"),
        ({"version": ["a"]}, "version is a list"),
        ({"expires_at": "soon"}, "expires_at is a str"),
        ({"port": "5432"}, "port is a str"),
        ({"password": "pw\ud800"}, "password holds half a character"),
        ({"username": "u\udfff"}, "username holds half a character"),
    ],
    ids=range(6),
)
def test_credentials_that_no_server_could_take_are_refused_where_they_are_made(
    fields: dict[str, Any], said: str
) -> None:
    """Later they would end a thread, or a driver would put all of the password into its error."""
    given: dict[str, Any] = {
        "username": "u",
        "password": "hunter2",
        "version": "v",
        "host": "h",
        "port": 1,
        "database": "d",
        **fields,
    }
    with pytest.raises(CredentialsInvalid, match=said) as refused:
        Credentials(**given)

    assert "hunter2" not in repr(refused.value)
