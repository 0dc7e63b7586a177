"""How much is said, and read, while many logins wait for a secret that cannot be read?"""

import asyncio
import gc
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, LoginRefused, Settings
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.faults import access_denied, throttled
from ledger_db.testing.faults import StuckRotation
from tests.support.events import event_of
from tests.support.waiting import eventually

MANY = 15


@pytest.fixture
def quiet(settings: Settings) -> Settings:
    """Settings with nothing but PostgreSQL, and places enough for everybody."""
    return settings.model_copy(
        update={"redis_secret_id": None, "pool_size": MANY, "login_patience_seconds": 4}
    )


def test_a_throttled_window_is_told_once(
    environment: Sandbox, quiet: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Fifteen threads wait; health counts reads, not who waited for them."""
    with ConnectionManager(quiet) as db:
        stuck = StuckRotation(environment, "single-user")
        try:
            environment.secrets_manager.inject(throttled("GetSecretValue", times=None))
            db.engine.dispose()
            before = environment.secrets_manager.calls().get("GetSecretValue", 0)

            def work(number: int) -> None:
                with suppress(LoginRefused), db.begin() as session:
                    session.execute(text("SELECT 1"))

            with (
                caplog.at_level(logging.WARNING, "ledger_db.credentials"),
                ThreadPoolExecutor(MANY) as threads,
            ):
                list(threads.map(work, range(MANY)))

            reads = environment.secrets_manager.calls().get("GetSecretValue", 0) - before
            assert [event_of(record) for record in caplog.records].count("credentials.stale") == 1
            assert 1 <= db.health().servers[0].credentials.failures <= reads
        finally:
            environment.secrets_manager.clear_faults()
            stuck.finish()


async def test_an_awspending_that_may_not_be_read_is_no_error(
    environment: Sandbox, quiet: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a documented state: the logins wait until the rotation moves on, and nothing complains."""
    # Longer than a busy machine takes to move it on.
    patient = quiet.model_copy(update={"login_patience_seconds": 60.0})
    async with ConnectionManager(patient) as db:
        stuck = await asyncio.to_thread(StuckRotation, environment, "single-user")
        finished = False
        try:
            environment.secrets_manager.inject(
                access_denied("GetSecretValue", stage="AWSPENDING", times=None)
            )
            await db.async_engine.dispose()
            caplog.set_level(logging.DEBUG)

            async def use() -> None:
                async with db.async_begin() as session:
                    await session.execute(text("SELECT 1"))

            requests = [asyncio.create_task(use()) for _ in range(MANY)]
            await asyncio.to_thread(
                eventually,
                lambda: "credentials.pending_unreadable" in map(event_of, caplog.records),
                "AWSPENDING was asked for",
            )
            environment.secrets_manager.clear_faults()
            await asyncio.to_thread(stuck.finish)
            finished = True
            await asyncio.gather(*requests)
        finally:
            environment.secrets_manager.clear_faults()
            if not finished:
                await asyncio.to_thread(stuck.finish)
    gc.collect()
    await asyncio.sleep(0)

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
