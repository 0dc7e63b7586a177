"""Does the stand-in behave as a server should: any request answered, nothing logged, nothing left behind?"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import EndpointConnectionError

from ledger_db.stand_in import faults
from ledger_db.stand_in.server import SecretsManagerStandIn
from tests.support.events import fields_of
from tests.support.secrets_client import PATIENCE_SECONDS, ask, client_for

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


def post(url: str, operation: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """A raw request, as no SDK would send it."""
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_SECONDS)) as connection:
        connection.request("POST", "/", body, {"X-Amz-Target": f"secretsmanager.{operation}"})
        answer = connection.getresponse()
        return answer.status, json.load(answer)


@pytest.fixture
def client(stand_in: SecretsManagerStandIn) -> Iterator["SecretsManagerClient"]:
    """A client for it; the secret "s" has the value "canary-one"."""
    with client_for(stand_in.url) as client:
        client.create_secret(Name="s", SecretString="canary-one")
        yield client


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_version_needs_a_token(stand_in: SecretsManagerStandIn) -> None:
    """Without an SDK one has to make the token oneself."""
    status, answer = post(stand_in.url, "CreateSecret", b'{"Name": "raw", "SecretString": "x"}')

    assert (status, answer["__type"]) == (400, "InvalidRequestException")
    assert answer["message"] == "You must provide a ClientRequestToken value. We recommend a UUID-type value."


@pytest.mark.parametrize(
    ("operation", "body", "code"),
    [
        ("GetSecretValue", b"{}", "ValidationException"),
        ("GetSecretValue", b'{"SecretId": 7}', "SerializationException"),
        ("GetSecretValue", b'{"SecretId": ""}', "ValidationException"),
        ("GetSecretValue", b'{"SecretId": "canary', "SerializationException"),
        ("GetSecretValue", b"[]", "SerializationException"),
        ("CreateSecret", b'{"Name": "raw", "SecretBinary": "canary!"}', "SerializationException"),
        ("NoSuchOperation", b"{}", "UnknownOperationException"),
        ("TagResource", b'{"SecretId": "s", "Tags": ["canary"]}', "InternalServiceError"),
    ],
)
def test_a_malformed_request_is_answered(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", operation: str, body: bytes, code: str
) -> None:
    """Whatever arrives gets an AWS error that quotes nothing."""
    _, answer = post(stand_in.url, operation, body)

    assert code == answer["__type"]
    assert "canary" not in answer["message"]


def test_no_value_is_logged(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG every call is one line: operation, status, milliseconds."""
    caplog.set_level("DEBUG", logger="ledger_db")
    client.put_secret_value(SecretId="s", SecretString="canary-two")
    client.get_secret_value(SecretId="s")
    post(stand_in.url, "CreateSecret", b'{"SecretString": "canary-three"')
    ours = [record for record in caplog.records if record.name.startswith("ledger_db")]
    told = [(fields_of(record).get("operation"), fields_of(record).get("status")) for record in ours]

    assert ("PutSecretValue", 200) in told
    assert ("CreateSecret", 400) in told
    assert "canary" not in str([vars(record) for record in ours])


def test_connections_are_kept(stand_in: SecretsManagerStandIn) -> None:
    """A client pays for one connection, not for one a call."""
    with closing(http.client.HTTPConnection(urlsplit(stand_in.url).netloc)) as connection:
        for _ in range(3):
            connection.request("GET", "/_sandbox/health")
            kept = connection.sock
            with connection.getresponse() as answer:
                answer.read()

            assert connection.sock is kept is not None


def test_it_refuses_while_stopped_and_comes_back_with_its_secrets(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient"
) -> None:
    """An outage is refused connections; afterwards everything is at the same URL."""
    before = stand_in.url
    stand_in.stop()
    with client_for(before) as other, pytest.raises(EndpointConnectionError):
        other.get_secret_value(SecretId="s")
    stand_in.start()

    assert before == stand_in.url
    with client_for(before) as other:
        assert other.get_secret_value(SecretId="s")["SecretString"] == "canary-one"


def test_starting_and_stopping_twice_is_once(stand_in: SecretsManagerStandIn) -> None:
    """A clean-up that runs twice does no harm."""
    stand_in.start()
    assert ask(f"{stand_in.url}/_sandbox/health") == {"status": "ok"}
    stand_in.stop()
    stand_in.stop()

    with pytest.raises(OSError, match="refused"):
        ask(f"{stand_in.url}/_sandbox/health")


def test_stopping_cuts_what_is_open_and_leaves_no_thread() -> None:
    """Idle connections and a delayed answer do not keep the stand-in from ending."""
    before = set(threading.enumerate())
    with SecretsManagerStandIn() as stand_in:
        address = urlsplit(stand_in.url).netloc
        with (
            closing(http.client.HTTPConnection(address)) as idle,
            closing(http.client.HTTPConnection(address)) as delayed,
        ):
            idle.request("GET", "/_sandbox/health")
            idle.getresponse().read()
            stand_in.inject(faults.slow(600.0))
            delayed.request("POST", "/", b"{}", {"X-Amz-Target": "secretsmanager.ListSecrets"})
            wait_until(lambda: stand_in.calls().get("ListSecrets") == 1)
            started_at = time.monotonic()
            stand_in.stop()

            assert time.monotonic() - started_at < 60.0
            with pytest.raises((http.client.HTTPException, OSError)):
                delayed.getresponse()
    assert set(threading.enumerate()) <= before


def test_many_clients_at_once_are_served(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient"
) -> None:
    """Forty clients that connect in the same moment all get an answer."""
    answers: list[int] = []
    start = threading.Barrier(40)

    def call() -> None:
        start.wait()
        answers.append(post(stand_in.url, "GetSecretValue", b'{"SecretId": "s"}')[0])

    crowd = [threading.Thread(target=call) for _ in range(40)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()

    assert answers == [200] * 40
