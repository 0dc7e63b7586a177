"""Does each switch do what it says, and is everything well when the test is over?"""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import redis.exceptions
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger_db import ConfigurationError, ConnectionManager, CredentialsUnavailable, Settings
from ledger_db.credentials.secrets_manager import SecretsManagerSource
from ledger_db.sandbox import Sandbox, Strategy
from ledger_db.testing import Faults


@pytest.fixture
def faults(own_box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """A switchboard, and the environment that leads to its servers."""
    for name, value in own_box.environment.items():
        monkeypatch.setenv(name, value)
    switchboard = Faults(own_box)
    yield switchboard
    switchboard.heal()


def read_secret(box: Sandbox) -> str:
    """Read AWSCURRENT as a service does; return its version."""
    credentials = SecretsManagerSource(box.database_secret_id, "PostgreSQL").fetch("AWSCURRENT")
    assert credentials is not None
    return str(credentials.version)


def log_in(box: Sandbox) -> None:
    """Log in to PostgreSQL and to Redis with what is in the secrets."""
    with ConnectionManager(Settings(profile="test", startup_timeout_seconds=30)) as db:
        with db.session() as session:
            session.execute(text("SELECT 1"))
        db.redis.ping()


UNWELL: dict[str, Callable[[Faults], None]] = {
    "down": lambda faults: faults.secrets_manager.down(),
    "failing": lambda faults: faults.secrets_manager.failing(),
    "throttled": lambda faults: faults.secrets_manager.throttled(),
    "rubbish": lambda faults: faults.secrets_manager.rubbish(),
}


@pytest.mark.parametrize("fault", UNWELL.values(), ids=UNWELL)
def test_secrets_manager_is_unwell_until_it_is_healed(
    own_box: Sandbox, faults: Faults, fault: Callable[[Faults], None]
) -> None:
    """A service that reads its secret meets the fault, as often as it tries, and no fault after that."""
    fault(faults)
    for _ in range(2):
        with pytest.raises(CredentialsUnavailable):
            read_secret(own_box)
    faults.heal()

    assert read_secret(own_box)


def test_access_is_denied_to_one_label_or_to_all(own_box: Sandbox, faults: Faults) -> None:
    """A policy that forgot AWSPENDING can be imitated, and one that forgot everything."""
    faults.secrets_manager.denied(stage="AWSPENDING")
    read_secret(own_box)
    faults.secrets_manager.denied()
    with pytest.raises(ConfigurationError, match="AccessDenied"):
        read_secret(own_box)


def test_slow_answers_are_right(own_box: Sandbox, faults: Faults) -> None:
    """A slow Secrets Manager gives the same version as a quick one."""
    quick = read_secret(own_box)
    faults.secrets_manager.slow(0.05)

    assert read_secret(own_box) == quick


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_postgres_refuses_connections_while_it_is_down(own_box: Sandbox, faults: Faults, how: str) -> None:
    """A server that was stopped, or has crashed, is there again after the test, with its data."""
    with closing(own_box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE faults_{how} (id int)")
    getattr(faults.postgres, how)()
    with pytest.raises(psycopg2.OperationalError):
        own_box.postgres.connect()
    faults.heal()

    with closing(own_box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE faults_{how}")


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_redis_refuses_connections_while_it_is_down(own_box: Sandbox, faults: Faults, how: str) -> None:
    """The same for Redis."""
    admin: Any = own_box.redis.connect()
    with closing(admin):
        getattr(faults.redis, how)()
        with pytest.raises(redis.exceptions.ConnectionError):
            admin.ping()
        faults.heal()

        assert admin.ping()


def test_a_restart_ends_sessions_and_lets_new_ones_in(own_box: Sandbox, faults: Faults) -> None:
    """What a minor upgrade does to a service can be tested in one line."""
    with closing(own_box.postgres.connect()) as before:
        faults.postgres.restart()
        faults.redis.restart()
        with pytest.raises(psycopg2.OperationalError), before.cursor() as cursor:
            cursor.execute("SELECT 1")

    log_in(own_box)


def test_sessions_are_killed_and_counted(own_box: Sandbox, faults: Faults) -> None:
    """A failover's effect on clients: every one is cut off, and the server is there for new ones."""
    with ConnectionManager(Settings(profile="test")) as db:
        with db.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            assert faults.postgres.kill_sessions() == 1
            with pytest.raises(DBAPIError):
                connection.execute(text("SELECT 1"))
        assert faults.postgres.kill_sessions() == 0
        assert faults.redis.kill_sessions() >= 1

    log_in(own_box)


def test_a_rotation_from_beginning_to_end(own_box: Sandbox, faults: Faults) -> None:
    """After a rotation AWSCURRENT is on the version that was announced."""
    version = faults.rotate_database("alternating-users")
    faults.rotate_redis()

    assert read_secret(own_box) == version
    log_in(own_box)


def test_a_stuck_rotation_and_its_end(own_box: Sandbox, faults: Faults) -> None:
    """Between setSecret and finishSecret a service gets in with AWSPENDING; then it is AWSCURRENT."""
    before = read_secret(own_box)
    rotation = faults.stuck_rotation()
    assert read_secret(own_box) == before
    log_in(own_box)
    rotation.finish()

    assert read_secret(own_box) == rotation.version


@pytest.mark.parametrize("strategy", ["single-user", "alternating-users"])
def test_a_rotation_that_is_left_stuck_is_finished(
    own_box: Sandbox, faults: Faults, strategy: Strategy
) -> None:
    """Whatever else a test leaves behind, the next one can log in."""
    rotation = faults.stuck_rotation(strategy)
    faults.secrets_manager.denied()
    faults.postgres.stop()
    faults.redis.crash()
    faults.secrets_manager.down()
    faults.heal()

    assert read_secret(own_box) == rotation.version
    log_in(own_box)


def test_a_rotation_that_was_overtaken_is_no_trouble(own_box: Sandbox, faults: Faults) -> None:
    """A second rotation brings the stuck one to an end; healing finds nothing to do."""
    faults.stuck_rotation()
    version = faults.rotate_database()
    faults.heal()

    assert read_secret(own_box) == version


def test_healing_goes_on_when_something_cannot_be_healed(own_box: Sandbox, faults: Faults) -> None:
    """One server that cannot be started does not keep the others down, and the test hears of it."""

    def refuse() -> None:
        raise OSError("no more memory")

    faults.redis.stop()
    faults.postgres.stop()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="memory"):
        patch.setattr(faults.postgres, "start", refuse)
        faults.heal()
    admin: Any = own_box.redis.connect()
    with closing(admin):
        assert admin.ping()
