"""
What does a request see when things go wrong for longer than a moment?

Eight threads ask for a row every few milliseconds, every connection lives for one second at most, and for
``--seconds`` a rotation is stuck or Secrets Manager is down, throttled, slow, or talking rubbish.

    python -m benchmarks.hard_times --seconds 60
"""

import argparse
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.faults import Fault, access_denied, rubbish, slow, throttled, unavailable
from tests.support.half_rotation import half_rotated_database

WORKERS = 8


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    One kind of hard times.

    Attributes:
        name: What happens.

        in_rotation: Whether a single-user rotation stands between setSecret and finishSecret meanwhile.

        fault: What is wrong with Secrets Manager; None for nothing.

        spares_everybody: Whether no request may fail.
    """

    name: str
    in_rotation: bool
    fault: Fault | None
    spares_everybody: bool


SCENARIOS = (
    Scenario("rotation stuck", in_rotation=True, fault=None, spares_everybody=True),
    Scenario(
        "rotation stuck, AWSPENDING denied",
        in_rotation=True,
        fault=access_denied("GetSecretValue", stage="AWSPENDING"),
        spares_everybody=False,
    ),
    *(
        Scenario(
            f"{name}, {'in' if in_rotation else 'outside'} a rotation", in_rotation, fault, not in_rotation
        )
        for name, fault in (
            ("down", unavailable(times=None)),
            ("throttled", throttled(times=None)),
            ("slow (8 s)", slow(8.0)),
            ("rubbish", rubbish(times=None)),
        )
        for in_rotation in (False, True)
    ),
)


@dataclass(slots=True)
class Tally:
    """What happened to the requests."""

    answered: int = 0
    slowest_answer_seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    slowest_failure_seconds: float = 0.0
    first_answer_at: float = 0.0


def run(box: Sandbox, scenario: Scenario, seconds: float) -> bool:
    """Print what came of a scenario; True if it is as promised."""
    settings = Settings(pool_size=4, max_overflow=4, pool_recycle_seconds=1.0, refresh_interval_seconds=5)
    tally, counting, stop = Tally(), threading.Lock(), threading.Event()
    healed_at = [float("inf")]
    refusals = _refusals(box)

    def work(db: ConnectionManager) -> None:
        while not stop.is_set():
            began = time.perf_counter()
            failure = ""
            try:
                with db.session() as session:
                    session.execute(text("SELECT 1"))
            except Exception as error:  # noqa: BLE001 - every failure counts
                failure = type(error).__name__
            ended = time.perf_counter()
            with counting:
                if failure:
                    tally.failures[failure] += 1
                    tally.slowest_failure_seconds = max(tally.slowest_failure_seconds, ended - began)
                else:
                    tally.answered += 1
                    tally.slowest_answer_seconds = max(tally.slowest_answer_seconds, ended - began)
                    # A new login, not a connection that was good all along, is what tells of recovery.
                    if ended > healed_at[0] and not tally.first_answer_at:
                        tally.first_answer_at = ended
            time.sleep(0.005)

    with ConnectionManager(settings) as db:
        threads = [threading.Thread(target=work, args=(db,)) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        with half_rotated_database(box) if scenario.in_rotation else nullcontext():
            with _fault(box, scenario.fault):
                time.sleep(seconds)
            healed_at[0] = time.perf_counter()
        time.sleep(4)
        stop.set()
        for thread in threads:
            thread.join()
    failed = sum(tally.failures.values())
    recovery = (tally.first_answer_at - healed_at[0]) * 1000 if tally.first_answer_at else float("nan")
    print(
        f"{scenario.name:36} {tally.answered:6} answered (slowest {tally.slowest_answer_seconds:.2f} s), "
        f"{failed} failed {dict(tally.failures)} (slowest {tally.slowest_failure_seconds:.2f} s), "
        f"{_refusals(box) - refusals} logins refused by the server, "
        f"answered {recovery:.0f} ms after it was over",
        flush=True,
    )
    return tally.answered > 0 and (not scenario.spares_everybody or failed == 0)


@contextmanager
def _fault(box: Sandbox, fault: Fault | None) -> Iterator[None]:
    if fault is not None:
        box.secrets_manager.inject(fault)
    yield
    box.secrets_manager.clear_faults()


def _refusals(box: Sandbox) -> int:
    return box.postgres.log_file.read_text().count("password authentication failed")


def main() -> int:
    """Run every scenario; 0 only if each was as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", default="", help="run only scenarios whose name contains this text")
    arguments = parser.parse_args()
    with Sandbox() as box:
        os.environ.update(box.environment)
        chosen = [scenario for scenario in SCENARIOS if arguments.only in scenario.name]
        good = [run(box, scenario, arguments.seconds) for scenario in chosen]
        return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
