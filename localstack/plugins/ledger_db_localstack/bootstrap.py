"""
What runs inside of the process of a function?

Standard input is the event; the two arguments are the numbers of open files: one that ends when LocalStack
does, one for the answer.  Standard library only, and nothing of the function is imported before its folder is
the first to be looked in.
"""

import importlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

_BEGAN = time.monotonic()


class Context:
    """What Lambda tells a function about its call."""

    aws_request_id = os.environ.get("AWS_LAMBDA_REQUEST_ID", "")
    client_context = None
    function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
    function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "")
    identity = None
    invoked_function_arn = os.environ.get("AWS_LAMBDA_FUNCTION_ARN", "")
    log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME", "")
    log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
    memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        """How long until it is ended."""
        ends = _BEGAN + float(os.environ["AWS_LAMBDA_FUNCTION_TIMEOUT"])
        return max(0, int(1000 * (ends - time.monotonic())))


class _Unusable(Exception):
    """The function cannot be called."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _find(handler: str) -> Callable[[Any, Context], Any]:
    module_name, _, name = handler.rpartition(".")
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise _Unusable(
            "Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}"
        ) from error
    try:
        found: Callable[[Any, Context], Any] = getattr(module, name)
    except AttributeError as error:
        raise _Unusable(
            "Runtime.HandlerNotFound", f"Handler '{name}' missing on module '{module_name}'"
        ) from error
    return found


def _call() -> tuple[str, Any]:
    try:
        returned = _find(os.environ["_HANDLER"])(json.load(sys.stdin), Context())
        # Here, so that what cannot be written is the function's error.
        json.dumps(returned)
    except SystemExit as error:
        return "failed", {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"Runtime exited with status {error.code}",
        }
    except BaseException as error:  # noqa: BLE001 - whatever it is, the caller is told
        traceback.print_exc()
        kind = error.kind if isinstance(error, _Unusable) else type(error).__name__
        stack = traceback.format_tb(error.__traceback__)[1:]
        return "failed", {
            "errorMessage": str(error),
            "errorType": kind,
            "requestId": Context.aws_request_id,
            "stackTrace": stack,
        }
    return "returned", returned


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(1)


def main() -> None:
    """Call the function once."""
    lifeline, answers = map(int, sys.argv[1:])
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
    kind, value = _call()
    with os.fdopen(answers, "w", encoding="utf-8") as file:
        file.write(f"{kind}\n{json.dumps(value)}")


if __name__ == "__main__":
    main()
