"""Does the stand-in lose nothing when its process is killed, and end in order when asked to?"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError

from ledger_db.stand_in.server import main
from tests.support.secrets_client import PATIENCE_SECONDS, ask, client_for

ROOT = Path(__file__).parents[2]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def process(state: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The stand-in in a process of its own, and its URL."""
    command = [
        sys.executable,
        "-m",
        "ledger_db.stand_in.server",
        "--state",
        str(state),
        "--port",
        "0",
    ]
    child = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONWARNINGS": "error"}
    )
    try:
        assert child.stdout is not None
        yield child, child.stdout.readline().strip()
    finally:
        child.kill()
        child.wait(PATIENCE_SECONDS)
        assert child.stdout is not None
        child.stdout.close()


def test_secrets_survive_a_kill(tmp_path: Path) -> None:
    """What was acknowledged before SIGKILL is there afterwards: ARN, versions, labels and values."""
    state = tmp_path / "state.json"
    with process(state) as (child, url), client_for(url) as client:
        arn = client.create_secret(Name="s", SecretString="one")["ARN"]
        client.put_secret_value(SecretId="s", SecretString="two")
        client.put_secret_value(SecretId="s", SecretString="three", VersionStages=["AWSPENDING"])
        before = client.describe_secret(SecretId="s")["VersionIdsToStages"]
        child.send_signal(signal.SIGKILL)
        child.wait(PATIENCE_SECONDS)
    with process(state) as (_, url), client_for(url) as client:
        after = client.describe_secret(SecretId=arn)

        assert before == after["VersionIdsToStages"]
        assert client.get_secret_value(SecretId="s")["SecretString"] == "two"


def test_no_acknowledged_put_is_lost_by_a_kill_in_the_middle(tmp_path: Path) -> None:
    """However the kill meets a stream of puts, the last that was acknowledged, or a later one, is current."""
    state = tmp_path / "state.json"
    acknowledged: list[int] = []
    with process(state) as (child, url), client_for(url) as client:
        client.create_secret(Name="s", SecretString="0")

        def put() -> None:
            for number in range(1, 100_000):
                try:
                    client.put_secret_value(SecretId="s", SecretString=str(number))
                except (ConnectionClosedError, EndpointConnectionError):
                    return
                acknowledged.append(number)

        writer = threading.Thread(target=put)
        writer.start()
        wait_until(lambda: len(acknowledged) > 50)
        child.send_signal(signal.SIGKILL)
        writer.join(PATIENCE_SECONDS)
    with process(state) as (_, url), client_for(url) as client:
        found = int(client.get_secret_value(SecretId="s")["SecretString"])

        assert acknowledged[-1] <= found <= acknowledged[-1] + 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM are an end, not a failure."""
    with process(tmp_path / "state.json") as (child, url):
        ask(f"{url}/_sandbox/health")
        child.send_signal(number)

        assert child.wait(PATIENCE_SECONDS) == 0


def test_a_damaged_state_is_an_error_for_the_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process ends with status 1, and says which file and what to do."""
    state = tmp_path / "state.json"
    state.write_text("canary")

    assert main(["--state", str(state)]) == 1
    complaint = capsys.readouterr().err
    assert str(state) in complaint
    assert "move it away" in complaint
    assert "canary" not in complaint
