"""What does a type checker know of a program on an event loop?"""

from collections.abc import Awaitable, Callable
from typing import assert_type

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from ledger_db import ConnectionManager


async def count(session: AsyncSession) -> int:
    """Work, as `ConnectionManager.async_run` takes it."""
    await session.flush()
    return len(session.new)


async def sessions(db: ConnectionManager) -> None:
    """Every way to a session gives SQLAlchemy's own."""
    async with db.async_session(read_only=True) as session:
        assert_type(session, AsyncSession)
    async with db.async_begin(isolation_level="REPEATABLE READ", statement_timeout_seconds=1.5) as session:
        assert_type(session, AsyncSession)
    assert_type(await db.async_run(count, patience_seconds=1.0), int)
    db.async_begin(readonly=True)  # type: ignore[call-arg] # misspelt
    await db.async_run(lambda session: 1)  # type: ignore[arg-type, return-value] # work is awaited


async def life(work: Callable[[ConnectionManager], Awaitable[None]]) -> None:
    """A manager is opened as a context manager or by its name."""
    async with ConnectionManager() as db:
        assert_type(db, ConnectionManager)
        await work(db)
    opened = await ConnectionManager().async_open()
    assert_type(opened, ConnectionManager)
    await opened.async_close()


async def clients(db: ConnectionManager) -> None:
    """Engine and client are those that one knows."""
    assert_type(db.async_engine, AsyncEngine)
    assert_type(db.async_redis, Redis)
    assert_type((await db.async_probe()).ok, bool)
