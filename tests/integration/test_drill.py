"""Does the drill behind ``make run`` end as it should, whatever happens to it and to the service?"""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

PROJECT = Path(__file__).resolve().parents[2]
END_SECONDS = 30.0
"""Everything takes a few seconds at most; this is for a machine that does many other things."""

QUICK = ("--every", "1.5", "--window", "0.2")
"""Rotations as close together as they may be."""

FIRST_UNDER_LOAD = 6
"""Values put until both passwords rotate under load: each strategy is tried without clients first."""

StartDrill = Callable[..., "RunningDrill"]


class RunningDrill:
    """A drill as a person runs it: a process group of its own, as a terminal makes one."""

    def __init__(self, *arguments: str, path: Path | None = None) -> None:
        search = [str(path)] if path else []
        if "PYTHONPATH" in os.environ:
            search.append(os.environ["PYTHONPATH"])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.trust_ledger.run", *arguments],
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""
        self.others: list[psutil.Process] = []

    def read_until(self, words: str) -> None:
        """Read what it prints until a line has *words* in it, and look which processes it has by then."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if words in line:
                self.others = psutil.Process(self.process.pid).children(recursive=True)
                return
        pytest.fail(f"the drill ended without saying {words!r}:\n{self.output}")

    def wait_for_calls(self, operation: str, number: int) -> None:
        """Wait until Secrets Manager was called *number* times for *operation*."""
        url = re.findall(r"Secrets Manager +(http\S+)", self.output)[0]
        deadline = time.monotonic() + END_SECONDS
        while httpx.get(f"{url}/_sandbox/calls").json().get(operation, 0) < number:
            assert time.monotonic() < deadline, f"{operation} was not called {number} times"
            time.sleep(0.02)

    def press(self, number: signal.Signals) -> None:
        """Send a signal to the whole foreground group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def wait(self) -> int:
        """Wait until it has ended, and return its status."""
        rest, _ = self.process.communicate(timeout=END_SECONDS)
        self.output += rest
        return self.process.returncode

    def survivors(self) -> list[str]:
        """Give the processes that it had a moment to end, and return those that did not."""
        assert self.others, "no process of the drill was seen"
        _, alive = psutil.wait_procs(self.others, timeout=60)
        return [" ".join(process.cmdline()) for process in alive]

    def end(self) -> None:
        """End it, if a test has not."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def start_drill() -> Iterator[StartDrill]:
    """Start drills, and end them with the test."""
    drills: list[RunningDrill] = []

    def start(*arguments: str, path: Path | None = None) -> RunningDrill:
        drills.append(RunningDrill(*arguments, path=path))
        return drills[-1]

    yield start
    for drill in drills:
        drill.end()


def write_app(folder: Path, body: str) -> None:
    """Write a module ``broken`` whose ``app`` is the Trust Ledger with something wrong with it."""
    source = f"""
        import os
        from contextlib import asynccontextmanager
        from fastapi import Response
        from examples.trust_ledger.app import app
        seen = 0
        {body}
    """
    folder.joinpath("broken.py").write_text(textwrap.dedent(source))


def middleware(action: str) -> str:
    """Return the source of a middleware that does *action* from the hundredth request on."""
    return f"""
        @app.middleware("http")
        async def misbehave(request, call_next):
            global seen
            seen += 1
            if seen >= 100:
                {action}
            return await call_next(request)
    """


def test_a_drill_ends_by_itself_and_passes(start_drill: StartDrill) -> None:
    """Two rotations, one of each strategy, and nobody noticed."""
    drill = start_drill("--seconds", "8", "--every", "3")

    assert drill.wait() == 0, drill.output
    assert "PASSED" in drill.output
    assert drill.output.count(" single-user ") == 1
    assert drill.output.count(" alternating-users ") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_a_drill_in_good_order(start_drill: StartDrill, number: signal.Signals) -> None:
    """Ctrl-C in mid-run: a summary, the verdict as status, and no process is left."""
    drill = start_drill(*QUICK)
    drill.read_until("single-user")
    drill.press(number)

    assert drill.wait() == 0, drill.output
    assert "PASSED" in drill.output
    assert drill.survivors() == []


def test_ctrl_c_during_a_rotation_lets_it_finish(start_drill: StartDrill) -> None:
    """No password is left half changed, and the rotation is in the summary."""
    drill = start_drill("--every", "4.5", "--window", "3", "--clients", "2")
    drill.read_until("strategy")
    drill.wait_for_calls("PutSecretValue", FIRST_UNDER_LOAD)
    drill.press(signal.SIGINT)

    assert drill.wait() == 0, drill.output
    assert "rotations of each password: 1" in drill.output
    assert drill.survivors() == []


def test_a_second_ctrl_c_is_abrupt_and_clean(start_drill: StartDrill) -> None:
    """Who has no patience gets no summary, and still has nothing to clean up."""
    # In the middle of a rotation, which would take some more seconds.
    drill = start_drill("--every", "10", "--window", "8", "--clients", "2")
    drill.read_until("strategy")
    drill.wait_for_calls("PutSecretValue", FIRST_UNDER_LOAD)
    drill.press(signal.SIGINT)
    drill.read_until("Once more")
    drill.press(signal.SIGINT)

    assert drill.wait() == 130, drill.output
    assert "PASSED" not in drill.output
    assert drill.survivors() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_killed_drill_leaves_no_process(start_drill: StartDrill) -> None:
    """Even without a chance to clean up, nothing goes on running."""
    drill = start_drill(*QUICK)
    drill.read_until("strategy")
    drill.process.kill()
    drill.wait()

    assert drill.survivors() == []


def test_failed_requests_turn_a_drill_red(start_drill: StartDrill, tmp_path: Path) -> None:
    """A service that fails requests is found out, with the first failures quoted."""
    write_app(tmp_path, middleware('return Response("no luck", status_code=500)'))
    drill = start_drill("--seconds", "2", "--app", "broken:app", path=tmp_path)

    assert drill.wait() == 1, drill.output
    assert "status 500" in drill.output
    assert "no luck" in drill.output
    assert "requests failed" in drill.output


def test_lost_entries_turn_a_drill_red(start_drill: StartDrill, tmp_path: Path) -> None:
    """A service that acknowledges what it does not keep is found out, though no request failed."""
    body = """
        import asyncio
        from sqlalchemy import text
        from examples.trust_ledger import writing
        from ledger_db import ConnectionManager, Settings
        appended = writing.append

        def lose_an_entry():
            # Not as the service, which has no right to.
            settings = Settings(
                database_secret_id="trust-ledger/postgres-admin", database_name="ledger", redis_secret_id=None
            )
            with ConnectionManager(settings) as db, db.begin() as session:
                session.execute(text("SET LOCAL session_replication_role = replica"))
                session.execute(text("DELETE FROM trust_ledger.entries WHERE id = 10"))

        async def append_and_lose(session, draft, *, idempotency_key):
            answer = await appended(session, draft, idempotency_key=idempotency_key)
            if answer.entry.id == 20:
                await asyncio.to_thread(lose_an_entry)
            return answer
        writing.append = append_and_lose
    """
    write_app(tmp_path, body)
    drill = start_drill("--seconds", "2", "--app", "broken:app", path=tmp_path)

    assert drill.wait() == 1, drill.output
    assert "the chain does not verify: entry 11 follows entry 9" in drill.output
    assert "1 acknowledged entries are not there as they were acknowledged: 10" in drill.output


def test_a_service_that_dies_ends_the_drill(start_drill: StartDrill, tmp_path: Path) -> None:
    """The drill says that the service died, and what its last words were."""
    write_app(tmp_path, middleware('(print("these are my last words", flush=True), os._exit(7))'))
    drill = start_drill("--app", "broken:app", path=tmp_path)

    assert drill.wait() == 1, drill.output
    assert "the service ended with status 7" in drill.output
    assert "these are my last words" in drill.output


def test_a_service_that_does_not_start_is_reported(start_drill: StartDrill, tmp_path: Path) -> None:
    """There is no drill without a service, and the reason is there to be read."""
    write_app(tmp_path, 'raise RuntimeError("not today")')
    drill = start_drill("--app", "broken:app", path=tmp_path)

    assert drill.wait() == 1, drill.output
    assert "not today" in drill.output


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(start_drill: StartDrill) -> None:
    """Another port than the one named would surprise; the message says what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        drill = start_drill("--port", str(port))

        assert drill.wait() == 2, drill.output
        assert f"port {port} is taken" in drill.output


def test_rotations_that_would_overlap_are_refused(start_drill: StartDrill) -> None:
    """A rotation takes its window and a second, so the next one can not begin before."""
    drill = start_drill("--every", "2", "--window", "1")

    assert drill.wait() == 2, drill.output
    assert "--every" in drill.output
