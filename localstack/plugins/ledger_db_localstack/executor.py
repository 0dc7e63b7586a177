"""
How does a Lambda function run on a machine without containers?

As a process of its own for every call, with the Python of LocalStack.  It is a stand-in for tests: the
function has the rights of whoever started LocalStack.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from localstack.services.lambda_.invocation.lambda_models import FunctionVersion, InvocationResult
from localstack.services.lambda_.invocation.runtime_executor import LambdaRuntimeException, RuntimeExecutor

BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
TASK_ROOT = "/var/task"

_RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
_LOOPBACK = "127.0.0.1"
# CloudWatch takes no more in a call than this.
_MOST_LOG_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What came of a call.

    Attributes:
        payload: JSON; what the function returned, or which error it met.

        failed: Whether it is an error.

        log: What the function wrote.
    """

    payload: bytes
    failed: bool
    log: str


class ProcessExecutor(RuntimeExecutor):
    """Runs one version of a function, one call at a time."""

    _environment: Mapping[str, str]

    def __init__(self, id: str, function_version: FunctionVersion) -> None:  # noqa: A002 - LocalStack's name
        super().__init__(id, function_version)
        # Guards the two below: stop() comes from another thread than the call that it ends.
        self._changing = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._log = ""

    def start(self, env_vars: Mapping[str, Any]) -> None:
        """Remember the environment; the process begins with the call."""
        code = self.function_version.config.code.get_unzipped_code_location()  # type: ignore[no-untyped-call]
        self._environment = environment_for(env_vars, Path(code))

    def stop(self) -> None:
        """End the call that runs, if one does."""
        with self._changing:
            self._stopped = True
            if self._process is not None:
                _kill(self._process)

    def invoke(self, payload: dict[str, str]) -> InvocationResult:
        """Call the function."""
        request_id = payload["invoke-id"]
        config = self.function_version.config
        given = {
            "AWS_LAMBDA_REQUEST_ID": request_id,
            "AWS_LAMBDA_FUNCTION_ARN": payload["invoked-function-arn"],
            "_X_AMZN_TRACE_ID": payload["trace-id"],
        }
        answer = self._run({**self._environment, **given}, payload["payload"], config.timeout)
        start = f"START RequestId: {request_id} Version: {self.function_version.id.qualifier}"
        lines = [start, *answer.log.splitlines(), f"END RequestId: {request_id}"]
        self._log = "".join(f"{line}\n" for line in lines)
        return InvocationResult(request_id, answer.payload, answer.failed, self._log)

    def get_address(self) -> str:
        """Return where the function is."""
        return _LOOPBACK

    def get_endpoint_from_executor(self) -> str:
        """Return where the function finds LocalStack."""
        return _LOOPBACK

    def get_runtime_endpoint(self) -> str:
        """Return what a function in a container would report to; this one answers through a file."""
        return f"http://{_LOOPBACK}"

    def get_logs(self) -> str:
        """Return the log of the last call."""
        return self._log

    @classmethod
    def prepare_version(cls, function_version: FunctionVersion) -> None:
        """
        Unpack the code.

        Raises:
            LambdaRuntimeException: The function is for another Python than this one; it becomes the reason
                of its state, Failed.
        """
        runtime = function_version.config.runtime
        if runtime != _RUNTIME:
            raise LambdaRuntimeException(
                f"the function is for {runtime}, and this LocalStack runs functions for {_RUNTIME}; "
                f"install it with that Python"
            )
        function_version.config.code.prepare_for_execution()  # type: ignore[no-untyped-call]

    @classmethod
    def cleanup_version(cls, function_version: FunctionVersion) -> None:
        """Leave the code: a version with another configuration uses it too; LocalStack removes it."""

    def _run(self, environment: Mapping[str, str], event: str, timeout_seconds: int) -> Answer:
        with tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as answers:
            with self._process_with(environment, event, log, answers) as process:
                try:
                    status = process.wait(timeout_seconds)
                except subprocess.TimeoutExpired:
                    _kill(process)
                    status = process.wait()
                    error = _error(
                        "Sandbox.Timedout", environment, f"Task timed out after {timeout_seconds:.2f} seconds"
                    )
                    return Answer(error, failed=True, log=_tail(log))
            return _answer(answers, environment, status, log)

    @contextlib.contextmanager
    def _process_with(
        self, environment: Mapping[str, str], event: str, log: IO[bytes], answers: IO[bytes]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run the function; whatever it started has ended when the block does."""
        # Nothing is ever written to this pipe.  It breaks when LocalStack ends, in whatever way, and the
        # function ends itself: of a process that was killed nobody else would know.
        lifeline, held = os.pipe()
        try:
            with tempfile.TemporaryFile() as events:
                # As files, not pipes: neither side ever waits for the other to read.  Not as arguments: those
                # can be listed by everybody.
                events.write(event.encode())
                events.seek(0)
                process = self._spawn(environment, events, log, (lifeline, answers.fileno()))
            os.close(lifeline)
            lifeline = -1
            try:
                yield process
            finally:
                with self._changing:
                    _kill(process)
                    process.wait()
                    self._process = None
        finally:
            os.close(held)
            if lifeline >= 0:
                os.close(lifeline)

    def _spawn(
        self,
        environment: Mapping[str, str],
        events: IO[bytes],
        log: IO[bytes],
        descriptors: tuple[int, int],
    ) -> subprocess.Popen[bytes]:
        with self._changing:
            if self._stopped:
                raise LambdaRuntimeException("the function is being deleted, or LocalStack is ending")
            self._process = subprocess.Popen(  # noqa: S603 - this Python, this file, two numbers
                # -P: a json.py of the function is not the json that the bootstrap means.
                [sys.executable, "-P", str(BOOTSTRAP), *map(str, descriptors)],
                stdin=events,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=environment["LAMBDA_TASK_ROOT"],
                pass_fds=descriptors,
                start_new_session=True,
            )
            return self._process


def environment_for(given: Mapping[str, Any], code: Path) -> dict[str, str]:
    """
    Return the environment of a function.

    Args:
        given: What LocalStack would give to a container.

        code: Where the function lies on this machine; what names its place on Lambda is moved there.
    """
    values = {name: str(value) for name, value in given.items()}
    moved = {
        name: f"{code}{value.removeprefix(TASK_ROOT)}"
        for name, value in values.items()
        if value == TASK_ROOT or value.startswith(f"{TASK_ROOT}/")
    }
    # Not the home of whoever started LocalStack: a driver would find certificates and passwords there.
    own = {"HOME": str(code), "PATH": os.defpath, "TMPDIR": tempfile.gettempdir()}
    return {**own, **values, **moved, "PYTHONDONTWRITEBYTECODE": "1"}


def _answer(answers: IO[bytes], environment: Mapping[str, str], status: int, log: IO[bytes]) -> Answer:
    # The child has written through the same open file, and left its position at the end.
    answers.seek(0)
    text = answers.read()
    if not text:
        error = _error("Runtime.ExitError", environment, f"Runtime exited with status {status}")
        return Answer(error, failed=True, log=_tail(log))
    kind, _, payload = text.partition(b"\n")
    return Answer(payload, failed=kind != b"returned", log=_tail(log))


def _error(kind: str, environment: Mapping[str, str], message: str) -> bytes:
    request_id = environment["AWS_LAMBDA_REQUEST_ID"]
    error = {"errorType": kind, "errorMessage": f"RequestId: {request_id} Error: {message}"}
    return json.dumps(error).encode()


def _tail(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _MOST_LOG_BYTES))
    return log.read().decode(errors="replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it has started, which is in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
