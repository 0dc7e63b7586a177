"""When does a server look, once a rotation was announced?"""

from dataclasses import dataclass, field

import pytest

from ledger_db.answers.announcement import Announcement
from ledger_db.credentials.model import Credentials, Stage
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.signals.hints import FLOOR_SECONDS, Distrusted, Hints


@dataclass
class Source:
    """Has one version, until somebody gives it another."""

    name: str
    version: str = "v1"
    rotates: bool = True

    def fetch(self, stage: Stage) -> Credentials:
        """Return the version as credentials."""
        return Credentials("user", "password", self.version, "host", 1, "db")  # type: ignore[arg-type]


@dataclass
class Server:
    """Reads its source when told to look, and remembers when that was."""

    source: Source
    provider: CredentialProvider = field(init=False)
    looks: int = 0
    urgent_looks: int = 0
    hears: bool = False

    def __post_init__(self) -> None:
        self.provider = CredentialProvider(self.source)
        self.provider.load()

    def look_now(self, *, urgent: bool = False, announced: bool = False) -> None:
        """Look, as the watcher would."""
        self.looks += 1
        self.urgent_looks += urgent
        self.provider.tick(announced=announced)

    def note_subscription(self, *, is_open: bool) -> None:
        """Remember it."""
        self.hears = is_open


@pytest.fixture
def postgres() -> Server:
    """One server."""
    return Server(Source("trust-ledger/postgres"))


@pytest.fixture
def redis() -> Server:
    """Another one."""
    return Server(Source("trust-ledger/redis"))


def looks_at(hints: Hints, server: Server, until: float) -> list[float]:
    """Let time pass in small steps, and return the moments at which *server* looked."""
    moments, now = [], 0.0
    while now <= until:
        before = server.looks
        hints.act(now)
        moments += [now] * (server.looks - before)
        now = round(now + 0.1, 1)
    return moments


def test_only_the_server_that_is_meant_looks(postgres: Server, redis: Server) -> None:
    """A rotation of the database costs no read of the Redis secret."""
    hints = Hints([postgres, redis])
    postgres.source.version = "v2"

    assert hints.take(Announcement("trust-ledger/postgres", "v2"), 0.0)
    hints.act(0.0)

    assert (postgres.looks, redis.looks) == (1, 0)
    assert postgres.provider.current.version == "v2"


def test_one_look_is_enough_where_the_version_is_found(postgres: Server) -> None:
    """An announcement that holds what it says causes one read."""
    hints = Hints([postgres])
    postgres.source.version = "v2"
    hints.take(Announcement("trust-ledger/postgres", "v2"), 0.0)

    assert looks_at(hints, postgres, 20.0) == [0.0]
    assert hints.next_at() is None


def test_an_announcement_may_be_faster_than_secrets_manager(postgres: Server) -> None:
    """AWSCURRENT is eventually consistent: it is looked for once more, and then left to polling."""
    hints = Hints([postgres])
    hints.take(Announcement("trust-ledger/postgres", "v2"), 0.0)

    assert looks_at(hints, postgres, 60.0) == [0.0, 3.0]
    assert hints.next_at() is None


def test_what_is_current_already_is_not_read_again(postgres: Server) -> None:
    """The function that rotates and the event of AWS's announce the same rotation: one of them is enough."""
    hints = Hints([postgres])
    hints.take(Announcement("trust-ledger/postgres", "v1"), 0.0)

    assert looks_at(hints, postgres, 20.0) == []


def test_an_announcement_without_a_version_causes_one_look(postgres: Server) -> None:
    """There is nothing to wait for."""
    hints = Hints([postgres])
    hints.take(Announcement("trust-ledger/postgres"), 0.0)

    assert looks_at(hints, postgres, 20.0) == [0.0]


def test_a_flood_is_no_flood_of_reads(postgres: Server) -> None:
    """Whoever can publish has a service read Secrets Manager a few times an hour, and no more."""
    hints = Hints([postgres])
    assert flooded(hints, until=3600.0) > 3000

    # Six at once, and six more in the hour.
    assert 6 <= postgres.looks <= 12


def test_an_announcement_that_was_true_proves_those_before_it_right(postgres: Server) -> None:
    """However many rotations there are, each is looked for at once."""
    hints = Hints([postgres])
    for number in range(100):
        postgres.source.version = f"w{number}"
        hints.take(Announcement("trust-ledger/postgres", f"w{number}"), float(number))
        hints.act(float(number))

    assert postgres.looks == 100


