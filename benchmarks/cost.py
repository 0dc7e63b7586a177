"""
What does it cost?  Each figure stands beside what a user would write without ledger_db, in the same run.

    python -m benchmarks.cost

request      a session and SELECT 1, through the manager against bare SQLAlchemy with the same pool options,
             in turn, block by block
import       `import ledger_db` in a fresh interpreter, and whether it drags anything in
start        from opening a manager to the first row, against what must be done anyway: importing SQLAlchemy,
             psycopg2 and boto3, one read of the secret, one login, one row
memory       of a process that has done that, against one that did the same with bare SQLAlchemy and boto3,
             as a script and as a FastAPI service; and again after 1,000 rotations
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

from sqlalchemy import URL, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from ledger_db import ConnectionManager, Settings
from ledger_db.sandbox import Sandbox

BLOCKS = 120
BLOCK = 50
# What SQLAlchemy itself asks for these is not ours to count.
POOL: dict[str, Any] = {"pool_size": 5, "max_overflow": 10, "pool_recycle": 1800, "hide_parameters": True}


def secret_of(box: Sandbox) -> dict[str, str]:
    """Read the database secret as anybody would."""
    with closing(box.client()) as client:
        answer = client.get_secret_value(SecretId=box.database_secret_id)["SecretString"]
    value: dict[str, str] = json.loads(answer)
    return value


def report(name: str, ours: list[float], theirs: list[float]) -> None:
    """Print the medians, in microseconds, and the ratio block by block."""
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    print(
        f"{name:24} ledger_db {1e6 * statistics.median(ours):7.1f} us   "
        f"bare {1e6 * statistics.median(theirs):7.1f} us   "
        f"ratio median {statistics.median(ratios):.3f}, of minima {min(ours) / min(theirs):.3f}"
    )


def block(request: Callable[[], object]) -> float:
    """Return the seconds that one request takes, averaged over a block."""
    began = time.perf_counter()
    for _ in range(BLOCK):
        request()
    return (time.perf_counter() - began) / BLOCK


async def block_async(request: Callable[[], Awaitable[object]]) -> float:
    """Same as `block`, on an event loop."""
    began = time.perf_counter()
    for _ in range(BLOCK):
        await request()
    return (time.perf_counter() - began) / BLOCK


def measure_sync(secret: dict[str, str]) -> None:
    """Compare psycopg2 requests."""
    url = URL.create(
        "postgresql+psycopg2",
        secret["username"],
        secret["password"],
        secret["host"],
        int(secret["port"]),
        secret["dbname"],
    )
    engine = create_engine(url, connect_args={"sslmode": "prefer"}, **POOL)

    def bare() -> None:
        with Session(engine, expire_on_commit=False, close_resets_only=False) as session:
            session.execute(text("SELECT 1"))

    with ConnectionManager(Settings()) as db:

        def managed() -> None:
            with db.session() as session:
                session.execute(text("SELECT 1"))

        bare()
        managed()
        ours: list[float] = []
        theirs: list[float] = []
        gc.disable()
        for number in range(BLOCKS):
            # In turn, and in turns: whoever goes second finds the machine as the first left it.
            for mine in (True, False) if number % 2 else (False, True):
                (ours if mine else theirs).append(block(managed if mine else bare))
        gc.enable()
    engine.dispose()
    report("request, psycopg2", ours, theirs)


async def measure_async(secret: dict[str, str]) -> None:
    """Compare asyncpg requests."""
    url = URL.create(
        "postgresql+asyncpg",
        secret["username"],
        secret["password"],
        secret["host"],
        int(secret["port"]),
        secret["dbname"],
    )
    engine = create_async_engine(url, connect_args={"ssl": "prefer"}, **POOL)

    async def bare() -> None:
        async with AsyncSession(engine, expire_on_commit=False, close_resets_only=False) as session:
            await session.execute(text("SELECT 1"))

    async with ConnectionManager(Settings()) as db:

        async def managed() -> None:
            async with db.async_session() as session:
                await session.execute(text("SELECT 1"))

        await bare()
        await managed()
        ours: list[float] = []
        theirs: list[float] = []
        gc.disable()
        for number in range(BLOCKS):
            for mine in (True, False) if number % 2 else (False, True):
                (ours if mine else theirs).append(await block_async(managed if mine else bare))
        gc.enable()
    await engine.dispose()
    report("request, asyncpg", ours, theirs)


IMPORT = """
import sys, time
began = time.perf_counter()
import ledger_db
heavy = ("boto3", "sqlalchemy", "redis", "pydantic")
print(1000 * (time.perf_counter() - began), [name for name in heavy if name in sys.modules])
"""

# Both print: milliseconds to the first row, then the process's resident megabytes.
MANAGED = """
import time; began = time.perf_counter()
from ledger_db import ConnectionManager, Settings
from sqlalchemy import text
with ConnectionManager(Settings(redis_secret_id=None)) as db:
    with db.session() as session:
        session.execute(text("SELECT 1"))
    print(1000 * (time.perf_counter() - began))
    import psutil; print(psutil.Process().memory_info().rss / 1e6)
