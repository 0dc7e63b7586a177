"""How is one and the same test run on every driver?  The work is written once, for a synchronous session."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy.orm import Session

from ledger_db import ConnectionManager, Settings
from ledger_db.sandbox import Sandbox

T = TypeVar("T")
Work = Callable[[Session], T]


class Client(Protocol):
    """A manager, used through one driver, for the synchronous caller that a test is."""

    @property
    def db(self) -> ConnectionManager:
        """The manager itself."""
        ...

    def begin(self, work: Work[T], **options: Any) -> T:
        """Do *work* inside `begin` or `async_begin`."""
        ...

    def session(self, work: Work[T], **options: Any) -> T:
        """Do *work* inside `session` or `async_session`: it commits by itself."""
        ...

    def run(self, work: Work[T], **options: Any) -> T:
        """Do *work* by `run` or `async_run`."""
        ...


@dataclass(frozen=True, slots=True)
class _OnThreads:
    db: ConnectionManager

    def begin(self, work: Work[T], **options: Any) -> T:
        with self.db.begin(**options) as session:
            return work(session)

    def session(self, work: Work[T], **options: Any) -> T:
        with self.db.session(**options) as session:
            return work(session)

    def run(self, work: Work[T], **options: Any) -> T:
        return self.db.run(work, **options)


@dataclass(frozen=True, slots=True)
class _OnALoop:
    db: ConnectionManager
    runner: asyncio.Runner

    def begin(self, work: Work[T], **options: Any) -> T:
        async def go() -> T:
            async with self.db.async_begin(**options) as session:
                return await session.run_sync(work)

        return self.runner.run(go())

    def session(self, work: Work[T], **options: Any) -> T:
        async def go() -> T:
            async with self.db.async_session(**options) as session:
                return await session.run_sync(work)

        return self.runner.run(go())

    def run(self, work: Work[T], **options: Any) -> T:
        return self.runner.run(self.db.async_run(lambda session: session.run_sync(work), **options))


DRIVERS = ("psycopg2", "psycopg", "asyncpg", "psycopg-async")


def is_on_loop(driver: str) -> bool:
    """Say whether one of `DRIVERS` runs on an event loop."""
    return driver in {"asyncpg", "psycopg-async"}


def choice_of(driver: str) -> dict[str, str]:
    """Return the setting that chooses one of `DRIVERS`."""
    field = "async_database_driver" if is_on_loop(driver) else "database_driver"
    return {field: driver.removesuffix("-async")}


def direct_settings(box: Sandbox) -> Settings:
    """
    Return settings with the credentials that are valid now, and without Redis.

    A manager then starts in 10 ms instead of 200.  For tests that rotate nothing.
    """
    with closing(box.client()) as client:
        secret = json.loads(client.get_secret_value(SecretId=box.database_secret_id)["SecretString"])
    return Settings(
        database_user=secret["username"],
        database_password=secret["password"],
        database_host=secret["host"],
        database_port=secret["port"],
        database_name=secret["dbname"],
        database_sslrootcert=box.environment.get("LEDGER_DB_DATABASE_SSLROOTCERT"),
    )


@contextmanager
def client_of(driver: str, settings: Settings, *, arguments: Any = None, **changes: Any) -> Iterator[Client]:
    """
    Open a manager whose statements go through *driver*, one of `DRIVERS`.

    Args:
        driver: Which one.

        settings: Of the manager.

        arguments: Its other ones.

        changes: What is different from *settings*.
    """
    known = settings.model_dump(exclude_unset=True)
    settings = Settings(**{**known, **choice_of(driver), **changes})
    manager = ConnectionManager(settings, **(arguments or {}))
    if not is_on_loop(driver):
        with manager as db:
            yield _OnThreads(db)
        return
    with asyncio.Runner() as runner:
        db = runner.run(manager.async_open())
        try:
            yield _OnALoop(db, runner)
        finally:
            runner.run(db.async_close())
