"""
Runs the cases, one after the other, and says of each whether what is wanted was seen.

    python -m tests.cases [FOLDER | FOLDER/CASE ...]

The status is 0 only if every case was as wanted.
"""

import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
VERDICTS = {0: "as wanted", 1: "NOT as wanted", 2: "not tried, or broken"}


def chosen(words: list[str]) -> list[Path]:
    """Return the cases that *words* name, all of them if there are none."""
    found: list[Path] = []
    for word in words or ["*/*"]:
        pattern = word.removesuffix(".py") if "/" in word else f"{word}/*"
        cases = sorted(FOLDER.glob(f"{pattern}.py"))
        if not cases:
            sys.exit(f"there is no case {word!r}; the folders of {FOLDER.name}/ are their kinds")
        found += cases
    return found


def main() -> int:
    """Run what the command line names, and return how it went."""
    verdicts = []
    for case in chosen(sys.argv[1:]):
        began = time.monotonic()
        # What it prints is for who looks at one case; a case bounds itself in time.
        status = subprocess.run([sys.executable, case], capture_output=True, check=False).returncode
        verdicts.append(VERDICTS.get(status, f"ended with {status}"))
        seconds = time.monotonic() - began
        print(f"{verdicts[-1]:22} {seconds:5.1f} s  {case.relative_to(FOLDER)}", flush=True)
    print({verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))})
    return 0 if set(verdicts) == {VERDICTS[0]} else 1


if __name__ == "__main__":
    sys.exit(main())
