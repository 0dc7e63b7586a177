"""Is a secret with a mistake in it told at once: at the start, in a running service, before a rotation?"""

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, CredentialsInvalid, Settings
from ledger_db.rotation.failures import SecretUnusable
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import client_of
from tests.support.events import event_of, fields_of
from tests.support.rotations import Rotations, new_token, own_secret
from tests.support.waiting import eventually

MISTAKES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"host": "127.0.0.1:5432"}, "field 'host' has a port behind it"),
    ({"host": "127.0.0.1 "}, "field 'host' has white space around it"),
    ({"host": "127.0.0.1,127.0.0.1"}, "field 'host' is a list"),
    ({"dbname": None, "dbName": "ledger"}, "field 'dbname' is missing, and 'dbName' is not read"),
    ({"username": None, "user": "app"}, "field 'username' is missing, and 'user' is not read"),
    ({"port": "9" * 5000}, "field 'port' has another form"),
)


@pytest.fixture
def secret(environment: Sandbox) -> Iterator[Rotations]:
    """A secret of the test's own."""
    with own_secret(environment, "postgres-single", masterarn=None) as secret:
        yield secret


def settings_of(secret: Rotations, **changes: Any) -> Settings:
    """Settings that lead to *secret*, with time to wait in vain."""
    values = {"database_secret_id": secret.secret_id, "redis_secret_id": None, "startup_timeout_seconds": 60}
    return Settings(**{**values, **changes})


@pytest.mark.parametrize(("fields", "message"), MISTAKES)
def test_a_start_does_not_wait_for_a_mistake(
    secret: Rotations, driver: str, fields: dict[str, Any], message: str
) -> None:
    """On every driver it is the same sentence, with the field and the likely mistake."""
    secret.put(lambda value: {**value, **fields})
    began = time.monotonic()
    with pytest.raises(CredentialsInvalid, match=message), client_of(driver, settings_of(secret)):
        pass

    # Far from the time that a start may take, and far from what a busy machine takes for the rest.
    assert time.monotonic() - began < 30


def test_a_running_service_keeps_what_it_has_and_says_why(secret: Rotations) -> None:
    """A secret that is spoiled by hand is read at the next look: health names the field, requests go on."""
    with ConnectionManager(settings_of(secret)) as db:
        secret.put(lambda value: {**value, "host": "127.0.0.1:5432"})
        db.look_now()
        eventually(lambda: "field 'host'" in str(db.health()), "health to name the field")
        with db.session() as session:
            assert session.execute(text("SELECT 1")).scalar() == 1


@pytest.mark.parametrize(("fields", "message"), MISTAKES)
def test_a_rotation_refuses_it_before_anything_is_written(
    secret: Rotations, fields: dict[str, Any], message: str
) -> None:
    """There is no AWSPENDING that somebody would have to take away."""
    secret.put(lambda value: {**value, **fields})
    with pytest.raises(SecretUnusable, match=message):
        secret.step("createSecret", new_token())

    assert "AWSPENDING" not in secret.labels()


def test_a_database_that_nobody_has_named_is_told(
    secret: Rotations, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once at the start, with the one that was taken and the variable that names another."""
    secret.put(lambda value: {name: value[name] for name in value if name != "dbname"})
    with caplog.at_level(logging.WARNING, logger="ledger_db"):
        with client_of(driver, settings_of(secret)):
            pass
        told = [record for record in caplog.records if event_of(record) == "database.not_named"]

    assert len(told) == 1
    assert fields_of(told[0])["database"] == "postgres"
    assert "LEDGER_DB_DATABASE_NAME" in told[0].getMessage()


def test_a_name_that_a_new_version_has_lost_is_told_too(
    secret: Rotations, caplog: pytest.LogCaptureFixture
) -> None:
    """When the version is adopted, and not again with the next."""
    with caplog.at_level(logging.WARNING, logger="ledger_db"):
        with ConnectionManager(settings_of(secret)) as db:
            assert caplog.records == []
            for _ in range(2):
                secret.put(lambda value: {name: value[name] for name in value if name != "dbname"})
                version = secret.labels()["AWSCURRENT"]
                db.look_now()
                eventually(lambda: version in str(db.health()), "the version to be adopted")  # noqa: B023
        told = [event_of(record) for record in caplog.records]

    assert told.count("database.not_named") == 1


def test_a_database_that_was_named_is_no_news(secret: Rotations, caplog: pytest.LogCaptureFixture) -> None:
    """By the secret, or by the settings: also if it is the usual one."""
    with caplog.at_level(logging.WARNING, logger="ledger_db"):
        with ConnectionManager(settings_of(secret)):
            pass
        secret.put(lambda value: {name: value[name] for name in value if name != "dbname"})
        with ConnectionManager(settings_of(secret, database_name="postgres")):
            pass

    assert [event_of(record) for record in caplog.records] == []
