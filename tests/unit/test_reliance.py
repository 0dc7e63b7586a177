"""Does polling rest only while every rotation is announced?"""

from ledger_db import Credentials, Password
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.schedule import Schedule
from ledger_db.testing import ManualClock, ScriptedSource


def versions(many: int) -> list[Credentials]:
    """Return v1 to v*many*."""
    return [Credentials("app", Password("p"), f"v{n}", "h", 1, "d") for n in range(1, many + 1)]


def proven(source: ScriptedSource, *, schedule: Schedule | None = None) -> CredentialProvider:
    """Return a provider whose last three adoptions were announced, on an open subscription."""
    clock = ManualClock()
    provider = CredentialProvider(
        source, schedule or Schedule(), now=clock, posix_now=clock, spread=lambda: 1.0
    )
    provider.load()
    provider.reliance.note_subscription(is_open=True)
    for _ in range(3):
        provider.tick(announced=True)
    return provider


def polled(provider: CredentialProvider, times: int) -> list[float]:
    """Poll so often, and return the waits."""
    return [provider.tick() for _ in range(times)]


def test_polling_that_finds_nothing_becomes_rarer_up_to_an_hour() -> None:
    """A fleet that hears of every rotation pays for a twelfth of the reads."""
    provider = proven(ScriptedSource(*versions(4)))

    assert polled(provider, 6) == [600, 1200, 2400, 3600, 3600, 3600]


def test_an_interval_of_more_than_an_hour_stays_what_it_is() -> None:
    """Nobody is asked more often than he wants because announcements are heard."""
    provider = proven(ScriptedSource(*versions(4)), schedule=Schedule(refresh_interval_seconds=7200))

    assert polled(provider, 3) == [7200, 7200, 7200]


def test_two_announced_rotations_are_not_enough() -> None:
    """Announcements prove themselves first."""
    provider = CredentialProvider(ScriptedSource(*versions(3)), Schedule(), spread=lambda: 1.0)
    provider.load()
    provider.reliance.note_subscription(is_open=True)
    for _ in range(2):
        provider.tick(announced=True)

    assert polled(provider, 3) == [300, 300, 300]


def test_without_a_subscription_polling_stays_frequent() -> None:
    """However well announcements worked when they were heard."""
    provider = proven(ScriptedSource(*versions(4)))
    polled(provider, 3)
    provider.reliance.note_subscription(is_open=False)

    assert provider.next_wait() == 300
    assert polled(provider, 3) == [300, 300, 300]


def test_a_subscription_that_is_back_begins_anew() -> None:
    """The interval grows again, from its beginning."""
    provider = proven(ScriptedSource(*versions(4)))
    polled(provider, 5)
    provider.reliance.note_subscription(is_open=False)
    provider.reliance.note_subscription(is_open=True)

    assert polled(provider, 2) == [600, 1200]


def test_a_rotation_that_polling_finds_ends_it() -> None:
    """Somebody rotates without announcing: the next rotation is found as soon as ever."""
    source = ScriptedSource(*versions(4))
    provider = proven(source)
    polled(provider, 4)
    source.publish("AWSCURRENT", versions(5)[-1])

    assert polled(provider, 3) == [300, 300, 300]


def test_a_rotation_that_a_refused_login_finds_ends_it() -> None:
    """It was not announced, or not in time."""
    provider = proven(ScriptedSource(*versions(4)))
    polled(provider, 4)
    provider.adopt(versions(5)[-1], instead_of="v4")

    assert provider.next_wait() == 300


def test_a_further_announced_rotation_changes_nothing() -> None:
    """It is one more proof."""
    source = ScriptedSource(*versions(4))
    provider = proven(source)
    polled(provider, 2)
    source.publish("AWSCURRENT", versions(5)[-1])

    assert provider.tick(announced=True) == 1200


def test_a_forked_child_has_heard_nothing_yet() -> None:
    """Its subscription is its own, and not open yet."""
    provider = proven(ScriptedSource(*versions(4)))
    polled(provider, 4)
    provider.after_fork()

    assert provider.next_wait() == 300


def test_a_token_is_replaced_in_time_whatever_is_announced() -> None:
    """Rest never outlasts what is in use."""
    schedule = Schedule()

    assert schedule.after_success(900.0, 1.0, doublings=9) == 720
    assert schedule.after_success(None, 1.0, doublings=9) == 3600
    assert schedule.after_success(1000.0, 1.0, doublings=9) == 800
