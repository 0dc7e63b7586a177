"""What does a type checker know of somebody's own tests, and of the servers that they run on?"""

from pathlib import Path
from typing import assert_type

from fastapi import FastAPI
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger_db import ConnectionManager, CredentialProvider, Credentials, CredentialsUnavailable
from ledger_db.sandbox import PostgresServer, Sandbox, Strategy, TLSFiles
from ledger_db.testing import (
    Faults,
    IsolatedManager,
    ManualClock,
    ScriptedPostgres,
    ScriptedSource,
    StuckRotation,
    async_isolated,
    isolated,
    override_manager,
)


def overridden(app: FastAPI, db: ConnectionManager) -> None:
    """A manager is put in front of an application for a ``with`` block."""
    with override_manager(app, db, name="reports"), isolated(db) as one:
        assert_type(one, IsolatedManager)
        assert_type(one.engine, Engine)
        as_good_as: ConnectionManager = one
        as_good_as.health()
    override_manager(db, app)  # type: ignore[arg-type] # the other way round


async def on_the_loop(db: ConnectionManager) -> None:
    """The same on an event loop."""
    async with async_isolated(db) as one:
        assert_type(one.async_engine, AsyncEngine)


def doubles(credentials: Credentials) -> None:
    """A clock is a function, and a script answers or raises."""
    clock = ManualClock(5.0)
    clock.advance(1.5)
    assert_type(clock(), float)
    source = ScriptedSource(credentials, CredentialsUnavailable("down"), pending=[None])
    assert_type(source.fetch("AWSCURRENT"), Credentials | None)
    CredentialProvider(source, now=clock)
    source.fetch("AWSCURENT")  # type: ignore[arg-type] # misspelt
    with ScriptedPostgres("57P03", "the database system is starting up") as server:
        assert_type((server.port, server.logins), tuple[int, int])


def faults(switchboard: Faults) -> None:
    """What can go wrong is a method, so that it cannot be misspelt."""
    switchboard.secrets_manager.slow(1.0)
    assert_type(switchboard.postgres.kill_sessions(), int)
    stuck = switchboard.stuck_rotation("alternating-users")
    assert_type(stuck, StuckRotation)
    assert_type(stuck.version, str)
    switchboard.redis.crush()  # type: ignore[attr-defined] # misspelt


def sandbox(folder: Path, strategy: Strategy = "single-user") -> None:
    """The servers of a sandbox have addresses, and its rotations a version."""
    with Sandbox(directory=folder, keep=True, tls=True) as box:
        assert_type(box, Sandbox)
        assert_type(box.environment, dict[str, str])
        assert_type(box.postgres, PostgresServer)
        assert_type((box.postgres.host, box.redis.port), tuple[str, int])
        assert_type(box.tls, TLSFiles | None)
        assert_type(box.rotate_database(strategy, window_seconds=1.0), str)
        box.rotate_database("alternating")  # type: ignore[arg-type] # no strategy
        box.postgress  # type: ignore[attr-defined] # noqa: B018 - misspelt
