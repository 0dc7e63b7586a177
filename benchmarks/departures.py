"""
What does it cost when the server ends idle connections?

On each driver a pool of idle connections is left alone while an administrator ends its sessions, the server
restarts, or an alternating rotation retires its role, whose sessions are ended a second later.  Nothing is in
flight then, so no request that comes after may fail.

    python -m benchmarks.departures --times 100
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable

from ledger_db import Settings
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import DRIVERS, Client, client_of
from tests.support.idle_sessions import end_sessions, failures, fill_pool

POOL = 3


def restart(box: Sandbox) -> None:
    """Stop the server in good order, which ends its sessions, and start it again."""
    box.postgres.stop()
    box.postgres.start()


def retire(box: Sandbox) -> None:
    """Rotate to the other role of the pair, and end what is left of the first one."""
    box.rotate_database("alternating-users")
    time.sleep(1)
    end_sessions(box)


EVENTS: dict[str, Callable[[Sandbox], object]] = {
    "idle sessions ended": end_sessions,
    "server restarted": restart,
    "retired role's sessions ended": retire,
}


def run(box: Sandbox, clients: dict[str, Client], name: str, times: int) -> int:
    """Print what an event costs each driver, and return how many requests failed."""
    failed = dict.fromkeys(clients, 0)
    for _ in range(times):
        for client in clients.values():
            fill_pool(client, POOL)
        EVENTS[name](box)
        for driver, client in clients.items():
            failed[driver] += len(failures(client, POOL + 1))
    print(f"{name:30} {times} times, {times * (POOL + 1)} requests a driver, failed: {failed}", flush=True)
    return sum(failed.values())


def main() -> int:
    """Try everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=100)
    times = parser.parse_args().times
    with Sandbox() as box, contextlib.ExitStack() as stack:
        os.environ.update(box.environment)
        # An explicit None goes before the environment: without a Redis nobody is told of the rotation.
        settings = Settings(database_secret_id=box.database_secret_id, redis_secret_id=None)
        clients = {
            driver: stack.enter_context(client_of(driver, settings, pool_size=POOL)) for driver in DRIVERS
        }
        return min(1, sum(run(box, clients, name, times) for name in EVENTS))


if __name__ == "__main__":
    sys.exit(main())
