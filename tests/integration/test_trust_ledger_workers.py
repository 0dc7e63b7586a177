"""Does the Trust Ledger start, work and end as a deployed service does, with more than one worker?"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
import pytest

from ledger_db.drill.sampling import ConnectionCount
from ledger_db.drill.service import listen_from
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.seed import FIRST_ROLE, SECOND_ROLE
from tests.support.trust_ledger import append, drop_ledger, prepare_ledger, tampering, walk
from tests.support.waiting import eventually

PROJECT = Path(__file__).resolve().parents[2]
END_SECONDS = 30.0
ROLES = (FIRST_ROLE, SECOND_ROLE)


class Workers:
    """The service as ``uvicorn`` runs it; its log is in a file."""

    def __init__(self, box: Sandbox, log: IO[str], *, count: int) -> None:
        self._log = Path(log.name)
        with listen_from(18_000) as listener:
            host, port = listener.getsockname()
            self.url = f"http://{host}:{port}"
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "uvicorn", "examples.trust_ledger.app:app"),
                    *("--workers", str(count), "--fd", str(listener.fileno())),
                    *("--timeout-graceful-shutdown", "10"),
                ],
                cwd=PROJECT,
                env={**os.environ, **box.environment, "TRUST_LEDGER_LOG_LEVEL": "DEBUG"},
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(listener.fileno(),),
            )

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the structured lines of the log that tell of one event."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_ready(self, count: int) -> None:
        """Wait until *count* workers serve."""
        eventually(
            lambda: len(self.events("Application startup complete.")) == count, f"{count} workers serve"
        )

    def terminate(self) -> None:
        """Ask it to end, as a service manager does."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End whatever a test has left of it."""
        if self.process.poll() is None:
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            for process in family:
                process.kill()
        self.process.wait()


StartWorkers = Callable[[int], Workers]


@pytest.fixture
def start_workers(box: Sandbox, tmp_path: Path) -> Iterator[StartWorkers]:
    """Start services, and end them with the test."""
    started: list[Workers] = []
    with (tmp_path / "log").open("w") as log:

        def start(count: int) -> Workers:
            started.append(Workers(box, log, count=count))
            return started[-1]

        yield start
        for workers in started:
            workers.kill()


async def append_forty(url: str, *, first: int) -> list[httpx.Response]:
    """Append forty entries at once, over connections of their own."""
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as service:
        numbers = range(first, first + 40)
        return list(await asyncio.gather(*(append(service, f"k{number}") for number in numbers)))


def password_of(box: Sandbox) -> str:
    """Return the password that the service logs in to PostgreSQL with."""
    with closing(box.client()) as client:
        value = client.get_secret_value(SecretId=box.database_secret_id, VersionStage="AWSCURRENT")
    return str(json.loads(value["SecretString"])["password"])


def count_waiting(box: Sandbox) -> int:
    """Count the appends that wait for the end of the chain."""
    with tampering(box) as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename IN %s", (ROLES,)
        )
        return int(cursor.fetchone()[0])


async def test_two_workers_keep_one_chain(box: Sandbox, start_workers: StartWorkers) -> None:
    """Both serve, and what they append together is one chain without gaps."""
    prepare_ledger(box)
    workers = start_workers(2)
    await asyncio.to_thread(workers.wait_ready, 2)
    answers: list[httpx.Response] = []
    # Which worker takes a connection is the kernel's choice, so until both have had one.
    while len({line["process"] for line in workers.events("request.answered")}) < 2:
        assert len(answers) < 2_000, "one worker serves everybody"
        answers += await append_forty(workers.url, first=len(answers))
    async with httpx.AsyncClient(base_url=workers.url, timeout=30, trust_env=False) as service:
        verdict = (await walk(service))[-1]

    assert {answer.status_code for answer in answers} == {201}
    assert sorted(answer.json()["id"] for answer in answers) == list(range(1, len(answers) + 1))
    assert (verdict["verified"], verdict["entries"]) == (True, len(answers))
    assert password_of(box) not in workers.log


async def test_requests_under_way_are_answered_before_the_end(
    box: Sandbox, start_workers: StartWorkers
) -> None:
    """A deployment that ends the service fails nobody, and leaves no process and no connection."""
    prepare_ledger(box)
    workers = start_workers(2)
    await asyncio.to_thread(workers.wait_ready, 2)
    async with httpx.AsyncClient(base_url=workers.url, timeout=30, trust_env=False) as service:
        with closing(box.postgres.connect()) as other, other.cursor() as cursor:
            other.autocommit = False
            cursor.execute("SELECT id FROM trust_ledger.chain_end FOR UPDATE")
            under_way = [asyncio.create_task(append(service, f"k{number}")) for number in range(6)]
            await asyncio.to_thread(eventually, lambda: count_waiting(box) == 6, "all of them wait")
            workers.terminate()
            await asyncio.to_thread(
                eventually, lambda: bool(workers.events("Shutting down")), "the service is about to end"
            )
            other.rollback()
        answers = await asyncio.gather(*under_way)
        status = await asyncio.to_thread(workers.process.wait, END_SECONDS)

    assert [answer.status_code for answer in answers] == [201] * 6
    assert status == 0, workers.log
    assert len(workers.events("manager.closed")) == 2
    with closing(ConnectionCount(box.postgres.connect, ROLES)) as count:
        eventually(lambda: count.read() == 0, "no connection is left")


def test_a_service_on_an_empty_database_does_not_start(box: Sandbox, start_workers: StartWorkers) -> None:
    """It ends with the status that a deployment notices, and the log says what to run."""
    drop_ledger(box)
    workers = start_workers(1)

    assert workers.process.wait(END_SECONDS) == 3
    assert "python -m examples.trust_ledger.migrate" in workers.log
