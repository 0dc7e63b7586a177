"""
The same rotation, survived or not: ledger_db beside what a user would write or install instead.

Twelve threads ask for a row every few milliseconds, connections are recycled every second, and a single-user
rotation leaves five seconds between the server's change and AWSCURRENT.

    python -m benchmarks.side_by_side

Counted: requests that failed until AWSCURRENT moved, and after it.  The AWS Advanced Python Wrapper and AWS's
caching client take part if they are installed (pip install aws-advanced-python-wrapper
aws-secretsmanager-caching "psycopg[binary]").
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from typing import Any, Self

from sqlalchemy import URL, Engine, create_engine, event, text

from ledger_db import ConnectionManager, Settings
from ledger_db.sandbox import Sandbox

WORKERS = 12
POOL: dict[str, Any] = {"pool_size": 8, "max_overflow": 4, "pool_recycle": 1, "pool_timeout": 5}
Way = Callable[[Sandbox], "Iterator[Engine]"]


def _read(client: Any, box: Sandbox) -> dict[str, Any]:
    answer = client.get_secret_value(SecretId=box.database_secret_id, VersionStage="AWSCURRENT")
    value: dict[str, Any] = json.loads(answer["SecretString"])
    return value


def _login(secret: dict[str, Any]) -> dict[str, Any]:
    return {
        "host": secret["host"],
        "port": int(secret["port"]),
        "dbname": secret["dbname"],
        "user": secret["username"],
        "password": secret["password"],
        "sslmode": "disable",
    }


def password_in_the_url(box: Sandbox) -> Iterator[Engine]:
    """Read the secret once, as most services do."""
    with closing(box.client()) as client:
        engine = create_engine("postgresql+psycopg2://", connect_args=_login(_read(client, box)), **POOL)
    yield engine
    engine.dispose()


def read_at_each_connect(box: Sandbox) -> Iterator[Engine]:
    """SQLAlchemy's documented do_connect recipe, with GetSecretValue in it."""
    with closing(box.client()) as client:
        engine = create_engine("postgresql+psycopg2://", **POOL)

        @event.listens_for(engine, "do_connect")
        def connect(dialect: Any, record: Any, cargs: list[Any], cparams: dict[str, Any]) -> None:
            cparams.update(_login(_read(client, box)))

        yield engine
        engine.dispose()


def aws_caching_client(box: Sandbox) -> Iterator[Engine]:
    """AWS's own caching client, with its defaults."""
    from aws_secretsmanager_caching import SecretCache  # noqa: PLC0415 - optional

    with closing(box.client()) as client:
        cache = SecretCache(client=client)
        engine = create_engine("postgresql+psycopg2://", **POOL)

        @event.listens_for(engine, "do_connect")
        def connect(dialect: Any, record: Any, cargs: list[Any], cparams: dict[str, Any]) -> None:
            cparams.update(_login(json.loads(cache.get_secret_string(box.database_secret_id))))

        yield engine
        engine.dispose()


def aws_advanced_wrapper(box: Sandbox) -> Iterator[Engine]:
    """The AWS Advanced Python Wrapper with its Secrets Manager plugin, on psycopg 3, by its own dialect."""
    from aws_advanced_python_wrapper import release_resources  # noqa: PLC0415 - optional

    server = box.postgres
    engine = create_engine(
        URL.create(
            "postgresql+aws_wrapper_psycopg",
            host=server.host,
            port=server.port,
            database=server.database,
            query={
                "sslmode": "disable",
                "wrapper_plugins": "aws_secrets_manager",
                "secrets_manager_secret_id": box.database_secret_id,
                "secrets_manager_region": "us-east-1",
                "secrets_manager_endpoint": box.secrets_manager.url,
            },
        ),
        **POOL,
    )
    yield engine
    engine.dispose()
    release_resources()


def ledger_db(box: Sandbox) -> Iterator[Engine]:
    """ConnectionManager with its defaults."""
    settings = Settings(
        redis_secret_id=None,
        pool_size=POOL["pool_size"],
        max_overflow=POOL["max_overflow"],
        pool_recycle_seconds=POOL["pool_recycle"],
    )
    with ConnectionManager(settings) as db:
        yield db.engine


WAYS: tuple[tuple[str, Way, str | None], ...] = (
    ("a password in the URL", password_in_the_url, None),
    ("GetSecretValue at each connect", read_at_each_connect, None),
    ("aws-secretsmanager-caching", aws_caching_client, "aws_secretsmanager_caching"),
    ("AWS Advanced Python Wrapper", aws_advanced_wrapper, "aws_advanced_python_wrapper"),
    ("ledger_db", ledger_db, None),
)


class Load:
    """Twelve threads, and what they count before and after the moment when AWSCURRENT moved."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._counting = threading.Lock()
        self.moved = False
        self.requests = {False: 0, True: 0}
        self.failed = {False: 0, True: 0}
        self.slowest_seconds = 0.0
        self._threads = [threading.Thread(target=self._work) for _ in range(WORKERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            began, moved, failed = time.perf_counter(), self.moved, False
            try:
                with self._engine.connect() as connection:
                    connection.execute(text("SELECT 1"))
            except Exception:  # noqa: BLE001 - every failure counts
                failed = True
            with self._counting:
                self.requests[moved] += 1
                self.failed[moved] += failed
                self.slowest_seconds = max(self.slowest_seconds, time.perf_counter() - began)
            time.sleep(0.01)


def measure(box: Sandbox, name: str, way: Way, window_seconds: float) -> str:
    """Rotate once under load; return a row for a table."""
    with contextmanager(way)(box) as engine, Load(engine) as load:
        time.sleep(2)
        reads = box.secrets_manager.calls().get("GetSecretValue", 0)
        box.rotate_database("single-user", window_seconds=window_seconds)
        load.moved = True
        time.sleep(4)
        # The rotation itself reads twice in each of its four steps.
        reads = box.secrets_manager.calls().get("GetSecretValue", 0) - reads - 8
    return (
        f"{name:32} {load.failed[False]:5} of {load.requests[False]:6}   {load.failed[True]:5} of "
        f"{load.requests[True]:6}   {reads:5}   {load.slowest_seconds * 1000:7.0f} ms"
    )


def main() -> None:
    """Measure every way that is installed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--window", type=float, default=5.0, help="seconds between server and AWSCURRENT")
    arguments = parser.parse_args()
    print(f"{'':32} failed in window   failed after it   reads   slowest")
    with Sandbox() as box:
        os.environ.update(box.environment)
        for name, way, needs in WAYS:
            if needs is None or find_spec(needs) is not None:
                print(measure(box, name, way, arguments.window), flush=True)
            else:
                print(f"{name:32} not installed")


if __name__ == "__main__":
    main()
