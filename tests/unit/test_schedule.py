"""When does a provider ask again?"""

import pytest

from ledger_db.credentials.schedule import Schedule

SCHEDULE = Schedule(refresh_interval_seconds=300, retry_first_seconds=1, retry_most_seconds=60)


@pytest.mark.parametrize(("spread", "expected"), [(0.0, 150.0), (0.5, 225.0), (1.0, 300.0)])
def test_a_fleet_that_started_together_does_not_ask_together(spread: float, expected: float) -> None:
    """The wait is drawn from the upper half of the interval."""
    assert SCHEDULE.after_success(None, spread) == expected


def test_a_token_is_replaced_well_before_its_end() -> None:
    """Of 200 seconds that a token has left, at most 160 pass before a new one is fetched."""
    assert SCHEDULE.after_success(200.0, 1.0) == 160.0


def test_a_dead_token_does_not_make_a_busy_loop() -> None:
    """Even for a token that is past its end there is a wait."""
    assert SCHEDULE.after_success(-5.0, 0.0) == 0.5


def test_an_outage_is_asked_about_ever_more_rarely() -> None:
    """The wait doubles with each failure, up to the most."""
    assert [SCHEDULE.after_failure(n, 1.0) for n in (1, 2, 3, 7, 400)] == [1, 2, 4, 60, 60]


def test_failing_is_never_slower_than_succeeding() -> None:
    """A provider that polls every five seconds keeps doing so while the source is down."""
    assert Schedule(refresh_interval_seconds=5).after_failure(10, 1.0) == 5


def test_a_stuck_rotation_costs_few_reads() -> None:
    """The floor between reads doubles with each one that was in vain, up to two seconds."""
    assert [Schedule().floor(n) for n in (0, 1, 2, 3, 4, 99)] == [0.25, 0.5, 1, 2, 2, 2]
