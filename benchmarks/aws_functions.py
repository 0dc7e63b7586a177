"""
Does a service on ledger_db outlive AWS's own rotation functions, and does ours take their secrets over?

    git clone https://github.com/aws-samples/aws-secrets-manager-rotation-lambdas PATH
    pip install PyGreSQL      (what they are written with; it is built with libpq's headers)
    python -m benchmarks.aws_functions PATH

For each of the two functions for PostgreSQL (one user, two users): a service writes rows on eight threads
while RotateSecret calls AWS's function, unchanged, again and again; then the same secret is given to ours, by
nothing but RotationLambdaARN.  Counted: transactions, those that failed, and whether each row that was
acknowledged is there once.

Nothing here depends on AWS's sources, so that this is no part of ``make test``.
"""

import argparse
import importlib.util
import json
import logging
import os
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg2 import sql
from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.answers.tls import TLS
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.request import Request
from ledger_db.rotation.runner import Rules, Runner
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.server import SecretsManagerStandIn

FUNCTIONS = {
    "one user": "SecretsManagerRDSPostgreSQLRotationSingleUser",
    "two users": "SecretsManagerRDSPostgreSQLRotationMultiUser",
}
OURS = "ledger-db"
ROLE = "shop"
WORKERS = 8
_ROTATION_SECONDS = 60.0
_STEP_SECONDS = 30.0

_INSERT = text("INSERT INTO deeds (id) VALUES (:id)")


@dataclass(slots=True)
class Tally:
    """What one worker counts."""

    stored: list[int] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    slowest_seconds: float = 0.0


def work(db: ConnectionManager, tally: Tally, first: int, stop: threading.Event) -> None:
    """Write a row, and another, until *stop*; never the same one twice."""
    number = first
    while not stop.wait(0.005):
        began = time.perf_counter()
        try:
            with db.begin() as session:
                session.execute(_INSERT, {"id": number})
        except Exception as error:  # noqa: BLE001 - each is a broken promise, and is counted
            tally.failures[f"{type(error).__name__}: {str(error)[:160]}"] += 1
        else:
            tally.stored.append(number)
        tally.slowest_seconds = max(tally.slowest_seconds, time.perf_counter() - began)
        number += WORKERS


@contextmanager
def under_load(secret_id: str) -> Iterator[list[Tally]]:
    """Run a service on the secret for as long as the block."""
    settings = Settings(
        database_secret_id=secret_id,
        redis_secret_id=None,
        pool_size=4,
        max_overflow=4,
        pool_recycle_seconds=1,
    )
    tallies, stop = [Tally() for _ in range(WORKERS)], threading.Event()
    with ConnectionManager(settings) as db:
        workers = [
            threading.Thread(target=work, args=(db, tally, first, stop))
            for first, tally in enumerate(tallies)
        ]
        for worker in workers:
            worker.start()
        try:
            yield tallies
        finally:
            stop.set()
            for worker in workers:
                worker.join()


def function_of(source: Path, folder: str) -> Callable[[dict[str, str]], None]:
    """Load one of AWS's functions."""
    spec = importlib.util.spec_from_file_location(folder, source / folder / "lambda_function.py")
    if spec is None or spec.loader is None or not Path(spec.origin or "").exists():
        raise SystemExit(f"there is no {folder} in {source}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise SystemExit(f"AWS's function needs {error.name}: pip install PyGreSQL") from error
    return lambda event: module.lambda_handler(event, None)


def ours(client: Any) -> Callable[[dict[str, str]], None]:
    """Return our function, which finds out by itself what a secret is for."""
    runner = Runner(Rules(allowed=(f"{ROLE}/*",), tls=TLS(mode="disable")), lambda _: client)
    return lambda event: _step(runner, event)


def _step(runner: Runner, event: dict[str, str]) -> None:
    runner.step(Request.from_event(event), Deadline.after(_STEP_SECONDS))


def seed(box: Sandbox, client: Any, kind: str) -> str:
    """Make a role, its table and its secret as AWS's documentation has them, and return the secret's name."""
    password, server = secrets.token_hex(16), box.postgres
    with closing(server.connect()) as admin, admin.cursor() as cursor:
        admin.autocommit = True
        role = sql.Identifier(ROLE)
        cursor.execute("DROP TABLE IF EXISTS deeds")
        for name in (f"{ROLE}_clone", ROLE):
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
            if cursor.fetchone():
                cursor.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))
        cursor.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD %s").format(role), (password,))
        cursor.execute("CREATE TABLE deeds (id bigint PRIMARY KEY)")
        cursor.execute(sql.SQL("GRANT SELECT, INSERT ON deeds TO {}").format(role))
    address = {"engine": "postgres", "host": server.host, "port": server.port, "dbname": server.database}
    value = {**address, "username": ROLE, "password": password, "ssl": False}
    if kind == "two users":
        value["masterarn"] = client.create_secret(
            Name=f"{ROLE}/administrator/{secrets.token_hex(4)}",
            SecretString=json.dumps(
                {**address, "username": server.admin_user, "password": server.admin_password, "ssl": False}
            ),
        )["ARN"]
    name = f"{ROLE}/{kind.replace(' ', '-')}"
    client.create_secret(Name=name, SecretString=json.dumps(value))
    return name


