"""Does LocalStack begin as it should, and end with whoever wanted it, leaving nothing?"""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ledger_db.errors import ConfigurationError, ServerUnreachable
from ledger_db.sandbox.ports import HOST
from localstack.host import PROJECT, LocalStack
from tests.support.waiting import eventually

START_SECONDS = 60.0

# Starts LocalStack, has a function sleep in it, and waits to be killed.
VICTIM = """
import io, sys, threading, time, zipfile
from pathlib import Path
import boto3
from localstack.host import LocalStack

code = io.BytesIO()
with zipfile.ZipFile(code, "w") as archive:
    archive.writestr("pig.py", "import time\\ndef handler(event, context):\\n    time.sleep(250)\\n")
with LocalStack(Path(sys.argv[1])) as running:
    functions = boto3.client(
        "lambda",
        endpoint_url=running.url,
        region_name="us-east-1",
        aws_access_key_id="localstack",
        aws_secret_access_key="localstack",
    )
    functions.create_function(
        FunctionName="pig",
        Runtime="python3.12",
        Role="arn:aws:iam::000000000000:role/pig",
        Handler="pig.handler",
        Timeout=300,
        Code={"ZipFile": code.getvalue()},
    )
    functions.get_waiter("function_active_v2").wait(FunctionName="pig", WaiterConfig={"Delay": 1})
    threading.Thread(target=functions.invoke, kwargs={"FunctionName": "pig"}, daemon=True).start()
    print("ready", flush=True)
    time.sleep(250)
"""


class Program:
    """A program that is ended by a signal, and the processes that it has."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=PROJECT,
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""
        self.family: list[psutil.Process] = []

    def read_until(self, words: str) -> None:
        """Read until a line has *words* in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if words in line:
                self.look()
                return
        pytest.fail(f"it ended without saying {words!r}:\n{self.output}")

    def look(self) -> list[str]:
        """Note which processes it has, and return their commands."""
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        return [" ".join(member.cmdline()) for member in self.family]

    def send(self, sign: signal.Signals) -> int:
        """Send a signal, wait, and return the status."""
        self.process.send_signal(sign)
        rest, _ = self.process.communicate(timeout=START_SECONDS)
        self.output += rest
        return self.process.returncode

    def survivors(self) -> list[str]:
        """Give its processes a moment, and return those that go on."""
        assert self.family
        _, alive = psutil.wait_procs(self.family, timeout=60)
        return [" ".join(member.cmdline()) for member in alive]

    def end(self) -> None:
        """End it, if a test has not."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    """Programs that a test starts; they end with it."""
    started: list[Program] = []
    yield started
    for program in started:
        program.end()


def test_the_command_serves_until_it_is_told_to_end(programs: list[Program], tmp_path: Path) -> None:
    """`make localstack` says where everything is, other terminals find it, and SIGTERM leaves nothing."""
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    program = Program(["-m", "localstack.run"], environment)
    programs.append(program)
    program.read_until("AWS_EC2_METADATA_DISABLED")
    command = [sys.executable, "-m", "ledger_db.operate.cli", "sandbox", "env"]
    found = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    ).stdout
    folder = Path(next(line for line in program.output.splitlines() if "log /" in line).split("log ")[1])

    assert found in program.output
    assert "export AWS_ENDPOINT_URL=http://127.0.0.1:" in found
    assert not [line for line in found.splitlines() if line.startswith("export ") and "PASSWORD" in line]
    assert folder.exists()
    assert program.send(signal.SIGTERM) == 0, program.output
    assert program.survivors() == []
    assert not folder.parent.parent.exists()


def test_nothing_survives_a_program_that_is_killed(programs: list[Program], tmp_path: Path) -> None:
    """With SIGKILL nobody can end anything: LocalStack and the running function end all the same."""
    script = tmp_path / "victim.py"
    script.write_text(textwrap.dedent(VICTIM))
    program = Program([str(script), str(tmp_path / "localstack")], {"PYTHONPATH": str(PROJECT)})
    programs.append(program)
    program.read_until("ready")
    eventually(lambda: any("bootstrap.py" in line for line in program.look()), "the function runs")

    assert program.send(signal.SIGKILL) == -signal.SIGKILL
    assert program.survivors() == []


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    """Nobody takes another program for LocalStack."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        with (
            pytest.raises(ServerUnreachable, match="LocalStack ended with status"),
            LocalStack(tmp_path, port=taken.getsockname()[1]),
        ):
            pytest.fail("it should not start")


def test_a_hook_that_fails_is_an_error(tmp_path: Path) -> None:
    """Nobody works with an environment in which half is missing."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "broken.py").write_text("raise RuntimeError('no such luck')")
    with (
        pytest.raises(ServerUnreachable, match=r"broken\.py failed.*no such luck"),
        LocalStack(tmp_path / "localstack", hooks=hooks),
    ):
        pytest.fail("it should not start")


def test_a_missing_installation_says_what_to_type(tmp_path: Path) -> None:
    """Who has not installed LocalStack is told how to."""
    with (
        pytest.raises(ConfigurationError, match="make localstack"),
        LocalStack(tmp_path, python=tmp_path / "python"),
    ):
        pytest.fail("it should not start")
