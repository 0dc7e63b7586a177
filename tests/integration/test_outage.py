"""What does a request see while Secrets Manager is down, slow, throttled or talking rubbish?"""

import time

import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.answers.aws_client import region_of
from ledger_db.errors import ConfigurationError, Retryable
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.faults import Fault, access_denied, dropped, rubbish, slow, throttled, unavailable
from tests.support.half_rotation import half_rotated_database
from tests.support.waiting import eventually

FAULTS = {
    "throttled": throttled(times=None),
    "down": unavailable(times=None),
    "dropped": dropped(times=None),
    "rubbish": rubbish(times=None),
    "slow": slow(8.0),
}


def new_connection(db: ConnectionManager) -> None:
    """Ask for a row on a connection of its own."""
    db.engine.pool.connect().invalidate()
    with db.session() as session:
        session.execute(text("SELECT 1"))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_outside_a_rotation_nobody_notices(environment: Sandbox, fault: Fault) -> None:
    """New connections work with what is known; health says that the secret cannot be read."""
    with ConnectionManager(Settings(refresh_interval_seconds=0.4)) as db:
        environment.secrets_manager.inject(fault)
        eventually(
            lambda: db.health().servers[0].credentials.failures > 0 or _asleep(db),
            "the outage shows in health",
            timeout_seconds=30,
        )
        for _ in range(5):
            new_connection(db)

        assert db.health().ok


def _asleep(db: ConnectionManager) -> bool:
    new_connection(db)
    return False


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_in_a_rotation_a_request_waits_and_then_succeeds(environment: Sandbox, fault: Fault) -> None:
    """The password has changed and Secrets Manager is down for a second: the request is late, not lost."""
    settings = Settings(refresh_interval_seconds=300, login_patience_seconds=20)
    with ConnectionManager(settings) as db, half_rotated_database(environment):
        environment.secrets_manager.inject(fault)
        began = time.monotonic()
        clear_at = began + 1.0

        def clear() -> bool:
            if time.monotonic() > clear_at:
                environment.secrets_manager.clear_faults()
            return time.monotonic() > clear_at

        import threading  # noqa: PLC0415 - here only

        clearing = threading.Thread(target=eventually, args=(clear, "a second passes"))
        clearing.start()
        new_connection(db)
        clearing.join()


def test_a_denied_secret_is_loud_in_health_and_cuts_nobody_off(environment: Sandbox) -> None:
    """AccessDenied needs a person: health is not ok, the service goes on."""
    with ConnectionManager(Settings(refresh_interval_seconds=0.3)) as db:
        environment.secrets_manager.inject(access_denied("GetSecretValue"))
        eventually(lambda: not db.health().servers[0].ok, "the denial shows in health")
        assert not db.health().ok

        problem = str(db.health().servers[0].credentials.problem)
        assert "AccessDeniedException" in problem
        assert "allow secretsmanager:GetSecretValue" in problem
        new_connection(db)

        environment.secrets_manager.clear_faults()
        eventually(lambda: db.health().ok, "health recovers")


def test_a_start_waits_for_secrets_manager(environment: Sandbox) -> None:
    """A start during a short outage succeeds once it is over."""
    environment.secrets_manager.inject(unavailable(times=4))
    with ConnectionManager(Settings(startup_timeout_seconds=20)) as db:
        new_connection(db)


def test_a_start_without_secrets_manager_gives_up_in_time(environment: Sandbox) -> None:
    """The error says what did not answer."""
    environment.secrets_manager.inject(unavailable(times=None))
    # Whether the attempts or the whole start ran out of time first, the cause is the same.  Time enough for
    # one attempt, on a machine that is busy, has to be given.
    with pytest.raises(Retryable, match="InternalServiceError"):
        ConnectionManager(Settings(startup_timeout_seconds=8)).open()


@pytest.mark.parametrize(
    ("secret_id", "expected"),
    [
        (
            "trust-ledger/nope",
            "ResourceNotFoundException, there is no such .*; check its name, the account and the region",
        ),
        ("arn:aws:rds:x", "is not the ARN of a secret"),
    ],
)
def test_a_wrong_secret_fails_at_once(environment: Sandbox, secret_id: str, expected: str) -> None:
    """Nothing is retried that only a person can mend."""
    with pytest.raises(ConfigurationError, match=expected):
        ConnectionManager(Settings(database_secret_id=secret_id)).open()


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_an_arn_of_any_partition_is_a_name(partition: str) -> None:
    """The region is the ARN's own, also for a replica in another region."""
    arn = f"arn:{partition}:secretsmanager:cn-north-1:123456789012:secret:prod/db-AbCdEf"
    assert region_of(arn) == "cn-north-1"
