"""Does a service notice anything when its database password rotates?"""

import pytest

from benchmarks.rotation_stress import DRIVERS, Plan, run
from ledger_db.sandbox import Sandbox, Strategy


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("strategy", ["single-user", "alternating-users"])
def test_no_request_fails_in_a_rotation(environment: Sandbox, driver: str, strategy: Strategy) -> None:
    """Sixteen workers, a window, no polling: no failure, no extra connection, few reads, nothing left."""
    result = run(environment, Plan(driver=driver, strategy=strategy, rotations=3, window_seconds=0.5))

    assert result.good, str(result)


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_request_fails_in_a_storm_of_rotations(environment: Sandbox, driver: str) -> None:
    """Twenty rotations a second are survived too."""
    plan = Plan(
        driver=driver, strategy="single-user", rotations=20, window_seconds=0.025, pause_seconds=0.025
    )
    result = run(environment, plan)

    assert result.good, str(result)


@pytest.mark.parametrize("driver", DRIVERS)
def test_killing_the_sessions_of_the_retired_user_hurts_nobody(environment: Sandbox, driver: str) -> None:
    """A second after an alternating rotation no session of the old user is left to be killed."""
    plan = Plan(
        driver=driver,
        strategy="alternating-users",
        rotations=2,
        window_seconds=0.2,
        refresh_seconds=0.3,
        kill_after_seconds=1.0,
    )
    result = run(environment, plan)

    assert result.good, str(result)


def test_the_stress_test_can_fail(environment: Sandbox) -> None:
    """A run whose requests fail is not good."""
    result = run(environment, Plan(driver="psycopg2", strategy="single-user", rotations=1, window_seconds=0))
    spoiled = type(result)(
        **{name: getattr(result, name) for name in type(result).__slots__} | {"connections_left": 1}
    )

    assert result.good
    assert not spoiled.good
