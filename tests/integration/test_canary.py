"""Does any password of fifty rotations show anywhere?"""

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, LoginRefused, ServerUnreachable, Settings
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.faults import access_denied, throttled
from tests.support.half_rotation import half_rotated_database, half_rotated_redis
from tests.support.waiting import eventually

ROTATIONS = 50


class Ear(logging.Handler):
    """Hears every record of every logger, formatted with its traceback and its extra fields."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Remember the record."""
        self.heard.append(f"{self.format(record)} {record.__dict__!r}")


@pytest.fixture
def ear() -> Iterator[Ear]:
    """An ear on everything, at DEBUG, SQLAlchemy's pool and engine included."""
    ear, root = Ear(), logging.getLogger()
    before = root.level
    names = [
        "sqlalchemy.engine",
        "sqlalchemy.pool",
        "botocore",
        "boto3",
        "urllib3",
        "asyncio",
        "redis",
        "psycopg",
    ]
    levels = {name: logging.getLogger(name).level for name in names}
    root.addHandler(ear)
    root.setLevel(logging.DEBUG)
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield ear
    root.removeHandler(ear)
    root.setLevel(before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


class Places:
    """Everything that was shown, by where."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}

    def add(self, where: str, what: object) -> None:
        """Remember what a place shows."""
        self.shown[where] = f"{self.shown.get(where, '')}\n{what}"

    def hits(self, passwords: set[str]) -> list[str]:
        """Return the places where a password can be read."""
        return [where for where, what in self.shown.items() if any(p in what for p in passwords)]


def passwords_of(box: Sandbox) -> set[str]:
    """Return the passwords that the secrets hold now."""
    with closing(box.client()) as client:
        values = [
            client.get_secret_value(SecretId=secret_id, VersionStage="AWSCURRENT")
            for secret_id in (box.database_secret_id, box.redis_secret_id, box.admin_secret_id)
        ]
    return {json.loads(value["SecretString"])["password"] for value in values}


def look_at(places: Places, db: ConnectionManager) -> None:
    """Print whatever a developer or a health check may print."""
    places.add("repr", [db, db.engine, db.engine.url, db.engine.pool, db.redis, db.redis.connection_pool])
    places.add("repr of connections", db.redis.connection_pool.connection_kwargs)
    places.add("health", json.dumps(db.health().as_dict()))
    with db.engine.connect() as connection:
        places.add("repr of connections", [connection, connection.connection.dbapi_connection])


def note(places: Places, error: BaseException, *, capture_locals: bool = True) -> None:
    """Keep the traceback of *error*, with every local variable, as error trackers do."""
    told = traceback.TracebackException.from_exception(error, capture_locals=capture_locals)
    places.add("exceptions", "".join(told.format()))


async def fail_in_every_way(places: Places, db: ConnectionManager, box: Sandbox) -> None:
    """Provoke refusals, unreachable servers and a failing statement, and keep their tracebacks."""
    with half_rotated_database(box):
        box.secrets_manager.inject(access_denied("GetSecretValue"))
        db.engine.dispose()
        await db.async_engine.dispose()
        with pytest.raises(LoginRefused) as refused:
            db.engine.connect()
        note(places, refused.value)
        eventually(lambda: "a moment ago" not in refusal_of(db), "the cool-down ends")
        with pytest.raises(LoginRefused) as refused:
            await db.async_engine.connect()
        note(places, refused.value)
    with half_rotated_redis(box):
        box.secrets_manager.inject(throttled("GetSecretValue", times=None))
        db.redis.connection_pool.disconnect()
        with pytest.raises(LoginRefused) as refused:
            db.redis.ping()
        note(places, refused.value)
    eventually(lambda: refusal_of(db) == "", "logins work again")
    with pytest.raises(Exception, match="no_such_table") as wrong, db.begin() as session:
        session.execute(text("SELECT * FROM no_such_table WHERE secret = :value"), {"value": "x"})
    note(places, wrong.value, capture_locals=False)
    for driver, on_loop in (("psycopg2", False), ("psycopg", False), ("asyncpg", True), ("psycopg", True)):
        values: dict[str, Any] = {"async_database_driver" if on_loop else "database_driver": driver}
        elsewhere = ConnectionManager(
            Settings(redis_secret_id=None, database_port=1, startup_timeout_seconds=5, **values)
        )
        with pytest.raises(ServerUnreachable) as unreachable:
            await elsewhere.async_open() if on_loop else elsewhere.open()
        note(places, unreachable.value)


def refusal_of(db: ConnectionManager) -> str:
    """Return why a login is refused; empty if it is not."""
    try:
        db.engine.connect().close()
    except LoginRefused as error:
        return str(error)
    return ""


def text_of(file: Path) -> str:
    """Return what a server has written."""
    return file.read_text()


def process_arguments() -> str:
    """Return the arguments of every process that can be seen."""
    return "\n".join(str(process.info["cmdline"]) for process in psutil.process_iter(["cmdline"]))


async def test_no_password_shows_anywhere(ear: Ear, environment: Sandbox) -> None:
    """Not in a log line, a repr, a traceback, a URL, a health answer, a process argument, a server log."""
    places = Places()
    settings = Settings(refresh_interval_seconds=300, login_patience_seconds=0.5)
    async with ConnectionManager(settings) as db:
        # Not before: what another client of this process logs until then is not ours to hide.
        passwords = passwords_of(environment)
        for number in range(ROTATIONS):
            version = environment.rotate_database("single-user" if number % 2 else "alternating-users")
            environment.rotate_redis()
            passwords |= passwords_of(environment)
            db.engine.pool.connect().invalidate()
            with db.session() as session:
                session.execute(text("SELECT 1"))
            async with db.async_session() as async_session:
                await async_session.execute(text("SELECT 1"))
            db.redis.connection_pool.disconnect()
            db.redis.ping()
            await db.async_redis.ping()
        # The other user of the pair is still good: without a look the manager would stay on that one.
        db.look_now()
        eventually(
            lambda: db.health().servers[0].credentials.version == version, "the last rotation is followed"
        )
        look_at(places, db)
        places.add("process arguments", process_arguments())
        await fail_in_every_way(places, db, environment)
        passwords |= passwords_of(environment)
    places.add("log", "\n".join(ear.heard))
    for server in (environment.postgres, environment.redis):
        places.add(f"log of {type(server).__name__}", text_of(server.log_file))

    assert len(passwords) > 2 * ROTATIONS
    assert len(ear.heard) > 1000
    assert places.hits(passwords) == []


def test_the_search_finds_what_is_there(ear: Ear, environment: Sandbox) -> None:
    """A password that does show is found: the test above can fail."""
    places = Places()
    passwords = passwords_of(environment)
    logging.getLogger("somebody").debug("careless: %s", next(iter(passwords)))
    places.add("log", "\n".join(ear.heard))

    assert places.hits(passwords) == ["log"]
