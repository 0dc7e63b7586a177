"""Does a function that runs as a process behave as one on Lambda does?"""

import base64
import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from localstack.host import LocalStack
from tests.localstack.clients import Clients
from tests.support.waiting import eventually

NAME = "guinea-pig"
SECRET = "canary-in-the-environment"
TIMEOUT_SECONDS = 2
SOURCE = """
import os, subprocess, sys, time

def handler(event, context):
    print("a line of the function")
    return globals()[event["do"]](event, context)

def echo(event, context):
    return event

def describe(event, context):
    return {
        "request": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "milliseconds": context.get_remaining_time_in_millis(),
        "folder": os.getcwd(),
        "moved": os.environ["CERTIFICATES"],
        "there": os.path.exists(os.environ["CERTIFICATES"]),
        "environment": dict(os.environ),
        "arguments": open("/proc/self/cmdline").read() if os.path.exists("/proc/self") else "",
        "process": os.getpid(),
    }

def fail(event, context):
    raise ValueError("no such luck")

def leave(event, context):
    sys.exit(3)

def die(event, context):
    os._exit(9)

def set(event, context):
    return {1, 2}

def shout(event, context):
    print("x" * 3_000_000)
    return "y" * 1_000_000

def sleep(event, context):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(event["file"], "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(600)
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an invocation came to."""

    value: Any
    error: str | None
    log: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function to try things with."""

    clients: Clients

    def call(self, do: str, **more: Any) -> Answer:
        """Call it and wait."""
        answer = self.clients("lambda").invoke(
            FunctionName=NAME, Payload=json.dumps({"do": do, **more}), LogType="Tail"
        )
        log = base64.b64decode(answer.get("LogResult", "")).decode()
        return Answer(json.loads(answer["Payload"].read()), answer.get("FunctionError"), log)


def zipped(source: str) -> bytes:
    """Make a zip of one module."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pig.py", source)
        archive.writestr("certificates.pem", "none")
    return buffer.getvalue()


def make(clients: Clients, name: str, *, handler: str = "pig.handler", runtime: str = "python3.12") -> str:
    """Make a function, and return its state when it is no longer pending."""
    clients("lambda").create_function(
        FunctionName=name,
        Runtime=runtime,
        Role="arn:aws:iam::000000000000:role/pig",
        Handler=handler,
        Timeout=TIMEOUT_SECONDS,
        Code={"ZipFile": zipped(SOURCE)},
        Environment={"Variables": {"CERTIFICATES": "/var/task/certificates.pem", "SECRET": SECRET}},
    )

    def state() -> str:
        found: str = clients("lambda").get_function(FunctionName=name)["Configuration"]["State"]
        return found

    eventually(lambda: state() != "Pending", "the function is made")
    return state()


@pytest.fixture(scope="module")
def function(clients: Clients) -> Function:
    """The function, made."""
    assert make(clients, NAME) == "Active"
    return Function(clients)


@pytest.mark.parametrize("value", [{"text": "ä\n\"'"}, [], None, "x" * 100_000])
def test_an_event_reaches_the_function_as_it_was(function: Function, value: object) -> None:
    """What is sent arrives, and what is returned comes back."""
    answer = function.call("echo", value=value)

    assert (answer.value, answer.error) == ({"do": "echo", "value": value}, None)


def test_a_function_finds_what_it_finds_on_lambda(function: Function) -> None:
    """Code, environment and context are those of a function."""
    found = function.call("describe").value

    assert found["arn"].endswith(f":function:{NAME}")
    assert found["request"]
    assert 0 < found["milliseconds"] <= 1000 * TIMEOUT_SECONDS
    assert found["environment"]["LAMBDA_TASK_ROOT"] == found["folder"]
    assert found["moved"] == f"{found['folder']}/certificates.pem"
    assert found["there"]
    assert found["environment"]["AWS_LAMBDA_FUNCTION_NAME"] == NAME


def test_a_function_gets_nothing_of_the_machine(function: Function) -> None:
    """Neither the caller's variables nor files in a home reach it."""
    environment = function.call("describe").value["environment"]

    assert environment["HOME"] != os.environ.get("HOME")
    assert not [name for name in environment if name.startswith(("PYTEST", "LEDGER_DB_LOCALSTACK"))]


def test_no_secret_is_among_the_arguments(function: Function) -> None:
    """Everybody on the machine may list processes: they see numbers and names of files."""
    found = function.call("describe", password="canary-in-the-event").value

    assert found["environment"]["SECRET"] == SECRET
    assert "canary" not in found["arguments"]
    assert found["environment"]["AWS_SECRET_ACCESS_KEY"] not in found["arguments"]


