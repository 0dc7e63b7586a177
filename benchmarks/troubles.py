"""
What does a service do a minute, by itself, while something is wrong with its credentials?

Eight threads ask for a row five times a second, and every connection is new once in two seconds.  Counted are
reads of the secret, logins that reached PostgreSQL, lines of the log from warning on, and all of them.

    python -m benchmarks.troubles --seconds 30
"""

import argparse
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.faults import Fault, access_denied, rubbish, slow, throttled, unavailable
from ledger_db.testing.faults import StuckRotation

WORKERS = 8
_SECRET = "trust-ledger/troubles"


@dataclass(slots=True)
class World:
    """A sandbox and a secret of the service's own in it."""

    box: Sandbox

    def put(self, **changes: object) -> None:
        """Give the service's secret a new version that differs from the application's by *changes*."""
        with closing(self.box.client()) as client:
            current = client.get_secret_value(SecretId=self.box.database_secret_id)["SecretString"]
            value = json.dumps({**json.loads(current), **changes})
            with suppress(client.exceptions.ResourceExistsException):
                client.create_secret(Name=_SECRET, SecretString=value)
                return
            client.put_secret_value(SecretId=_SECRET, SecretString=value)

    def reads(self) -> int:
        """Return how often a secret was read so far."""
        return self.box.secrets_manager.calls().get("GetSecretValue", 0)

    def logins(self) -> int:
        """Return how many logins PostgreSQL has seen so far, those that it refused included."""
        with closing(self.box.postgres.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT sum(sessions) FROM pg_stat_database WHERE datname IS NOT NULL")
            sessions = int(cursor.fetchone()[0])
        return sessions + self.box.postgres.log_file.read_text(errors="replace").count("FATAL:")


class Lines(logging.Handler):
    """Counts what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.all = self.loud = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count it."""
        self.all += 1
        self.loud += record.levelno >= logging.WARNING


Trouble = Callable[[World], None]


def fault(what: Fault) -> Trouble:
    """Let Secrets Manager misbehave."""
    return lambda world: world.box.secrets_manager.inject(what)


def version(**changes: object) -> Trouble:
    """Give the secret a version that nobody can use."""
    return lambda world: world.put(**changes)


def stop_postgres(world: World) -> None:
    """Take the server away."""
    world.box.postgres.stop()


def stuck(what: Fault | None = None) -> Trouble:
    """Leave a rotation between setSecret and finishSecret."""

    def begin(world: World) -> None:
        StuckRotation(world.box, "single-user")
        if what is not None:
            world.box.secrets_manager.inject(what)

    return begin


TROUBLES: dict[str, Trouble] = {
    "none": lambda world: None,
    "Secrets Manager throttles": fault(throttled("GetSecretValue", times=None)),
    "Secrets Manager is down": fault(unavailable("GetSecretValue", times=None)),
    "Secrets Manager is slow (8 s)": fault(slow(8.0, "GetSecretValue")),
    "Secrets Manager talks rubbish": fault(rubbish("GetSecretValue", times=None)),
    "the role may not read it": fault(access_denied("GetSecretValue")),
    "new version: wrong password": version(password="wrong"),
    "new version: database gone": version(dbname="gone"),
    "new version: port closed": version(port=1),
    "new version: host unknown": version(host="nowhere.invalid"),
    "rotation stuck, throttled": stuck(throttled("GetSecretValue", times=None)),
    "PostgreSQL is away": stop_postgres,
}


@contextmanager
def working(db: ConnectionManager) -> Iterator[None]:
    """Let threads make requests meanwhile."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.2):
            with suppress(Exception), db.begin() as session:
                session.execute(text("SELECT 1"))

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def measure(name: str, trouble: Trouble, seconds: float) -> None:
    """Print a line of the table."""
    with Sandbox() as box:
        os.environ.update(box.environment)
        world, lines = World(box), Lines()
        world.put()
        secret = box.database_secret_id if trouble.__qualname__.startswith("stuck") else _SECRET
        settings = Settings(
            database_secret_id=secret,
            redis_secret_id=None,
            profile="production",
            pool_recycle_seconds=2,
            refresh_interval_seconds=10,
        )
        with ConnectionManager(settings) as db, working(db):
            time.sleep(1)
            reads, logins = world.reads(), world.logins()
            root = logging.getLogger("ledger_db")
            root.setLevel(logging.DEBUG)
            root.addHandler(lines)
            trouble(world)
            began = time.monotonic()
            db.look_now()
            time.sleep(seconds)
            minutes = (time.monotonic() - began) / 60
            read = world.reads() - reads
            if trouble is stop_postgres:
                box.postgres.start()
            logged_in = world.logins() - logins
            root.removeHandler(lines)
            box.secrets_manager.clear_faults()
    figures = (read, logged_in, lines.loud, lines.all)
    print(f"{name:<34}" + "".join(f"{round(figure / minutes):>10}" for figure in figures), flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", default="", help="what the name of a trouble has to have in it")
    arguments = parser.parse_args()
    print(f"{'a minute':<34}{'reads':>10}{'logins':>10}{'warnings':>10}{'lines':>10}")
    for name, trouble in TROUBLES.items():
        if arguments.only in name:
            measure(name, trouble, arguments.seconds)


if __name__ == "__main__":
    main()