"""
BARE = """
import time; began = time.perf_counter()
import json, os, boto3
from botocore.config import Config
from sqlalchemy import URL, create_engine, text
from sqlalchemy.orm import Session
client = boto3.session.Session().client("secretsmanager", config=Config(connect_timeout=2, read_timeout=5))
s = json.loads(client.get_secret_value(SecretId=os.environ["LEDGER_DB_DATABASE_SECRET_ID"])["SecretString"])
url = URL.create("postgresql+psycopg2", s["username"], s["password"], s["host"], int(s["port"]), s["dbname"])
engine = create_engine(url)
with Session(engine) as session:
    session.execute(text("SELECT 1"))
print(1000 * (time.perf_counter() - began))
import psutil; print(psutil.Process().memory_info().rss / 1e6)
"""


def in_fresh_interpreter(code: str) -> list[str]:
    """Run *code* and return the lines that it prints."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ended.stdout.splitlines()


def measure_start(runs: int) -> None:
    """Compare fresh processes."""
    imports = [in_fresh_interpreter(IMPORT)[0].split(" ", 1) for _ in range(runs)]
    milliseconds = sorted(float(line[0]) for line in imports)
    print(
        f"import ledger_db         median {statistics.median(milliseconds):.1f} ms, drags in {imports[0][1]}"
    )
    for kind, first in (("script", ""), ("service", "import asyncio, fastapi, uvicorn\n")):
        ours = [[float(line) for line in in_fresh_interpreter(first + MANAGED)] for _ in range(runs)]
        theirs = [[float(line) for line in in_fresh_interpreter(first + BARE)] for _ in range(runs)]
        for what, column, unit in (("start to first row", 0, "ms"), ("resident memory", 1, "MB")):
            our, their = (statistics.median(run[column] for run in side) for side in (ours, theirs))
            print(
                f"{kind}, {what:19} ledger_db {our:7.1f} {unit}   bare {their:7.1f} {unit}"
                f"   difference {our - their:+.1f} {unit}, ratio {our / their:.2f}"
            )


def measure_growth(box: Sandbox, rotations: int) -> None:
    """Print how much a process grows over many rotations that it follows."""
    import psutil  # noqa: PLC0415 - here only

    process = psutil.Process()
    with ConnectionManager(Settings(refresh_interval_seconds=3600)) as db:
        sizes = []
        for number in range(rotations):
            box.rotate_database()
            db.engine.pool.connect().invalidate()
            with db.session() as session:
                session.execute(text("SELECT 1"))
            if number % max(1, rotations // 10) == 0 or number == rotations - 1:
                gc.collect()
                sizes.append(
                    (number, process.memory_info().rss / 1e6, process.num_fds(), process.num_threads())
                )
        generation = db.health().servers[0].credentials.generation
    print(
        f"growth                   {generation - 1} rotations followed; after n: MB / descriptors / threads"
    )
    print("    " + ", ".join(f"{n}: {size:.1f}/{fds}/{threads}" for n, size, fds, threads in sizes))


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7, help="fresh processes a figure")
    parser.add_argument("--rotations", type=int, default=1000, help="for the growth")
    arguments = parser.parse_args()
    with Sandbox() as box:
        os.environ.update(box.environment)
        secret = secret_of(box)
        measure_sync(secret)
        asyncio.run(measure_async(secret))
        measure_start(arguments.runs)
        measure_growth(box, arguments.rotations)


if __name__ == "__main__":
    main()
