"""A rotation of a fleet of real processes on this machine: who logs in when, and what do requests notice?"""

import json
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import psutil
from sqlalchemy import event, text

from ledger_db import ConnectionManager, Settings
from ledger_db.answers.announcement import DEFAULT_CHANNEL, Announcement
from ledger_db.sandbox import Sandbox

_LOGINS = 100
_WARM_SECONDS = 5.0
# After the spread: what is used once a second has been used by then.
_SETTLING_SECONDS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginCost:
    """What one login takes of a core, at both of its ends."""

    server_seconds: float
    client_seconds: float


@dataclass(slots=True)
class RealRun:
    """What was seen of a rotation: by one process in POSIX seconds, by all in seconds after it."""

    logins: list[float] = field(default_factory=list)
    adoptions: list[float] = field(default_factory=list)
    requests: list[tuple[float, float]] = field(default_factory=list)
    failed: int = 0

    def durations(self, since: float, until: float) -> list[float]:
        """Return the seconds that requests took which began between the two."""
        return [seconds for at, seconds in self.requests if since <= at < until]


def login_cost(box: Sandbox) -> LoginCost:
    """Measure logins with the application's password, one after the other, in seconds of CPU."""
    with closing(box.client()) as client:
        secret = json.loads(client.get_secret_value(SecretId=box.database_secret_id)["SecretString"])
    user, password = secret["username"], secret["password"]
    with closing(box.postgres.connect()) as admin, admin.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        postmaster = psutil.Process(cursor.fetchone()[0]).parent()
    before, client_before = postmaster.cpu_times(), time.process_time()
    for _ in range(_LOGINS):
        box.postgres.connect(user=user, password=password).close()
    client_seconds = time.process_time() - client_before
    time.sleep(0.5)  # the last sessions end, and are counted
    after = postmaster.cpu_times()
    names = ("user", "system", "children_user", "children_system")
    server_seconds = sum(getattr(after, name) - getattr(before, name) for name in names)
    return LoginCost(server_seconds=server_seconds / _LOGINS, client_seconds=client_seconds / _LOGINS)


def real_run(box: Sandbox, processes: int, pool: int, spreads: Mapping[str, float]) -> RealRun:
    """Let so many processes work, rotate and announce once, and return what they saw."""
    os.environ.update(box.environment)
    # Forked, not started: sixty interpreters would be the benchmark.  Nothing is open here yet.
    context = multiprocessing.get_context("fork")
    pipes, children = [], []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        child = context.Process(target=_live, args=(theirs, pool, spreads))
        child.start()
        theirs.close()
        # One at a time: how a fleet starts is another question.
        ours.recv()
        pipes.append(ours)
        children.append(child)
    time.sleep(_WARM_SECONDS)
    version = box.rotate_database("alternating-users")
    announced_at = time.time()
    with closing(box.redis.connect()) as redis:
        redis.publish(DEFAULT_CHANNEL, Announcement(box.database_secret_id, version).to_json())
    time.sleep(sum(spreads.values()) + _SETTLING_SECONDS)
    for pipe in pipes:
        pipe.send("end")
    run = RealRun()
    for pipe in pipes:
        _add(run, pipe.recv(), announced_at)
    for child in children:
        child.join()
    return run


def _add(run: RealRun, log: RealRun, announced_at: float) -> None:
    run.logins += [at - announced_at for at in log.logins if at >= announced_at]
    run.adoptions += [at - announced_at for at in log.adoptions]
    run.requests += [(at - announced_at, seconds) for at, seconds in log.requests]
    run.failed += log.failed


def _live(pipe: Connection, pool: int, spreads: Mapping[str, float]) -> None:
    """Be one process of the fleet: as many threads as connections, each with a request a second."""
    random.seed()
    log = RealRun()
    ended = threading.Event()
    settings = Settings(pool_size=pool, max_overflow=0, **spreads)
    with ConnectionManager(settings) as db:
        _note_logins(db, log)
        with ExitStack() as held:
            for _ in range(pool):
                held.enter_context(db.engine.connect())
        threads = [threading.Thread(target=_work, args=(db, log, ended)) for _ in range(pool)]
        for thread in threads:
            thread.start()
        pipe.send("ready")
        pipe.recv()
        ended.set()
        for thread in threads:
            thread.join()
    pipe.send(log)


def _note_logins(db: ConnectionManager, log: RealRun) -> None:
    event.listen(db.engine, "connect", lambda *_: log.logins.append(time.time()))
    database = db._servers[0]  # noqa: SLF001 - nobody but a benchmark wants to know the moment
    database.provider.subscribe(lambda _: log.adoptions.append(time.time()))


def _work(db: ConnectionManager, log: RealRun, ended: threading.Event) -> None:
    while not ended.wait(random.expovariate(1.0)):
        began = time.time()
        try:
            with db.begin() as session:
                session.execute(text("SELECT 1"))
        except Exception:  # noqa: BLE001 - a failure is what is counted
            log.failed += 1
        log.requests.append((began, time.time() - began))
