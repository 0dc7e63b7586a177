"""Do the defaults keep a fleet from storming its server, as far as a simulation can tell?"""

import pytest

pytest.importorskip("simpy", reason="for development only")

from benchmarks.fleet import Fleet, Simulation, peak


def test_the_defaults_hold_for_a_thousand_processes() -> None:
    """No request of theirs fails in a rotation, and the server is never asked for more than it can do."""
    fleet = Fleet(processes=1000, pool=5)

    outcome = Simulation(fleet).run()

    assert outcome.failed == 0
    assert len(outcome.logins) == 6000  # one more for each process, which tries what it has read
    # Of what the server has room for.
    assert peak(outcome.logins) < fleet.cores / fleet.login_seconds


def test_without_a_spread_the_same_fleet_collapses() -> None:
    """The simulation sees what it is there to see."""
    outcome = Simulation(Fleet(processes=1000, pool=5).without_spread).run()

    assert outcome.failed > 5000


def test_ten_thousand_processes_need_the_spread_that_is_documented() -> None:
    """The formula gives a spread that is wide enough, and one that the setting allows."""
    fleet = Fleet(processes=10_000, pool=1).as_needed
    assert 30 < fleet.announcement_spread_seconds < 600
    assert 30 < fleet.renewal_spread_seconds < 600

    outcome = Simulation(fleet).run()

    assert outcome.failed == 0
    assert peak(outcome.logins) < fleet.cores / fleet.login_seconds
