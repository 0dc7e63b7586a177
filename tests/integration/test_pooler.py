"""Does a service work behind a real PgBouncer, in both modes, and does a rotation cost it nothing?"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from ledger_db import ConnectionManager, LoginRefused, Settings
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import choice_of, client_of, is_on_loop
from tests.support.pgbouncer import PgBouncer, pgbouncer
from tests.support.rotations import Rotations
from tests.support.waiting import eventually

MODES = ("session", "transaction")
_ADD = text("SELECT CAST(:n AS int) + 1")
_TWICE = text("SELECT CAST(:n AS int) * 2")
_WHO = text("SELECT session_user")


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each mode of a pooler."""
    name: str = request.param
    return name


@dataclass
class Requests:
    """
    What became of requests, each of which is a transaction with a few statements.

    Attributes:
        repeated: Whether each is done by `run`.

        stop: Ends them.

        done: How many have worked, by the user of the server that did them.

        failed: With what.
    """

    repeated: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    done: Counter[str] = field(default_factory=Counter)
    failed: list[BaseException] = field(default_factory=list)

    def ask(self, session: Session) -> None:
        """Be a request."""
        for n in range(2):
            assert session.execute(_ADD, {"n": n}).scalar_one() == n + 1
            assert session.execute(_TWICE, {"n": n}).scalar_one() == n * 2
        self.done[session.execute(_WHO).scalar_one()] += 1

    def on_threads(self, db: ConnectionManager) -> None:
        """Ask until somebody says stop."""
        while not self.stop.is_set():
            try:
                if self.repeated:
                    db.run(self.ask)
                else:
                    with db.begin() as session:
                        self.ask(session)
            except Exception as error:  # noqa: BLE001 - whatever it is, a request has failed
                self.failed.append(error)

    async def on_a_loop(self, db: ConnectionManager) -> None:
        """Same as `on_threads`."""
        while not self.stop.is_set():
            try:
                if self.repeated:
                    await db.async_run(lambda session: session.run_sync(self.ask))
                else:
                    async with db.async_begin() as session:
                        await session.run_sync(self.ask)
            except Exception as error:  # noqa: BLE001 - as above
                self.failed.append(error)


async def _serve_on_a_loop(settings: Settings, requests: Requests, opened: Callable[[Any], None]) -> None:
    async with ConnectionManager(settings) as db:
        opened(db)
        await asyncio.gather(*(requests.on_a_loop(db) for _ in range(4)))


