"""
What does a session cost in instructions?  Nearly the same on any machine, whatever its speed.

    python -m benchmarks.instructions

A session and SELECT 1, through the manager and on bare SQLAlchemy with the same pool options; beside them
bare SQLAlchemy with listeners that do nothing: what whoever uses its events has to pay.  Each is run twice
under valgrind's callgrind, with few sessions and with many: the difference has no start in it.

On a busy machine an answer comes late and is asked for twice, which has moved a figure by 3 %.
Not counted is what the kernel does: each checkout and each COMMIT of ours has one system call more, of about
1 us.  Skipped where there is no valgrind.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, get_args

from benchmarks.cost import secret_of
from benchmarks.counted import Driver, Side
from ledger_db.sandbox import Sandbox

FEW, MANY = 200, 1200
LIMIT: Final = 1.06
"""The ratio to bare SQLAlchemy beyond which this is a failure."""

Counts = dict[tuple[str, str], float]


def collected(report: str) -> int:
    """Return how many instructions a file of callgrind's counts; ValueError if it was not finished."""
    found = re.search(r"^totals: (\d+)$", report, re.MULTILINE)
    if found is None:
        raise ValueError("callgrind's file has no totals: the process was ended before it could write them")
    return int(found[1])


def of_a_session(with_few: int, with_many: int, *, few: int = FEW, many: int = MANY) -> float:
    """Return the instructions of one session: what *many* take beyond *few*."""
    return (with_many - with_few) / (many - few)


def environment_of(secret: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of what is counted: the server, and nothing that differs from run to run."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_DB_")}
    names = {"username": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT", "dbname": "NAME"}
    ours = {f"LEDGER_DB_DATABASE_{name}": str(secret[key]) for key, name in names.items()}
    # Dictionaries of text would collide in another way each time.
    return {**others, **ours, "PYTHONHASHSEED": "0"}


def count(environment: Mapping[str, str], what: tuple[str, str, int]) -> int:
    """Run `benchmarks.counted` with the arguments *what*, and return how many instructions it took."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={report}"]
        child = [sys.executable, "-m", "benchmarks.counted", *map(str, what)]
        ended = subprocess.run([*tool, *child], env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"{what} failed under valgrind:\n{ended.stderr}")
        return collected(report.read_text(encoding="utf-8"))


def measure(secret: Mapping[str, str]) -> Counts:
    """Count all, as many at a time as there are cores: nobody's figure depends on the others."""
    pairs = [(driver, side) for driver in get_args(Driver) for side in get_args(Side)]
    runs = [(*pair, sessions) for pair in pairs for sessions in (FEW, MANY)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        counts = dict(zip(runs, threads.map(partial(count, environment_of(secret)), runs), strict=True))
    return {pair: of_a_session(counts[*pair, FEW], counts[*pair, MANY]) for pair in pairs}


def lines(counts: Counts) -> list[str]:
    """Return a line for each driver and side, with the ratio to the bare one."""
    return [
        f"{driver:9} {side:10} {count:9,.0f} instructions   ratio {count / counts[driver, 'bare']:.3f}"
        for (driver, side), count in counts.items()
    ]


def main() -> None:
    """Count, and exit with 1 if ours costs more than the limit."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if shutil.which("valgrind") is None:
        print("instructions: skipped, there is no valgrind here")
        return
    with Sandbox() as box:
        counts = measure(secret_of(box))
    print("\n".join(lines(counts)))
    ratios = [counts[driver, "ledger_db"] / counts[driver, "bare"] for driver in get_args(Driver)]
    raise SystemExit(0 if max(ratios) <= LIMIT else 1)


if __name__ == "__main__":
    main()
