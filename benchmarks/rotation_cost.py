"""
What does a rotation cost, beside what it cannot do without?

    python -m benchmarks.rotation_cost

The floor of a rotation is its calls and logins, made one after the other by a loop that does nothing else;
the floor of a cold start is importing psycopg2.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import psycopg2

from ledger_db.rotation import scram
from ledger_db.sandbox import Sandbox
from tests.support.crashes import Boundaries, WatchedClient, watched_postgres
from tests.support.rotations import Rotations, own_secret

ROUNDS = 20
STARTS = 15


def import_ms(module: str) -> float:
    """Return how long a new process, with byte code at hand, takes to import a module."""
    program = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    seconds = [
        float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
        for _ in range(STARTS)
    ]
    return 1000 * statistics.median(seconds)


def median_ms(work: Callable[[], object]) -> float:
    """Return how long *work* takes, half of the time."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def count_calls(rotations: Rotations) -> dict[str, int]:
    """Return how many calls to Secrets Manager and logins to PostgreSQL a rotation makes."""
    calls: dict[str, int] = {"logins": 0}

    class Counting(WatchedClient):
        def __getattr__(self, name: str) -> object:
            if name != "exceptions":
                calls[name] = calls.get(name, 0) + 1
            return super().__getattr__(name)

    boundaries = Boundaries()
    connect = psycopg2.connect

    def counted(**parameters: object) -> object:
        calls["logins"] += 1
        return connect(**parameters)

    psycopg2.connect = counted
    try:
        with watched_postgres(boundaries):
            rotations.run(runner=rotations.runner(Counting(rotations.client, boundaries)))
    finally:
        psycopg2.connect = connect
    return calls


def floor_ms(rotations: Rotations, calls: dict[str, int]) -> float:
    """Return how long the same calls, logins and verifier take by themselves."""
    value = rotations.value()
    client, secret_id = rotations.client, rotations.secret_id

    def bare() -> None:
        for _ in range(calls["describe_secret"]):
            client.describe_secret(SecretId=secret_id)
        # Reads stand for writes too: what counts is the way there and back.
        for _ in range(sum(calls.values()) - calls["logins"] - calls["describe_secret"]):
            client.get_secret_value(SecretId=secret_id, VersionStage="AWSCURRENT")
        for _ in range(calls["logins"]):
            rotations.box.postgres.connect(user=value["username"], password=value["password"]).close()
        scram.verifier("x" * 32)

    return median_ms(bare)


def main() -> None:
    """Print both."""
    handler, driver = (
        import_ms("ledger_db.rotation.handler, ledger_db.rotation.postgres"),
        import_ms("psycopg2"),
    )
    print(
        f"import: handler with the strategies for PostgreSQL {handler:.0f} ms, psycopg2 alone {driver:.0f} ms"
    )
    with Sandbox() as box:
        for strategy in ("postgres-single", "postgres-alternating"):
            with own_secret(box, strategy) as rotations:
                calls = count_calls(rotations)
                took = median_ms(rotations.run)
                floor = floor_ms(rotations, calls)
            described = ", ".join(f"{count} {name}" for name, count in sorted(calls.items()))
            print(f"{strategy}: {took:.0f} ms; the same calls alone {floor:.0f} ms: {described}")


if __name__ == "__main__":
    main()
