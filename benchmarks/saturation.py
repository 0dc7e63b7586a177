"""
What happens when many ask at once?  The same endpoints, with ledger_db's sessions and with hand-written ones.

    python -m benchmarks.saturation

200 requests at the same moment, a pool of 5+10, 5 seconds of patience, endpoints with a response model.  A
``def`` endpoint needs a thread to run in and another one to have its answer validated; those that wait for a
connection in a thread take it from those that have one.

Then as many requests that commit and wait for something else, and meanwhile a thousand quick ones: a request
that has committed is in nobody's way.  ``def`` endpoints that wait are as many as there are threads, and the
quick ones beside them need none.
"""

import argparse
import asyncio
import logging
import os
import statistics
import time
from dataclasses import dataclass

from fastapi import FastAPI

from benchmarks.asgi import request
from benchmarks.bare_service import QUERY, Answer, create_bare
from ledger_db import Settings
from ledger_db.fastapi import AsyncSessionDep, SessionDep, lifespan
from ledger_db.sandbox import Sandbox

PATIENCE_SECONDS = 5.0
SIZES = {"pool_size": 5, "max_overflow": 10}
WAIT_SECONDS = 5.0
THREADS = 40
QUICK = 1_000
QUICK_AT_ONCE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """
    What became of one volley of requests.

    Attributes:
        answered: How many had status 200.

        asked: How many there were.

        seconds: How long each took, sorted.

        total_seconds: From the first request to the last answer.
    """

    answered: int
    asked: int
    seconds: list[float]
    total_seconds: float

    def __str__(self) -> str:
        p50, p99 = statistics.median(self.seconds), self.seconds[int(0.99 * (self.asked - 1))]
        return (
            f"answered {self.answered:4}/{self.asked}   p50 {1000 * p50:7.0f} ms   p99 {1000 * p99:7.0f} ms"
            f"   all within {self.total_seconds:5.2f} s"
        )


def create_ours() -> FastAPI:
    """Make the service with ledger_db's sessions."""
    settings = Settings(**SIZES, pool_timeout_seconds=PATIENCE_SECONDS, redis_secret_id=None)
    app = FastAPI(lifespan=lifespan(settings))

    @app.get("/sync")
    def read(session: SessionDep) -> Answer:
        return Answer(number=session.execute(QUERY).scalar_one())

    @app.get("/async")
    async def read_async(session: AsyncSessionDep) -> Answer:
        return Answer(number=(await session.execute(QUERY)).scalar_one())

    @app.get("/sync/waiting")
    def wait(session: SessionDep) -> None:
        session.execute(QUERY)
        session.commit()
        time.sleep(WAIT_SECONDS)

    @app.get("/async/waiting")
    async def wait_async(session: AsyncSessionDep) -> None:
        await session.execute(QUERY)
        await session.commit()
        await asyncio.sleep(WAIT_SECONDS)

    return app


async def fire(app: FastAPI, path: str, clients: int) -> Result:
    """Send all requests at the same moment."""
    seconds: list[float] = []

    async def ask() -> int:
        began = time.perf_counter()
        status = await request(app, path)
        seconds.append(time.perf_counter() - began)
        return status

    began = time.perf_counter()
    statuses = await asyncio.gather(*(ask() for _ in range(clients)))
    return Result(
        answered=statuses.count(200),
        asked=clients,
        seconds=sorted(seconds),
        total_seconds=time.perf_counter() - began,
    )


async def fire_beside(app: FastAPI, path: str, waiting: int) -> bool:
    """Send quick requests while others wait, print a line for each, and return whether all were answered."""
    crowd = asyncio.create_task(fire(app, path, waiting))
    await asyncio.sleep(WAIT_SECONDS / 5)  # until they have committed
    volleys = [await fire(app, "/async", QUICK_AT_ONCE) for _ in range(QUICK // QUICK_AT_ONCE)]
    quick = Result(
        answered=sum(each.answered for each in volleys),
        asked=QUICK,
        seconds=sorted(seconds for each in volleys for seconds in each.seconds),
        total_seconds=sum(each.total_seconds for each in volleys),
    )
    waited = await crowd
    print(f"{path[1:]:20} {waited}\n{'quick meanwhile':20} {quick}")
    return waited.answered == waiting and quick.answered == QUICK


async def compare(box: Sandbox, clients: int) -> bool:
    """Print a line for each of the four, and return whether ours answered everything."""
    bare = create_bare(box, {**SIZES, "pool_timeout": PATIENCE_SECONDS}, scope="request")
    ours = create_ours()
    good = True
    async with bare.router.lifespan_context(bare), ours.router.lifespan_context(ours):
        for path in ("/sync", "/async"):
            for name, app in (("ledger_db", ours), ("hand-written", bare)):
                await request(app, path)
                result = await fire(app, path, clients)
                print(f"{path[1:]:6} {name:13} {result}")
                good = good and (app is bare or result.answered == clients)
        for path, waiting in (("/async/waiting", clients), ("/sync/waiting", THREADS)):
            good = await fire_beside(ours, path, waiting) and good
    return good


def main() -> None:
    """Compare, and exit with 1 if a request of ours was not answered."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=200, help="requests at the same moment")
    arguments = parser.parse_args()
    # Every request that fails is counted here; its traceback would only hide the figures.
    logging.disable()
    with Sandbox() as box:
        os.environ.update(box.environment)
        good = asyncio.run(compare(box, arguments.clients))
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