def test_one_secret_is_not_distrusted_for_another(postgres: Server, redis: Server) -> None:
    """False announcements of one have no part in what the other is believed."""
    hints = Hints([postgres, redis])
    flooded(hints, until=10.0)
    redis.source.version = "v2"
    hints.take(Announcement("trust-ledger/redis", "v2"), 20.0)
    hints.act(20.0)

    assert redis.looks == 1


def flooded(hints: Hints, *, until: float) -> int:
    """Announce what is not true ten times a second, and return how often that was not to be believed."""
    refused = 0
    for tenths in range(int(until * 10)):
        hints.take(Announcement("trust-ledger/postgres", f"made-up-{tenths}"), tenths / 10)
        try:
            hints.act(tenths / 10)
        except Distrusted:
            refused += 1
            hints.forget()
    return refused


def test_an_announcement_within_the_floor_is_not_lost(postgres: Server) -> None:
    """Two rotations in quick succession: the second is looked for as soon as the floor allows."""
    hints = Hints([postgres])
    postgres.source.version = "v2"
    hints.take(Announcement("trust-ledger/postgres", "v2"), 0.0)
    hints.act(0.0)
    postgres.source.version = "v3"
    hints.take(Announcement("trust-ledger/postgres", "v3"), 0.1)

    assert hints.next_at() == FLOOR_SECONDS
    assert looks_at(hints, postgres, 5.0) == [FLOOR_SECONDS]
    assert postgres.provider.current.version == "v3"


def test_what_means_nobody_is_left_alone(postgres: Server) -> None:
    """Other people's secrets may be announced on the same channel."""
    hints = Hints([postgres])

    assert not hints.take(Announcement("somebody/else", "v2"), 0.0)
    assert hints.next_at() is None


def test_after_a_gap_every_server_looks_once(postgres: Server, redis: Server) -> None:
    """What was announced while nobody listened is found by looking."""
    hints = Hints([postgres, redis])
    hints.look_everywhere(100.0)
    hints.act(200.0)

    assert (postgres.looks, redis.looks) == (1, 1)


def test_a_fleet_that_hears_together_does_not_ask_together(postgres: Server) -> None:
    """Each process waits for a part of the spread that it draws itself; further looks keep their distance."""
    hints = Hints([postgres], spread_seconds=2.0, spread=lambda: 0.5)
    hints.take(Announcement("trust-ledger/postgres", "v2"), 0.0)

    assert looks_at(hints, postgres, 20.0) == [1.0, 4.0]


def test_what_is_urgent_is_looked_for_at_once(postgres: Server) -> None:
    """A password leaked."""
    hints = Hints([postgres], spread_seconds=2.0, spread=lambda: 0.5)
    postgres.source.version = "v2"
    hints.take(Announcement("trust-ledger/postgres", "v2", urgent=True), 0.0)

    assert looks_at(hints, postgres, 20.0) == [0.0]
    assert postgres.urgent_looks == 1


def test_a_flood_puts_no_look_off(postgres: Server) -> None:
    """Whoever repeats a message does not keep the service from looking."""
    draws = iter([0.1] + [0.9] * 100)
    hints = Hints([postgres], spread_seconds=2.0, spread=lambda: next(draws))
    for tenths in range(20):
        hints.take(Announcement("trust-ledger/postgres", f"v{tenths}"), tenths / 10)
        hints.act(tenths / 10)
        if postgres.looks:
            break

    assert tenths == 2


def test_the_same_news_from_elsewhere_takes_no_urgency_away(postgres: Server) -> None:
    """AWS's own event announces the version too, and knows nothing of a leak."""
    hints = Hints([postgres])
    hints.take(Announcement("trust-ledger/postgres", "v2", urgent=True), 0.0)
    hints.take(Announcement("trust-ledger/postgres", "v2"), 0.0)
    looks_at(hints, postgres, 20.0)

    assert postgres.urgent_looks == postgres.looks == 2


def test_after_a_gap_a_fleet_does_not_ask_together_either(postgres: Server, redis: Server) -> None:
    """A Redis that restarts cuts off all of it in the same moment."""
    hints = Hints([postgres, redis], spread_seconds=2.0, spread=lambda: 0.5)
    hints.look_everywhere(0.0)

    assert looks_at(hints, postgres, 5.0) == [1.0]
    assert redis.looks == 1
