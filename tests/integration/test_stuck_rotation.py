"""What does a request see when a rotation stops half way?"""

import asyncio
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, LoginRefused, Settings
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.faults import access_denied, pending_without_value
from tests.support.half_rotation import half_rotated_database, half_rotated_redis


def request(db: ConnectionManager) -> str:
    """Open a connection of its own, as after a recycle, and ask for a row."""
    db.engine.pool.connect().invalidate()
    with db.session() as session:
        return str(session.execute(text("SELECT session_user")).scalar_one())


def refusals(log_file: Path) -> int:
    """Count the refused logins in the server's log."""
    return log_file.read_text().count("password authentication failed")


def test_the_pending_password_is_used_while_a_rotation_is_stuck(
    settings: Settings, environment: Sandbox
) -> None:
    """Between setSecret and finishSecret every new connection works, for as long as it takes."""
    with ConnectionManager(settings) as db, half_rotated_database(environment) as rotation:
        for _ in range(20):
            assert request(db).startswith("ledger_app")

        assert db.health().servers[0].credentials.version == rotation.version


def test_what_was_pending_stays_in_use_after_it_is_current(settings: Settings, environment: Sandbox) -> None:
    """finishSecret changes nothing for a service that was there already."""
    with ConnectionManager(settings) as db:
        with half_rotated_database(environment):
            request(db)
        before = db.health().servers[0].credentials.generation
        request(db)

        assert db.health().servers[0].credentials.generation == before


@pytest.mark.parametrize(
    "fault", [access_denied("GetSecretValue", stage="AWSPENDING"), pending_without_value()]
)
def test_without_a_readable_pending_version_patience_ends(
    settings: Settings, environment: Sandbox, fault: object
) -> None:
    """A crowd waits, is refused with a reason, and the server sees a bounded number of logins."""
    outcomes: list[str] = []

    def ask(db: ConnectionManager) -> None:
        try:
            request(db)
            outcomes.append("answered")
        except LoginRefused as error:
            outcomes.append(str(error))

    with ConnectionManager(settings) as db:
        before = refusals(environment.postgres.log_file)
        with half_rotated_database(environment):
            environment.secrets_manager.inject(fault)  # type: ignore[arg-type] # parametrized
            began = time.monotonic()
            crowd = [threading.Thread(target=ask, args=(db,)) for _ in range(10)]
            for thread in crowd:
                thread.start()
            for thread in crowd:
                thread.join()
            waited = time.monotonic() - began
            logins = refusals(environment.postgres.log_file) - before

        assert len(outcomes) == 10
        assert all("compare the secret with the server's user" in outcome for outcome in outcomes)
        assert waited >= settings.login_patience_seconds
        assert logins <= 40
        # It is over once the rotation is: the cool-down does not outlast it by much.
        deadline = time.monotonic() + 10
        while True:
            try:
                assert request(db).startswith("ledger_app")
                break
            except LoginRefused:
                assert time.monotonic() < deadline


def test_a_window_shorter_than_patience_costs_a_wait_and_no_failure(
    settings: Settings, environment: Sandbox
) -> None:
    """AWSPENDING is denied, AWSCURRENT moves after a second: the request is late, not lost."""
    with ConnectionManager(settings) as db, half_rotated_database(environment) as rotation:
        environment.secrets_manager.inject(access_denied("GetSecretValue", stage="AWSPENDING"))

        def end() -> None:
            environment.secrets_manager.clear_faults()
            rotation.finish()

        finish = threading.Timer(1.0, end)
        finish.start()
        assert request(db).startswith("ledger_app")
        finish.join()


async def test_an_event_loop_goes_on_while_a_login_waits(settings: Settings, environment: Sandbox) -> None:
    """A refused login in an async engine never holds up the loop."""
    async with ConnectionManager(settings) as db:
        with half_rotated_database(environment):
            environment.secrets_manager.inject(access_denied("GetSecretValue", stage="AWSPENDING"))
            login = asyncio.create_task(db.async_engine.connect().start())
            ticks, worst = 0, 0.0
            while not login.done():
                began = time.perf_counter()
                await asyncio.sleep(0.01)
                worst = max(worst, time.perf_counter() - began)
                ticks += 1

        with pytest.raises(LoginRefused):
            login.result()
        assert ticks > 20
        assert worst < 2.5


def test_redis_uses_the_pending_password_too(settings: Settings, environment: Sandbox) -> None:
    """A Redis rotation with no overlap at all is survived the same way."""
    with ConnectionManager(settings) as db, half_rotated_redis(environment) as rotation:
        for _ in range(5):
            db.redis.connection_pool.disconnect()
            assert db.redis.ping()

        assert db.health().servers[1].credentials.version == rotation.version


async def test_redis_on_an_event_loop_too(settings: Settings, environment: Sandbox) -> None:
    """The asynchronous client takes the same way."""
    async with ConnectionManager(settings) as db:
        with half_rotated_redis(environment) as rotation:
            for _ in range(5):
                await db.async_redis.connection_pool.disconnect()
                assert await db.async_redis.ping()

            assert db.health().servers[1].credentials.version == rotation.version


def test_a_wrong_redis_password_is_not_repeated_ten_times(settings: Settings, environment: Sandbox) -> None:
    """What redis-py would try eleven times in four seconds is refused once patience ends, and says why."""
    with ConnectionManager(settings) as db, half_rotated_redis(environment):
        environment.secrets_manager.inject(access_denied("GetSecretValue"))
        db.redis.connection_pool.disconnect()
        began = time.monotonic()
        with pytest.raises(LoginRefused, match="user 'ledger_app'"):
            db.redis.ping()

        assert time.monotonic() - began < settings.login_patience_seconds + 2
