"""Is a connection with older credentials stale when it should be, and not before?"""

import pytest

from ledger_db import Credentials, Password
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.schedule import Schedule
from ledger_db.credentials.staleness import Staleness
from ledger_db.testing import ManualClock, ScriptedSource


def version(name: str, *, stamp: str = "", host: str = "h") -> Credentials:
    """Return the credentials of one version."""
    return Credentials("app", Password(f"pw-{name}"), name, host, 1, "d", stamp=stamp)


V1, V2, V3 = version("v1"), version("v2"), version("v3")


def spreading(source: ScriptedSource, clock: ManualClock, seconds: float = 30.0) -> CredentialProvider:
    """Return a provider that has read its source once, and spreads renewals over *seconds*."""
    schedule = Schedule(renewal_spread_seconds=seconds)
    provider = CredentialProvider(source, schedule, now=clock, posix_now=clock, spread=lambda: 0.5)
    provider.load()
    return provider


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_each_connection_is_stale_after_its_share_of_the_spread(share: float) -> None:
    """The logins of a fleet are spread evenly, and the last of them is bounded."""
    clock = ManualClock()
    provider = spreading(ScriptedSource(V1, V2), clock)
    provider.tick()

    clock.advance(30.0 * share - 0.001)
    assert not share or not provider.is_stale("v1", share)
    clock.advance(0.002)
    assert provider.is_stale("v1", share)


def test_what_is_current_is_never_stale() -> None:
    """However long ago it was adopted."""
    clock = ManualClock()
    provider = spreading(ScriptedSource(V1, V2), clock)
    provider.tick()
    clock.advance(1000.0)

    assert not provider.is_stale("v2", 0.0)


def test_without_a_spread_all_are_stale_at_once() -> None:
    """Zero means what it says."""
    provider = spreading(ScriptedSource(V1, V2), ManualClock(), 0.0)
    provider.tick()

    assert provider.is_stale("v1", 0.999)


@pytest.mark.parametrize("adopt", ["by polling", "by a refused login"])
def test_it_does_not_matter_how_a_version_was_adopted(adopt: str) -> None:
    """The storm would be the same."""
    provider = spreading(ScriptedSource(V1, V2), ManualClock())
    if adopt == "by polling":
        provider.tick()
    else:
        provider.adopt(V2, instead_of="v1")

    assert not provider.is_stale("v1", 0.5)


def test_rotations_that_follow_each_other_put_nothing_off() -> None:
    """A connection's moment stays what it was, though every rotation came before it."""
    clock = ManualClock()
    provider = spreading(ScriptedSource(V1, V2, V3, *(version(f"v{n}") for n in range(4, 9))), clock)
    for _ in range(6):
        provider.tick()
        clock.advance(5.0)

    assert provider.is_stale("v1", 0.9)
    assert not provider.is_stale("v6", 0.9)


def test_a_rotation_that_was_rolled_back_makes_its_connections_good_again() -> None:
    """What logged in with the version that is current again stays; the other one's turn comes."""
    clock = ManualClock()
    provider = spreading(ScriptedSource(V1, V2, V1), clock)
    provider.tick()
    provider.tick()
    clock.advance(29.0)

    assert not provider.is_stale("v1", 0.0)
    assert not provider.is_stale("v2", 0.999)
    assert provider.is_stale("v2", 0.9)


def test_in_a_hurry_nothing_is_spread() -> None:
    """A password leaked: its sessions go now, those of the next rotation take their time again."""
    provider = spreading(ScriptedSource(V1, V2, V3), ManualClock())
    provider.tick()
    provider.hurry()
    assert provider.is_stale("v1", 0.999)
    assert not provider.is_stale("v2", 0.0)

    provider.tick()

    assert provider.is_stale("v1", 0.999)
    assert not provider.is_stale("v2", 0.5)


def test_a_closed_manager_waits_for_nothing() -> None:
    """What is returned after the end is closed, in the middle of a spread too."""
    provider = spreading(ScriptedSource(V1, V2), ManualClock())
    provider.tick()
    provider.retire()

    assert provider.is_stale("v1", 0.999)
    assert provider.is_stale("v2", 0.999)


def test_a_secret_that_leads_elsewhere_is_followed_at_once() -> None:
    """What is written to the old server for half a minute more could be lost."""
    provider = spreading(ScriptedSource(V1, version("v2", host="other")), ManualClock())
    provider.tick()

    assert provider.is_stale("v1", 0.999)


def test_a_new_token_makes_nothing_stale() -> None:
    """Tokens of IAM share a stamp, with a spread as without."""
    clock = ManualClock()
    provider = spreading(ScriptedSource(version("t1", stamp="iam"), version("t2", stamp="iam")), clock)
    provider.tick()
    clock.advance(1000.0)

    assert not provider.is_stale("iam", 0.0)
    assert provider.renewal_pause() is None


def test_what_nobody_has_heard_of_is_stale() -> None:
    """A stamp from before the last spread is none to wait for."""
    provider = spreading(ScriptedSource(V1, V2), ManualClock())
    provider.tick()

    assert provider.is_stale("v0", 0.999)


def test_idle_connections_are_looked_through_until_the_spread_is_over() -> None:
    """The last look comes after the last one's moment, and then there is none."""
    clock = ManualClock()
    staleness = Staleness(30.0, now=clock)
    assert staleness.pause_seconds(0.5) is None
    staleness.follow("v1", "v2")

    looks = 0
    while (pause := staleness.pause_seconds(0.5)) is not None:
        clock.advance(pause)
        looks += 1

    assert staleness.has_begun("v1", 0.999)
    assert looks == 10
