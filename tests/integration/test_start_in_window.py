"""Does a start inside of a rotation's window use the time that it has, and say what it did?"""

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, LoginRefused, Settings
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.faults import Fault, access_denied, pending_without_value
from tests.support.any_driver import choice_of, is_on_loop
from tests.support.half_rotation import HalfRotation, half_rotated_database, half_rotated_redis

WINDOW_SECONDS = 3.0
DENIED = access_denied("GetSecretValue", stage="AWSPENDING", times=None)


def start(driver: str, **fields: Any) -> None:
    """Open a manager on *driver*, and ask each of its servers for something; a request waits for 0.2 s."""
    manager = ConnectionManager(Settings(login_patience_seconds=0.2, **fields, **choice_of(driver)))
    if not is_on_loop(driver):
        with manager as db:
            if fields["database_secret_id"]:
                with db.session() as session:
                    session.execute(text("SELECT 1"))
            else:
                db.redis.ping()
        return

    async def go() -> None:
        async with manager as db:
            if fields["database_secret_id"]:
                async with db.async_session() as session:
                    await session.execute(text("SELECT 1"))
            else:
                await db.async_redis.ping()

    asyncio.run(go())


def only_database(box: Sandbox) -> dict[str, Any]:
    """Settings of a service without Redis."""
    return {"database_secret_id": box.database_secret_id, "redis_secret_id": None}


def only_redis(box: Sandbox) -> dict[str, Any]:
    """Settings of a service without a database."""
    return {"database_secret_id": None, "redis_secret_id": box.redis_secret_id}


@contextmanager
def ending(box: Sandbox, rotation: HalfRotation) -> Iterator[None]:
    """End *rotation* after a while."""

    def end() -> None:
        box.secrets_manager.clear_faults()
        rotation.finish()

    timer = threading.Timer(WINDOW_SECONDS, end)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_a_start_outlasts_a_window_that_it_may_not_look_into(environment: Sandbox, driver: str) -> None:
    """AWSPENDING is denied: the start is late, and has all of its time to be."""
    with half_rotated_database(environment) as rotation:
        environment.secrets_manager.inject(DENIED)
        with ending(environment, rotation):
            start(driver, startup_timeout_seconds=30, **only_database(environment))


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_so_does_a_start_with_redis(environment: Sandbox, driver: str) -> None:
    """With only the new password valid."""
    with half_rotated_redis(environment) as rotation:
        environment.secrets_manager.inject(DENIED)
        with ending(environment, rotation):
            start(driver, startup_timeout_seconds=30, **only_redis(environment))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (DENIED, "AWSPENDING could not be read (ConfigurationError: Secrets Manager, asked for "),
        (
            Fault("GetSecretValue", times=None, code="ThrottlingException", stage="AWSPENDING"),
            "AWSPENDING could not be read (CredentialsUnavailable: ",
        ),
        (pending_without_value(times=None), "AWSPENDING has no other"),
    ],
    ids=["denied", "throttled", "without a value"],
)
@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_a_start_that_is_refused_until_its_end_says_what_it_tried(
    environment: Sandbox, driver: str, fault: Fault, said: str
) -> None:
    """It is a refused login whichever clock ends first, and within the time of a start."""
    with half_rotated_database(environment):
        environment.secrets_manager.inject(fault)
        began = time.monotonic()
        with pytest.raises(LoginRefused) as raised:
            start(driver, startup_timeout_seconds=6, **only_database(environment))

    assert 2.0 < time.monotonic() - began < 20
    assert said in str(raised.value)
    assert fault is not DENIED or "AWS says: " in str(raised.value)
    assert re.search(r"AWSCURRENT was tried for [2-5]\.", str(raised.value))


def test_without_another_version_a_wrong_password_is_told_in_time(environment: Sandbox) -> None:
    """Redis says no, and the time is up for both servers at once."""
    with half_rotated_redis(environment):
        environment.secrets_manager.inject(DENIED)
        with pytest.raises(LoginRefused, match="AWSPENDING could not be read"):
            start("psycopg2", startup_timeout_seconds=6, **only_redis(environment))
