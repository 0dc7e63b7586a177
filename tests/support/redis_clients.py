"""How is one and the same test run on both Redis clients?  The work is written once, for either."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ledger_db import ConnectionManager, Settings
from ledger_db.sandbox import Sandbox

KINDS = ("threads", "loop")

# Of what redis-py returns for a client: a value, or on a loop what has to be awaited.
Work = Callable[[Any], Any]


class RedisClient(Protocol):
    """A manager, used through one of its clients, for the synchronous caller that a test is."""

    @property
    def db(self) -> ConnectionManager:
        """The manager itself."""
        ...

    def do(self, work: Work) -> Any:
        """Return what *work* comes to."""
        ...


class _OnThreads:
    def __init__(self, db: ConnectionManager) -> None:
        self.db = db

    def do(self, work: Work) -> Any:
        return work(self.db.redis)


class _OnALoop:
    def __init__(self, db: ConnectionManager, runner: asyncio.Runner) -> None:
        self.db = db
        self._runner = runner

    def do(self, work: Work) -> Any:
        async def go() -> Any:
            return await work(self.db.async_redis)

        return self._runner.run(go())


def direct_redis_settings(box: Sandbox, **changes: Any) -> Settings:
    """Return settings that lead to the Redis of *box* alone, as one who may do everything."""
    redis = box.redis
    fields: dict[str, Any] = {
        "database_secret_id": None,
        "redis_secret_id": None,
        "redis_host": redis.host,
        "redis_port": redis.port,
        "redis_user": redis.admin_user,
        "redis_password": redis.admin_password,
        "startup_timeout_seconds": 30,
        "login_patience_seconds": 3,
    }
    return Settings(**{**fields, **changes})


def ended(thing: Any) -> Any:
    """Close a client or a subscriber of either kind."""
    return thing.aclose() if hasattr(thing, "aclose") else thing.close()


@contextmanager
def redis_client(kind: str, settings: Settings) -> Iterator[RedisClient]:
    """Open a manager, and close it where its connections are."""
    if kind == "threads":
        with ConnectionManager(settings) as db:
            yield _OnThreads(db)
        return
    with asyncio.Runner() as runner:
        db = runner.run(ConnectionManager(settings).async_open())
        try:
            yield _OnALoop(db, runner)
        finally:
            runner.run(db.async_close())
