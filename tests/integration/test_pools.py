"""Do the kinds of pools keep what the manager promises: no failure, no leak, no more than was asked for?"""

import asyncio
import logging
from contextlib import closing

import pytest
from sqlalchemy import text

from benchmarks.rotation_stress import DRIVERS, Plan, run
from ledger_db import ConnectionManager, Settings
from ledger_db.sandbox import Sandbox
from tests.support.events import event_of, fields_of
from tests.support.waiting import eventually

QUICK = {"login_patience_seconds": 3, "startup_timeout_seconds": 20}


def sessions(box: Sandbox) -> int:
    """Count the service's sessions on PostgreSQL."""
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'ledger_app%'")
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_request_fails_in_a_rotation_without_a_pool(
    environment: Sandbox, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each request logs in, each meets the window of a rotation, and still none fails or leaks."""
    monkeypatch.setenv("LEDGER_DB_PROFILE", "test")
    plan = Plan(driver=driver, strategy="single-user", rotations=2, window_seconds=0.3)

    result = run(environment, plan)

    assert result.requests > 0
    assert not result.failures, str(result.failures)
    assert result.connections_left == 0
    assert result.reads_beyond_polling <= 4 * plan.rotations


def test_without_a_pool_nothing_is_kept(environment: Sandbox) -> None:
    """After a request there is no session on the server, so tests have none to share."""
    with ConnectionManager(Settings(profile="test", redis_secret_id=None, **QUICK)) as db:
        for _ in range(3):
            with db.begin() as session:
                session.execute(text("SELECT 1"))

        eventually(lambda: sessions(environment) == 0, "no session is kept")
        assert db.health().ok
        assert db.health().servers[0].pools == ()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_without_a_pool_one_event_loop_after_the_other_may_use_it(environment: Sandbox, driver: str) -> None:
    """A test runner that makes a loop for each test needs one manager, and follows rotations in each loop."""
    settings = Settings(profile="test", redis_secret_id=None, async_database_driver=driver, **QUICK)

    async def user(db: ConnectionManager) -> str:
        async with db.async_session() as session:
            return str((await session.execute(text("SELECT session_user"))).scalar_one())

    with ConnectionManager(settings) as db:
        before = asyncio.run(user(db))
        environment.rotate_database("alternating-users")
        db.look_now()
        eventually(lambda: db.health().servers[0].credentials.generation == 2, "the rotation is followed")

        assert asyncio.run(user(db)) != before
    eventually(lambda: sessions(environment) == 0, "no session is left")


def test_what_becomes_of_a_connection_is_logged_on_request(
    environment: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """Opened, borrowed, returned, closed: with the pool's counters and the version, without an address."""
    caplog.set_level(logging.INFO, logger="ledger_db.connections.pool_events")
    with ConnectionManager(Settings(log_pool_events=True, redis_secret_id=None, **QUICK)) as db:
        version = db.health().servers[0].credentials.version
        # The start keeps none, so the first one is opened by whoever comes first.
        db.engine.connect().close()
        caplog.clear()
        with db.begin() as session:
            session.execute(text("SELECT 1"))
        with db.engine.connect() as connection:
            connection.invalidate(ValueError("password=hunter2"))

    records = [record for record in caplog.records if record.name.endswith("pool_events")]
    assert [event_of(record) for record in records] == [
        "pool.borrowed",
        "pool.returned",
        "pool.borrowed",
        "pool.invalidated",
        "pool.closed",
        "pool.returned",
    ]
    first = fields_of(records[0])
    assert {name: first[name] for name in ("driver", "version", "checked_out", "idle", "size")} == {
        "driver": "psycopg2",
        "version": version,
        "checked_out": 1,
        "idle": 0,
        "size": 5,
    }
    assert fields_of(records[3])["cause"] == "ValueError"
    said = " ".join(str(vars(record)) for record in records)
    assert "hunter2" not in said
    assert environment.postgres.host not in said


async def test_they_are_logged_for_the_asynchronous_engine_too(
    environment: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The same lines from the same listeners, down to the closing at the end."""
    caplog.set_level(logging.INFO, logger="ledger_db.connections.pool_events")
    settings = Settings(log_pool_events=True, redis_secret_id=None, **QUICK)
    async with ConnectionManager(settings) as db, db.async_begin() as session:
        await session.execute(text("SELECT 1"))

    messages = [event_of(record) for record in caplog.records if record.name.endswith("pool_events")]
    assert messages[:2] == ["pool.opened", "pool.borrowed"]
    assert messages[-1] == "pool.closed"


def test_not_asked_for_it_costs_no_listener(settings: Settings) -> None:
    """A request passes through the same number of listeners as if there were no such log."""
    quiet, talking = (
        ConnectionManager(settings.model_copy(update={"log_pool_events": wanted}))._database
        for wanted in (False, True)
    )
    assert quiet is not None
    assert talking is not None

    def listeners(name: str) -> tuple[int, int]:
        return tuple(len(getattr(server.engine.pool.dispatch, name)) for server in (quiet, talking))  # type: ignore[return-value]

    assert listeners("checkout") == (1, 2)
    assert listeners("checkin") == (1, 2)
    assert listeners("close") == (0, 1)
