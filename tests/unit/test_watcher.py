"""Does the watching thread look, renew and hurry when it is told to?"""

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from ledger_db import Credentials, CredentialsUnavailable, Password
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.schedule import Schedule
from ledger_db.credentials.watcher import CredentialWatcher
from ledger_db.testing import ScriptedSource
from tests.support.waiting import eventually

V1, V2, V3 = (Credentials("app", Password("p"), f"v{n}", "h", 1, "d") for n in (1, 2, 3))
HALF_A_SECOND = Schedule(renewal_spread_seconds=0.5)
TEN_MINUTES = Schedule(renewal_spread_seconds=600.0)


@dataclass
class Watched:
    """A provider with its watcher, and what the watcher saw of connections with the version v1."""

    provider: CredentialProvider
    watcher: CredentialWatcher = field(init=False)
    renewals: queue.Queue[bool] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self.watcher = CredentialWatcher(self.provider, self._renew)

    def _renew(self) -> None:
        self.renewals.put(self.provider.is_stale("v1", 0.999))


Watch = Callable[[ScriptedSource, Schedule], Watched]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Watch a source until the test ends."""
    watchers: list[CredentialWatcher] = []

    def start(source: ScriptedSource, schedule: Schedule) -> Watched:
        provider = CredentialProvider(source, schedule, spread=lambda: 0.5)
        provider.load()
        watched = Watched(provider)
        watched.watcher.start()
        watchers.append(watched.watcher)
        return watched

    yield start
    for watcher in watchers:
        watcher.stop(timeout_seconds=10)


def test_renewing_goes_on_until_the_last_connection_is_stale(watch: Watch) -> None:
    """Nobody has to borrow an idle connection for its old session to end."""
    watched = watch(ScriptedSource(V1, V2), HALF_A_SECOND)
    watched.watcher.look_now()

    assert not watched.renewals.get(timeout=60)
    while not watched.renewals.get(timeout=60):
        pass
    assert watched.provider.renewal_pause() is None


def test_an_urgent_look_spreads_nothing(watch: Watch) -> None:
    """A password leaked: what is found makes everything older stale now."""
    watched = watch(ScriptedSource(V1, V2), TEN_MINUTES)
    watched.watcher.look_now(urgent=True)

    while not watched.renewals.get(timeout=60):
        pass
    assert watched.provider.stamp == "v2"


def test_an_urgent_look_that_finds_nothing_new_hurries_nobody(watch: Watch) -> None:
    """Whoever can publish cannot make a storm of the last rotation's logins."""
    source = ScriptedSource(V1, V2)
    watched = watch(source, TEN_MINUTES)
    watched.watcher.look_now()
    assert not watched.renewals.get(timeout=60)
    reads = len(source.reads)

    watched.watcher.look_now(urgent=True)
    eventually(lambda: len(source.reads) > reads, "it has looked")
    watched.watcher.stop(timeout_seconds=10)

    assert not watched.provider.is_stale("v1", 0.999)


def test_what_was_urgent_stays_so_until_it_could_be_read(watch: Watch) -> None:
    """Secrets Manager being down for a moment is no reason to take one's time."""
    watched = watch(ScriptedSource(V1, CredentialsUnavailable("down"), V2), TEN_MINUTES)
    watched.watcher.look_now(urgent=True)

    while not watched.renewals.get(timeout=60):
        pass
    assert watched.provider.stamp == "v2"


def test_the_rotation_after_an_urgent_one_takes_its_time(watch: Watch) -> None:
    """Urgent is a word about one rotation."""
    source = ScriptedSource(V1, V2)
    watched = watch(source, TEN_MINUTES)
    watched.watcher.look_now(urgent=True)
    while not watched.renewals.get(timeout=60):
        pass
    source.publish("AWSCURRENT", V3)
    watched.watcher.look_now()
    eventually(lambda: watched.provider.stamp == "v3", "the rotation is followed")

    assert not watched.provider.is_stale("v2", 0.999)


def test_only_what_the_subscription_said_was_announced(watch: Watch) -> None:
    """Three announced rotations let polling rest; a person's look, or a poll, ends it."""
    source = ScriptedSource(V1)
    watched = watch(source, Schedule())
    watched.watcher.note_subscription(is_open=True)
    for number in range(2, 5):
        source.publish("AWSCURRENT", Credentials("app", Password("p"), f"v{number}", "h", 1, "d"))
        watched.watcher.look_now(announced=True)
        eventually(lambda n=number: watched.provider.stamp == f"v{n}", "it is followed")  # type: ignore[misc]
    watched.watcher.look_now()
    eventually(lambda: watched.provider.reliance.doublings == 1, "polling rests")

    source.publish("AWSCURRENT", V1)
    watched.watcher.look_now()

    eventually(lambda: watched.provider.stamp == "v1", "a person's word is followed")
    assert watched.provider.reliance.doublings == 0