def _serve_on_threads(settings: Settings, requests: Requests, opened: Callable[[Any], None]) -> None:
    with ConnectionManager(settings) as db:
        opened(db)
        threads = [threading.Thread(target=requests.on_threads, args=(db,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@contextmanager
def serving(
    driver: str, settings: Settings, *, repeated: bool = False
) -> Iterator[tuple[ConnectionManager, Requests]]:
    """Let four workers ask without pause, in a thread of the service's own."""
    requests, managers = Requests(repeated=repeated), list[ConnectionManager]()
    settings = Settings(**{**settings.model_dump(exclude_unset=True), **choice_of(driver)})

    def serve() -> None:
        if is_on_loop(driver):
            asyncio.run(_serve_on_a_loop(settings, requests, managers.append))
        else:
            _serve_on_threads(settings, requests, managers.append)

    service = threading.Thread(target=serve)
    service.start()
    try:
        eventually(lambda: bool(requests.done) or not service.is_alive(), "the service works")
        yield managers[0], requests
    finally:
        requests.stop.set()
        service.join(30)
    assert not service.is_alive()


def in_use(db: ConnectionManager) -> str | None:
    """Return the version that the service logs in with."""
    return db.health().servers[0].credentials.version


def settings_for(rotations: Rotations, pooler: PgBouncer, mode: str, **changes: Any) -> Settings:
    """Read the secret, and log in at the pooler."""
    usual: dict[str, Any] = {
        "database_secret_id": rotations.secret_id,
        "redis_secret_id": None,
        "database_port": pooler.port,
        "pooler": mode,
        "renewal_spread_seconds": 1,
        "startup_timeout_seconds": 30,
    }
    return Settings(**{**usual, **changes})


def rotate(rotations: Rotations, db: ConnectionManager, requests: Requests, pooler: PgBouncer | None) -> None:
    """Rotate twice, and wait until requests are done by who was rotated; let *pooler* connect anew."""
    for _ in range(2):
        version = rotations.run()
        db.look_now()
        if pooler is not None:
            pooler.command("RECONNECT")
        eventually(lambda: in_use(db) == version, "it is in use")  # noqa: B023
        before, user = requests.done.copy(), rotations.value()["username"]
        eventually(lambda: requests.done[user] > before[user] + 50, "requests go on")  # noqa: B023


@pytest.mark.parametrize(
    ("strategy", "pool"),
    [("postgres-alternating", "queue"), ("postgres-single", "queue"), ("postgres-single", "none")],
)
def test_a_rotation_behind_a_pooler_costs_no_request(
    environment: Sandbox, pair: Rotations, driver: str, mode: str, strategy: str, pool: str
) -> None:
    """In both modes, on every driver: who is logged in goes on, who has to log in finds what is new."""
    with (
        pgbouncer(environment, mode) as pooler,
        serving(driver, settings_for(pair, pooler, mode, pool=pool)) as (db, requests),
    ):
        rotate(replace(pair, strategy=strategy), db, requests, pooler=None)

    assert requests.failed == []


def test_a_pooler_that_loses_its_servers_in_a_rotation_is_waited_for(
    environment: Sandbox, pair: Rotations, driver: str
) -> None:
    """Until nobody is left with the old password it has no server at times, and says so: `run` asks again."""
    with (
        pgbouncer(environment, "transaction", server_login_retry=1) as pooler,
        serving(driver, settings_for(pair, pooler, "transaction"), repeated=True) as (db, requests),
    ):
        rotate(replace(pair, strategy="postgres-single"), db, requests, pooler)

    assert requests.failed == []


def test_nothing_is_prepared_behind_a_pooler_by_transaction(
    environment: Sandbox, pair: Rotations, driver: str
) -> None:
    """A statement that was prepared on one of its connections is not there on the next."""
    with pgbouncer(environment, "transaction", default_pool_size=2) as pooler:
        with serving(driver, settings_for(pair, pooler, "transaction")) as (_, requests):
            eventually(lambda: requests.done.total() > 200, "there were many requests")
        settings = settings_for(pair, pooler, "transaction")
        with client_of("psycopg2", settings) as client:
            left = client.begin(
                lambda session: session.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
            )

    assert requests.failed == []
    assert left == 0


def test_what_a_session_asks_for_stays_in_its_transaction(
    environment: Sandbox, pair: Rotations, driver: str, mode: str
) -> None:
    """Who gets the pooler's one connection next has none of it."""
    asked: dict[str, Any] = {
        "read_only": True,
        "isolation_level": "SERIALIZABLE",
        "statement_timeout_seconds": 7,
    }

    def state(session: Session) -> list[str]:
        names = ("transaction_read_only", "transaction_isolation", "statement_timeout")
        return [session.scalar(text(f"SHOW {name}")) for name in names]

    with pgbouncer(environment, mode, default_pool_size=1) as pooler:
        settings = settings_for(pair, pooler, mode)
        with client_of(driver, settings) as client:
            during = client.begin(state, **asked)
            again = client.begin(state)
            if mode == "transaction":
                # Another client: the pooler has only one connection to give.
                with client_of("psycopg2", settings) as other:
                    assert other.begin(state) == again

    assert during == ["on", "serializable", "7s"]
    assert again == ["off", "read committed", "0"]


def test_a_login_that_the_pooler_refuses_is_a_refused_login(
    environment: Sandbox, pair: Rotations, driver: str, mode: str
) -> None:
    """A wrong password and a user that nobody knows, in the pooler's words."""
    with pgbouncer(environment, mode) as pooler:
        known: dict[str, Any] = {
            "database_secret_id": None,
            "redis_secret_id": None,
            "database_host": "127.0.0.1",
            "database_port": pooler.port,
            "database_name": environment.postgres.database,
            "pooler": mode,
            "login_patience_seconds": 0.5,
        }
        for user in (pair.value()["username"], "nobody_there"):
            settings = Settings(database_user=user, database_password="wrong", **known)
            with pytest.raises(LoginRefused), client_of(driver, settings):
                pass
