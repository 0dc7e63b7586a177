"""
So many sessions with SELECT 1 and little else: what `instructions` counts.

    python -m benchmarks.counted psycopg2 ledger_db 200

Where the server is says the environment, by the names of the settings.  There is no secret to ask for, and
no clock of ours goes off meanwhile: neither is a session's.
"""

import asyncio
import gc
import sys
from typing import Any, Final, Literal

from sqlalchemy import URL, Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from ledger_db import ConnectionManager, Settings

Driver = Literal["psycopg2", "asyncpg"]
Side = Literal["bare", "listeners", "ledger_db"]

# An hour: under a tool that counts, everything takes fifty times as long.
_PATIENCE_SECONDS: Final = 3600.0
# What the manager's engines listen to.
_EVENTS: Final = ("do_connect", "connect", "checkout", "checkin", "invalidate", "handle_error")


def settings() -> Settings:
    """Return settings with which nothing happens but what is asked for."""
    return Settings(
        refresh_interval_seconds=24 * _PATIENCE_SECONDS,
        pool_recycle_seconds=24 * _PATIENCE_SECONDS,
        connect_timeout_seconds=_PATIENCE_SECONDS,
        startup_timeout_seconds=_PATIENCE_SECONDS,
        silence_timeout_seconds=_PATIENCE_SECONDS,
    )


def engine_arguments(driver: Driver) -> dict[str, Any]:
    """Return what makes an engine with the manager's options."""
    known = settings()
    assert known.database_password is not None
    password = known.database_password.get_secret_value()
    where = (known.database_host, known.database_port, known.database_name)
    return {
        "url": URL.create(f"postgresql+{driver}", known.database_user, password, *where),
        "pool_size": known.pool_size,
        "max_overflow": known.max_overflow,
        "pool_recycle": known.pool_recycle_seconds,
        "hide_parameters": True,
    }


def listen_for_nothing(engine: Engine) -> None:
    """Let *engine* have a listener wherever the manager's have one; it does nothing."""

    def do_nothing(first: object, second: object = None, third: object = None, fourth: object = None) -> None:
        return None

    for name in _EVENTS:
        event.listen(engine, name, do_nothing)


def ask(side: Side, sessions: int) -> None:
    """Open *sessions* on psycopg2."""
    if side == "ledger_db":
        with ConnectionManager(settings()) as db:
            for _ in range(sessions):
                with db.session() as session:
                    session.execute(text("SELECT 1"))
        return
    engine = create_engine(**engine_arguments("psycopg2"))
    if side == "listeners":
        listen_for_nothing(engine)
    for _ in range(sessions):
        with Session(engine, expire_on_commit=False, close_resets_only=False) as session:
            session.execute(text("SELECT 1"))
    engine.dispose()


async def async_ask(side: Side, sessions: int) -> None:
    """Same as `ask`, on asyncpg."""
    if side == "ledger_db":
        async with ConnectionManager(settings()) as db:
            for _ in range(sessions):
                async with db.async_session() as session:
                    await session.execute(text("SELECT 1"))
        return
    engine = create_async_engine(**engine_arguments("asyncpg"))
    if side == "listeners":
        listen_for_nothing(engine.sync_engine)
    for _ in range(sessions):
        async with AsyncSession(engine, expire_on_commit=False, close_resets_only=False) as session:
            await session.execute(text("SELECT 1"))
    await engine.dispose()


def main(driver: str, side: Any, sessions: str) -> None:
    """Ask, as the command line says."""
    # When it collects, and how much there is to look at, depends on what else a process has loaded.
    gc.disable()
    if driver == "asyncpg":
        asyncio.run(async_ask(side, int(sessions)))
    else:
        ask(side, int(sessions))


if __name__ == "__main__":
    main(*sys.argv[1:])