def rotate(client: Any, stand_in: SecretsManagerStandIn, secret_id: str, *, by: str, times: int) -> None:
    """Have the function called *by* rotate the secret, each rotation after the one before has ended."""
    for _ in range(times):
        before = _current(client, secret_id)
        client.rotate_secret(
            SecretId=secret_id, RotationLambdaARN=_arn(by), RotationRules={"AutomaticallyAfterDays": 30}
        )
        if not stand_in.wait_until_idle(_ROTATION_SECONDS) or _current(client, secret_id) == before:
            raise SystemExit(f"{by}: a rotation did not end; see above")


def _current(client: Any, secret_id: str) -> str:
    version: str = client.get_secret_value(SecretId=secret_id)["VersionId"]
    return version


def _arn(function: str) -> str:
    return f"arn:aws:lambda:us-east-1:000000000000:function:{function.replace(' ', '-')}"


def count(box: Sandbox) -> set[int]:
    """Return what is stored."""
    with closing(box.postgres.connect()) as admin, admin.cursor() as cursor:
        cursor.execute("SELECT id FROM deeds")
        return {number for (number,) in cursor.fetchall()}


def report(who: str, rotations: int, tallies: list[Tally], stored: set[int]) -> bool:
    """Print what was counted, and return whether the promise was kept."""
    failures = sum((tally.failures for tally in tallies), Counter[str]())
    acknowledged = [number for tally in tallies for number in tally.stored]
    slowest = max(tally.slowest_seconds for tally in tallies)
    missing = len(set(acknowledged) - stored)
    print(
        f"{who}: {rotations} rotations, {len(acknowledged) + failures.total()} transactions, "
        f"{failures.total()} failed, {missing} acknowledged and missing, slowest {1000 * slowest:.0f} ms"
    )
    for words, times in failures.most_common(5):
        print(f"    {times} x {words}")
    return not failures and not missing and len(acknowledged) > 0


def main() -> int:
    """Print a line for each function; status 1 if a transaction failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aws_functions")
    parser.add_argument("source", type=Path, help="a checkout of AWS's functions")
    parser.add_argument("--rotations", type=int, default=10, help="by each function")
    given = parser.parse_args()
    good = []
    with Sandbox() as box, SecretsManagerStandIn() as stand_in:
        os.environ |= box.environment
        # The second is what AWS's functions read.
        for name in ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "SECRETS_MANAGER_ENDPOINT"):
            os.environ[name] = stand_in.url
        import boto3  # noqa: PLC0415 - reads the environment

        with closing(boto3.client("secretsmanager")) as client:
            stand_in.register(_arn(OURS), ours(client))
            for kind, folder in FUNCTIONS.items():
                stand_in.register(_arn(kind), function_of(given.source, folder))
                # They have it say everything.
                logging.getLogger().setLevel(logging.ERROR)
                secret_id = seed(box, client, kind)
                with under_load(secret_id) as tallies:
                    rotate(client, stand_in, secret_id, by=kind, times=given.rotations)
                    rotate(client, stand_in, secret_id, by=OURS, times=given.rotations)
                good.append(
                    report(f"AWS's function for {kind}, then ours", 2 * given.rotations, tallies, count(box))
                )
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
