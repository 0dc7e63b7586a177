"""
A password leaks: how long does it open anything, and what does a service notice?

    python -m benchmarks.leak --grace-seconds 5

For each strategy a service on ``ConnectionManager`` answers as fast as it can; a thief logs in with what
AWSCURRENT and AWSPREVIOUS hold, keeps the sessions open, and knocks with the leaked password again and again.
Then ``ledger-db rotate SECRET --compromised`` is typed, with announcements.  Bounded: some two graces each.
"""

import argparse
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import redis
from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.operate import cli
from ledger_db.sandbox import Sandbox
from tests.support.redis_world import redis_world
from tests.support.rotations import own_secret

WORKERS = 8
KNOCK_SECONDS = 0.05
REFUSED = (psycopg2.OperationalError, redis.AuthenticationError)


@dataclass(slots=True)
class Seen:
    """
    What came of it.

    Attributes:
        answered: Requests.

        failed: Requests.

        dead_at: When the leaked password was first refused, on the clock of `time.monotonic`.
    """

    answered: int = 0
    failed: list[BaseException] = field(default_factory=list)
    dead_at: float | None = None


@contextmanager
def repeated(work: Callable[[], None], *, threads: int, pause_seconds: float = 0.0) -> Iterator[None]:
    """Do *work* again and again, in threads, for as long as the block lasts."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            work()
            time.sleep(pause_seconds)

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in running:
            thread.join()


def drill(
    command: list[str], request: Callable[[], object], knock: Callable[[], Any], grace_seconds: float
) -> None:
    """Answer one leak under load, and print a line."""
    seen = Seen()

    def ask() -> None:
        try:
            request()
            seen.answered += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            seen.failed.append(error)

    def try_door() -> None:
        if seen.dead_at is None:
            try:
                knock().close()
            except REFUSED:
                seen.dead_at = time.monotonic()

    with repeated(ask, threads=WORKERS), repeated(try_door, threads=1, pause_seconds=KNOCK_SECONDS):
        time.sleep(1.0)
        began = time.monotonic()
        status = cli.main(["rotate", *command, "--compromised", "--grace-seconds", f"{grace_seconds:g}"])
        took = time.monotonic() - began
        time.sleep(1.0)
    dead = "never" if seen.dead_at is None else f"{seen.dead_at - began:.1f} s"
    print(
        f"=> {' '.join(command)}: status {status}, {took:.1f} s; leaked password dead after {dead}; "
        f"{seen.answered} requests answered, {len(seen.failed)} failed {[*map(repr, seen.failed)][:2]}"
    )


def drill_postgres(box: Sandbox, strategy: str, grace_seconds: float) -> None:
    """A role of its own, or a pair, that has rotated once."""
    with own_secret(box, strategy) as rotations:
        rotations.run()
        logins = [
            {"user": value["username"], "password": value["password"]}
            for value in (rotations.value(), rotations.value("AWSPREVIOUS"))
        ]
        settings = Settings(database_secret_id=rotations.secret_id, refresh_interval_seconds=300)
        with ConnectionManager(settings) as db, contextlib.ExitStack() as sessions:
            for login in logins:
                with contextlib.suppress(psycopg2.OperationalError):
                    sessions.enter_context(closing(box.postgres.connect(**login)))

            def request() -> None:
                with db.session() as session:
                    session.execute(text("SELECT 1"))

            command = [rotations.secret_id, "--strategy", strategy]
            drill(command, request, lambda: box.postgres.connect(**logins[0]), grace_seconds)


def drill_redis(box: Sandbox, grace_seconds: float) -> None:
    """A user of its own."""
    with redis_world(box) as world:
        password = world.fields()["password"]

        def knock() -> "redis.Redis":
            client: redis.Redis = box.redis.connect(username=world.user, password=password)
            client.ping()
            return client

        with ConnectionManager(Settings(redis_secret_id=world.secret_id)) as db, closing(knock()):
            command = [world.secret_id, "--strategy", "redis-acl"]
            drill(command, lambda: db.redis.set("leak", "x"), knock, grace_seconds)


def main() -> None:
    """Drill each strategy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grace-seconds", type=float, default=5.0)
    grace_seconds = parser.parse_args().grace_seconds
    with Sandbox() as box:
        os.environ.update(box.environment)
        for strategy in ("postgres-single", "postgres-alternating"):
            drill_postgres(box, strategy, grace_seconds)
        drill_redis(box, grace_seconds)


if __name__ == "__main__":
    main()
