"""What does the Secrets Manager stand-in answer to an HTTP request?"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from ledger_db.errors import ConfigurationError
from ledger_db.event_log import EventLog
from ledger_db.stand_in import catalogue as secret_catalogue, values as secret_operations
from ledger_db.stand_in.faults import Fault, FaultPlan
from ledger_db.stand_in.http_server import Answer, Call
from ledger_db.stand_in.model import CURRENT, ServiceError
from ledger_db.stand_in.random_password import get_random_password
from ledger_db.stand_in.requests import Request, Response, validate
from ledger_db.stand_in.rotations import Rotations
from ledger_db.stand_in.store import SecretStore

log: EventLog = EventLog(__name__)

_OPERATIONS: Mapping[str, Callable[[SecretStore, Request], Response]] = {
    "BatchGetSecretValue": secret_operations.batch_get_secret_value,
    "CreateSecret": secret_operations.create_secret,
    "DeleteResourcePolicy": secret_catalogue.delete_resource_policy,
    "DeleteSecret": secret_operations.delete_secret,
    "DescribeSecret": secret_catalogue.describe_secret,
    "GetResourcePolicy": secret_catalogue.get_resource_policy,
    "GetSecretValue": secret_operations.get_secret_value,
    "ListSecretVersionIds": secret_catalogue.list_secret_version_ids,
    "ListSecrets": secret_catalogue.list_secrets,
    "PutResourcePolicy": secret_catalogue.put_resource_policy,
    "PutSecretValue": secret_operations.put_secret_value,
    "RestoreSecret": secret_operations.restore_secret,
    "TagResource": secret_catalogue.tag_resource,
    "UntagResource": secret_catalogue.untag_resource,
    "UpdateSecret": secret_operations.update_secret,
    "UpdateSecretVersionStage": secret_operations.update_secret_version_stage,
    "ValidateResourcePolicy": secret_catalogue.validate_resource_policy,
}


class SecretsManagerApplication:
    """
    The service behind the wire: operations, faults, and the requests to the stand-in itself.

    Args:
        store: Where the secrets are.

        rotations: What RotateSecret and CancelRotateSecret are handed to.
    """

    def __init__(self, store: SecretStore, rotations: Rotations) -> None:
        self._store = store
        self.faults: FaultPlan = FaultPlan()
        # Guards _calls: two threads that count at once would lose one.
        self._counting = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._interrupted = threading.Event()
        self._operations: dict[str, Callable[[Request], Response]] = {
            **{name: partial(operation, store) for name, operation in _OPERATIONS.items()},
            "CancelRotateSecret": rotations.cancel,
            "GetRandomPassword": get_random_password,
            "RotateSecret": rotations.rotate,
        }

    def calls(self) -> dict[str, int]:
        """How often each operation was asked for, successful or not."""
        with self._counting:
            return dict(self._calls)

    def interrupt(self, *, on: bool) -> None:
        """End all delays, the coming ones too: the server is about to stop.  Or allow them again."""
        if on:
            self._interrupted.set()
        else:
            self._interrupted.clear()

    def answer(self, call: Call) -> Answer | None:
        """Answer an HTTP request; None closes the connection instead."""
        if call.path.startswith("/_sandbox/"):
            return self._answer_about_itself(call)
        if call.method != "POST":
            return _failed(ServiceError("UnknownOperationException", "", status=404))
        started_at = time.perf_counter()
        with self._counting:
            self._calls[call.operation] += 1
        answer = self._answer_operation(call)
        log.debug(
            "operation.answered",
            operation=call.operation,
            status=0 if answer is None else answer.status,
            took_ms=round((time.perf_counter() - started_at) * 1000, 3),
        )
        return answer

    def _answer_operation(self, call: Call) -> Answer | None:
        try:
            request = _parsed(call.body)
        except ServiceError as error:
            return _failed(error)
        fault = self.faults.take(
            call.operation, secret_ids=self._names_of(request), stages=_stages_of(call.operation, request)
        )
        if fault is None:
            return self._perform(call.operation, request)
        # An event instead of a sleep: stop() must not wait for the end of a long delay.
        if self._interrupted.wait(fault.delay_seconds):
            return None
        if fault.spoils_the_answer and not fault.executed:
            return _spoiled(fault)
        answer = self._perform(call.operation, request)
        return _spoiled(fault) if fault.spoils_the_answer else answer

    def _perform(self, operation: str, request: Request) -> Answer:
        if operation not in self._operations:
            return _failed(ServiceError("UnknownOperationException", f"Unknown operation {operation}."))
        try:
            validate(operation, request)
            return _succeeded(self._operations[operation](request))
        except ServiceError as error:
            return _failed(error)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, the caller gets an answer
            # The type only: the text may quote what the request held.
            log.error("operation.failed", operation=operation, error=type(error).__name__)
            return _failed(
                ServiceError("InternalServiceError", "An error occurred on the server side.", status=500)
            )

    def _names_of(self, request: Request) -> set[str]:
        """All that the secrets of a request are called: a fault may use another name than the caller."""
        many = request.get("SecretIdList")
        given = [request.get("SecretId"), request.get("Name"), *(many if isinstance(many, list) else [])]
        names = {name for name in given if isinstance(name, str)}
        for name in tuple(names):
            with suppress(ServiceError):
                secret = self._store.find(name)
                names |= {secret.name, secret.arn}
        return names

    def _answer_about_itself(self, call: Call) -> Answer:
        match call.method, call.path:
            case "GET", "/_sandbox/health":
                return _succeeded({"status": "ok"})
            case "GET", "/_sandbox/calls":
                return _succeeded(self.calls())
            case "GET", "/_sandbox/faults":
                return self._answer_faults()
            case "DELETE", "/_sandbox/faults":
                self.faults.replace(())
                return self._answer_faults()
            case "PUT", "/_sandbox/faults":
                return self._replace_faults(call.body)
        return _failed(ServiceError("UnknownOperationException", f"Nothing is at {call.path}.", status=404))

    def _replace_faults(self, body: bytes) -> Answer:
        try:
            self.faults.replace([Fault.from_json(fault) for fault in json.loads(body)])
        except (ValueError, TypeError, AttributeError, ConfigurationError) as error:
            message = str(error) if isinstance(error, ConfigurationError) else "Send a JSON list of faults."
            return _failed(ServiceError("SerializationException", message))
        return self._answer_faults()

    def _answer_faults(self) -> Answer:
        return _succeeded([fault.to_json() for fault in self.faults.pending()])


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body or b"{}")
    except ValueError:
        request = None
    # Outside the except clause: a chained JSON error would hold the body, and the body may hold a password.
    if not isinstance(request, dict):
        raise ServiceError("SerializationException", "The request is not a JSON object.")
    return request


def _stages_of(operation: str, request: Request) -> set[str]:
    """The staging labels that a request names, or means by naming none."""
    named = {request["VersionStage"]} if isinstance(request.get("VersionStage"), str) else set()
    match operation:
        case "GetSecretValue" if not named and "VersionId" not in request:
            return {CURRENT}
        case "PutSecretValue":
            labels = request.get("VersionStages") or [CURRENT]
            return (
                {label for label in labels if isinstance(label, str)} if isinstance(labels, list) else set()
            )
        case "BatchGetSecretValue" | "UpdateSecret" | "CreateSecret":
            return {CURRENT}
    return named


def _spoiled(fault: Fault) -> Answer | None:
    if fault.drop:
        return None
    if fault.garbage:
        return Answer(200, b"<html>not what you asked for</html>")
    return _failed(ServiceError(fault.code or "InternalServiceError", fault.message, status=fault.status))


def _succeeded(document: object) -> Answer:
    return Answer(200, json.dumps(document).encode())


def _failed(error: ServiceError) -> Answer:
    return Answer(error.status, json.dumps({"__type": error.code, "message": error.message}).encode())
