"""
Against what does the conformance suite run?

Each target is a Secrets Manager with an endpoint.  ``stand-in`` is ours, ``moto`` keeps it honest.  A further
one is added by the environment: ``LEDGER_DB_CONTRACT_TARGETS="localstack=http://127.0.0.1:4566"`` (several
with commas).

Where a target is known to differ from AWS, the test says so, and is expected to fail there, strictly: a
release that mends the difference turns the suite red, and the mark goes.
"""

import logging
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from ledger_db.stand_in.server import SecretsManagerStandIn

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_FURTHER = dict(
    entry.strip().split("=", 1)
    for entry in os.environ.get("LEDGER_DB_CONTRACT_TARGETS", "").split(",")
    if entry
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an operation was refused with."""

    code: str
    message: str
    status: int


def _refusal_of(call: Callable[..., Any], **parameters: Any) -> Refusal:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    answer = caught.value.response
    return Refusal(
        answer["Error"]["Code"],
        str(answer["Error"].get("Message", "")),
        answer["ResponseMetadata"]["HTTPStatusCode"],
    )


@pytest.fixture
def refusal_of() -> Callable[..., Refusal]:
    """``refusal_of(client.operation, Parameter=...)``: the refusal of a call that must be refused."""
    return _refusal_of


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "differs(target, reason): the target is known to differ from AWS here")


@contextmanager
def _stand_in() -> Iterator[str]:
    with SecretsManagerStandIn() as stand_in:
        yield stand_in.url


@contextmanager
def _moto() -> Iterator[str]:
    with warnings.catch_warnings():
        # moto's imports warn of what their dependencies will drop; nothing of ours could mend it.
        warnings.simplefilter("ignore", DeprecationWarning)
        from moto.server import ThreadedMotoServer  # noqa: PLC0415 - half a second that other targets need not pay

    # It logs every request on the root's behalf.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
        # moto forgets its listening socket.
        if server._server is not None:
            server._server.server_close()


@contextmanager
def _elsewhere(url: str) -> Iterator[str]:
    yield url


_TARGETS: dict[str, Callable[[], AbstractContextManager[str]]] = {"stand-in": _stand_in, "moto": _moto}


@pytest.fixture(scope="session")
def clients() -> Iterator[Callable[[str], "SecretsManagerClient"]]:
    """A client for a target by name; each target is started once, when it is first asked for."""
    started: dict[str, SecretsManagerClient] = {}
    with ExitStack() as stack:

        def client_for(target: str) -> "SecretsManagerClient":
            if target not in started:
                opened = _elsewhere(_FURTHER[target]) if target in _FURTHER else _TARGETS[target]()
                started[target] = stack.enter_context(_client(stack.enter_context(opened)))
            return started[target]

        yield client_for


@pytest.fixture(params=[*_TARGETS, *_FURTHER])
def target(request: pytest.FixtureRequest) -> str:
    """The name of the target under test; applies the known differences."""
    name: str = request.param
    for mark in request.node.iter_markers("differs"):
        if mark.args[0] == name:
            request.applymarker(pytest.mark.xfail(reason=mark.kwargs["reason"], strict=True))
    return name


@pytest.fixture
def client(target: str, clients: Callable[[str], "SecretsManagerClient"]) -> "SecretsManagerClient":
    """A boto3 client for the target under test."""
    return clients(target)


@pytest.fixture
def name() -> str:
    """A secret name that no other test uses: targets are shared."""
    return f"contract/{uuid.uuid4()}"


@pytest.fixture
def secret(client: "SecretsManagerClient", name: str) -> str:
    """The name of a secret with a value."""
    client.create_secret(Name=name, SecretString="one")
    return name


@pytest.fixture
def stand_in() -> Iterator[SecretsManagerStandIn]:
    """A stand-in of the test's own."""
    with SecretsManagerStandIn() as started:
        yield started


@contextmanager
def _client(url: str) -> Iterator["SecretsManagerClient"]:
    client = boto3.client(
        "secretsmanager",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="contract",
        aws_secret_access_key="contract",
        # A retry would hide an answer that only sometimes is right.
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=10),
    )
    try:
        yield client
    finally:
        client.close()
