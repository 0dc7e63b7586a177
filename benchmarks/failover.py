"""
What does a failover cost whose endpoint follows late?

A standby is promoted, and the old primary comes back as its standby, at the address that the endpoint leads
to for ``--late`` seconds more.  A service writes every 20 ms all the while, once on each driver, with `begin`
and with `run`; with --bare also SQLAlchemy's own pool with a ping at each checkout.

    python -m benchmarks.failover --late 2

Counted: writes that failed of those that began until the endpoint had followed, and after that; and how long
after that the first one worked.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from sqlalchemy import URL, create_engine
from sqlalchemy.orm import Session

from ledger_db.sandbox.postgres import ADMIN
from tests.support.any_driver import DRIVERS, client_of
from tests.support.endpoint import HOST, Endpoint
from tests.support.replica import PASSWORD, Pair, pair_of_servers
from tests.support.writing import insert, settings_for

AFTER_SECONDS = 3.0
Write = Callable[[], object]


def fail_over(pair: Pair, front: Endpoint, write: Write, late_seconds: float) -> tuple[int, int, str]:
    """Return how many writes failed before and after the endpoint had followed, and the rest in words."""
    write()
    pair.fail_over()
    following = threading.Timer(late_seconds, pair.lead, (front,))
    follows_at = time.monotonic() + late_seconds
    following.start()
    worked_at, slowest, counts = None, 0.0, {True: [0, 0], False: [0, 0]}
    while (began := time.monotonic()) < follows_at + AFTER_SECONDS:
        # A little later: the endpoint's own moment is not measured here.
        count = counts[began > follows_at + 0.01]
        count[0] += 1
        try:
            write()
        except Exception:  # noqa: BLE001 - every failure counts
            count[1] += 1
        else:
            worked_at = worked_at or time.monotonic()
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.02)
    following.join()
    seconds = "never" if worked_at is None else f"{worked_at - follows_at:.3f} s"
    (written, failed), (written_after, failed_after) = counts[False], counts[True]
    words = (
        f"failed while it was late: {failed} of {written}; after that: {failed_after} of {written_after}, "
        f"the first one that worked came after {seconds}; slowest write {slowest:.2f} s"
    )
    return failed, failed_after, words


def bare(front: Endpoint, stack: ExitStack) -> Write:
    """Write as one would without ledger_db."""
    url = URL.create("postgresql+psycopg2", ADMIN, PASSWORD, HOST, front.port, "postgres")
    engine = create_engine(url, pool_size=5, max_overflow=10, pool_recycle=1800, pool_pre_ping=True)
    stack.callback(engine.dispose)

    def write() -> None:
        with Session(engine) as session, session.begin():
            insert(session)

    return write


def main() -> int:
    """Try everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--late", type=float, default=2.0, help="seconds")
    parser.add_argument("--bare", action="store_true", help="SQLAlchemy alone, too")
    arguments = parser.parse_args()
    failed = 0
    with pair_of_servers() as (pair, front):
        if arguments.bare:
            with ExitStack() as stack:
                *_, words = fail_over(pair, front, bare(front, stack), arguments.late)
            print(f"bare, psycopg2, pre-ping   {words}", flush=True)
        for driver in DRIVERS:
            for way in ("begin", "run"):
                with client_of(driver, settings_for(front.port)) as client:
                    write = partial(getattr(client, way), insert)
                    *_, after, words = fail_over(pair, front, write, arguments.late)
                failed += after
                print(f"{driver + ', ' + way:26} {words}", flush=True)
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main())
