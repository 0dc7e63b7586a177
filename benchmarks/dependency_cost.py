"""
What does an injected session cost?  The same endpoint with ledger_db's and with a hand-written dependency.

    python -m benchmarks.dependency_cost

Both commit before the response leaves.  Raw ASGI calls, block by block and in turn, SELECT 1 in each.
"""

import asyncio
import gc
import os
import statistics
import time

from fastapi import FastAPI

from benchmarks.asgi import request
from benchmarks.bare_service import create_bare
from benchmarks.saturation import SIZES, create_ours
from ledger_db.sandbox import Sandbox

BLOCKS = 60
BLOCK = 50
LIMIT = 1.1
"""The ratio beyond which this is a failure."""


async def block(app: FastAPI, path: str) -> float:
    """Return the seconds that one request takes, averaged over a block."""
    began = time.perf_counter()
    for _ in range(BLOCK):
        await request(app, path)
    return (time.perf_counter() - began) / BLOCK


async def measure(ours: FastAPI, bare: FastAPI, path: str) -> float:
    """Print the figures of one endpoint, and return the ratio of the minima."""
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    for app in (ours, bare):
        await block(app, path)
    gc.collect()
    gc.disable()
    for number in range(BLOCKS):
        # In turn, and in turns: whoever goes second finds the machine as the first left it.
        for name, app in (("ours", ours), ("bare", bare))[:: 1 if number % 2 else -1]:
            seconds[name].append(await block(app, path))
    gc.enable()
    # The minima are what it takes; what neighbours on this machine take is in the medians.
    ratio = min(seconds["ours"]) / min(seconds["bare"])
    median = statistics.median(
        our / their for our, their in zip(seconds["ours"], seconds["bare"], strict=True)
    )
    figures = "   ".join((line("ledger_db", seconds["ours"]), line("hand-written", seconds["bare"])))
    print(f"{path[1:]:6} {figures}   ratio of minima {ratio:.3f}, median {median:.3f}")
    return ratio


def line(name: str, seconds: list[float]) -> str:
    """Return minimum and median, in microseconds."""
    return f"{name} {1e6 * min(seconds):6.0f} / {1e6 * statistics.median(seconds):6.0f} us"


async def compare(box: Sandbox) -> bool:
    """Measure both halves, and return whether both are within the limit."""
    pool = {**SIZES, "pool_recycle": 1800, "hide_parameters": True}
    ours, bare = create_ours(), create_bare(box, pool, scope="function")
    print("min / median of a request")
    async with bare.router.lifespan_context(bare), ours.router.lifespan_context(ours):
        ratios = [await measure(ours, bare, path) for path in ("/sync", "/async")]
    return max(ratios) <= LIMIT


def main() -> None:
    """Compare, and exit with 1 if ours costs more than the limit."""
    with Sandbox() as box:
        os.environ.update(box.environment)
        good = asyncio.run(compare(box))
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