def test_every_call_is_a_process_of_its_own(function: Function) -> None:
    """Nothing is left in memory by a call: every one of them is a cold start."""
    assert function.call("describe").value["process"] != function.call("describe").value["process"]


def test_what_a_function_raises_is_told_as_lambda_tells_it(function: Function) -> None:
    """Type and message are what Secrets Manager and people look at."""
    answer = function.call("fail")

    assert answer.error
    assert (answer.value["errorType"], answer.value["errorMessage"]) == ("ValueError", "no such luck")
    assert any("no such luck" in line or "fail" in line for line in answer.value["stackTrace"])
    assert "ValueError: no such luck" in answer.log


@pytest.mark.parametrize(
    ("do", "kind", "words"),
    [
        ("leave", "Runtime.ExitError", "status 3"),
        ("die", "Runtime.ExitError", "status 9"),
        ("set", "TypeError", "not JSON serializable"),
    ],
)
def test_a_function_without_an_answer_has_failed(function: Function, do: str, kind: str, words: str) -> None:
    """However a function ends, its caller is told."""
    answer = function.call(do)

    assert answer.error
    assert answer.value["errorType"] == kind
    assert words in answer.value["errorMessage"]


@pytest.mark.parametrize(
    ("handler", "kind"),
    [("missing.handler", "Runtime.ImportModuleError"), ("pig.missing", "Runtime.HandlerNotFound")],
)
def test_a_handler_that_is_not_there_is_named(clients: Clients, handler: str, kind: str) -> None:
    """A mistake in the configuration says what it is."""
    name = handler.replace(".", "-")
    make(clients, name, handler=handler)
    answer = json.loads(clients("lambda").invoke(FunctionName=name, Payload="{}")["Payload"].read())

    assert answer["errorType"] == kind
    assert "missing" in answer["errorMessage"]


def test_a_function_for_another_python_is_not_run(clients: Clients) -> None:
    """Machine code for one Python is not tried with another: the function says that it cannot run."""
    assert make(clients, "older", runtime="python3.9") == "Failed"
    reason = clients("lambda").get_function(FunctionName="older")["Configuration"]["StateReason"]

    assert "python3.9" in reason


def test_a_function_runs_on_with_another_configuration(function: Function, clients: Clients) -> None:
    """What has the same code as a version before it does not lose it when that one is cleared away."""
    functions = clients("lambda")
    for memory in (256, 512, 256, 128):
        functions.update_function_configuration(FunctionName=NAME, MemorySize=memory)
        functions.get_waiter("function_updated_v2").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})

        assert function.call("echo").value == {"do": "echo"}


def test_much_output_blocks_nobody(function: Function) -> None:
    """Megabytes of log and of answer come through, and the log keeps its end."""
    answer = function.call("shout")

    assert (answer.error, len(answer.value)) == (None, 1_000_000)
    assert "END RequestId" in answer.log


def test_a_log_is_where_lambda_writes_it(function: Function, clients: Clients) -> None:
    """What a function prints is found in its log group."""
    function.call("echo")
    logs = clients("logs")

    def lines() -> list[str]:
        try:
            found = logs.filter_log_events(logGroupName=f"/aws/lambda/{NAME}")
        except logs.exceptions.ResourceNotFoundException:
            return []
        return [event["message"].strip() for event in found["events"]]

    eventually(lambda: "a line of the function" in lines(), "the line is in the log group")


def test_a_function_is_ended_when_its_time_is_over(function: Function, tmp_path: Path) -> None:
    """The caller is told, and neither the function nor what it started goes on."""
    file = tmp_path / "processes"
    answer = function.call("sleep", file=str(file))
    processes = [int(number) for number in file.read_text(encoding="utf-8").split()]

    assert answer.error
    assert answer.value["errorType"] == "Sandbox.Timedout"
    assert "timed out after 2.00 seconds" in answer.value["errorMessage"]
    eventually(lambda: not any(psutil.pid_exists(number) for number in processes), "both have ended")


def test_only_this_machine_reaches_localstack(localstack: LocalStack) -> None:
    """It lets anybody run anything, so nobody on the network gets there."""
    process = psutil.Process(localstack.process_id)
    listening = {
        found.laddr.ip for found in process.net_connections(kind="inet") if found.status == psutil.CONN_LISTEN
    }

    assert listening == {"127.0.0.1"}
