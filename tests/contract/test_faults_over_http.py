"""Do injected faults reach a boto3 client as what they imitate?"""

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

from ledger_db.stand_in import faults
from ledger_db.stand_in.server import SecretsManagerStandIn
from tests.support.secrets_client import PATIENCE_SECONDS, ask, client_for

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


Refused = Callable[..., Any]


@pytest.fixture
def client(stand_in: SecretsManagerStandIn) -> Iterator["SecretsManagerClient"]:
    """A client for it; the secret "s" has the value "canary-one"."""
    with client_for(stand_in.url) as client:
        client.create_secret(Name="s", SecretString="canary-one")
        yield client


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        (faults.throttled(), "ThrottlingException", 400),
        (faults.unavailable(), "InternalServiceError", 500),
        (faults.access_denied(times=1), "AccessDeniedException", 400),
    ],
)
def test_a_fault_is_what_the_client_sees(
    stand_in: SecretsManagerStandIn,
    client: "SecretsManagerClient",
    fault: faults.Fault,
    code: str,
    status: int,
    refusal_of: Refused,
) -> None:
    """boto3 raises the injected error once, and then all is well."""
    stand_in.inject(fault)
    refused = refusal_of(client.get_secret_value, SecretId="s")

    assert (code, status) == (refused.code, refused.status)
    assert client.get_secret_value(SecretId="s")["SecretString"] == "canary-one"


def test_pending_can_be_denied_alone(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", refusal_of: Refused
) -> None:
    """A policy may allow AWSCURRENT only."""
    client.put_secret_value(SecretId="s", SecretString="two", VersionStages=["AWSPENDING"])
    stand_in.inject(faults.access_denied("GetSecretValue", stage="AWSPENDING"))
    refused = refusal_of(client.get_secret_value, SecretId="s", VersionStage="AWSPENDING")

    assert refused.code == "AccessDeniedException"
    assert client.get_secret_value(SecretId="s")["SecretString"] == "canary-one"
    assert client.get_secret_value(SecretId="s", VersionStage="AWSCURRENT")["SecretString"] == "canary-one"


def test_pending_can_seem_to_have_no_value(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", refusal_of: Refused
) -> None:
    """The beginning of a rotation can be held for as long as a test needs."""
    client.put_secret_value(SecretId="s", SecretString="two", VersionStages=["AWSPENDING"])
    stand_in.inject(faults.pending_without_value())
    refused = refusal_of(client.get_secret_value, SecretId="s", VersionStage="AWSPENDING")

    assert refused.code == "ResourceNotFoundException"
    assert refused.message.endswith("for staging label: AWSPENDING")


def test_a_fault_for_a_name_hits_who_asks_by_arn(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", refusal_of: Refused
) -> None:
    """However a secret is called, it is that secret."""
    stand_in.inject(faults.Fault(code="DecryptionFailure", secret_id="s", times=None))
    other = client.create_secret(Name="other", SecretString="x")["ARN"]
    arn = client.list_secrets(Filters=[{"Key": "name", "Values": ["s"]}])["SecretList"][0]["ARN"]

    assert refusal_of(client.get_secret_value, SecretId=arn).code == "DecryptionFailure"
    assert client.get_secret_value(SecretId=other)["SecretString"] == "x"


def test_a_slow_answer_is_a_timeout_for_the_impatient(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient"
) -> None:
    """Latency is real: a client with a shorter timeout gives up."""
    stand_in.inject(faults.slow(PATIENCE_SECONDS))
    with client_for(stand_in.url, read_timeout=0.1) as impatient, pytest.raises(ReadTimeoutError):
        impatient.get_secret_value(SecretId="s")


def test_a_dropped_connection_has_no_answer(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient"
) -> None:
    """The connection closes, and nothing was done."""
    stand_in.inject(faults.dropped())
    with pytest.raises(ConnectionClosedError):
        client.put_secret_value(SecretId="s", SecretString="two")

    assert client.get_secret_value(SecretId="s")["SecretString"] == "canary-one"


def test_a_lost_answer_leaves_the_deed_done(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient"
) -> None:
    """The client learns nothing, but the value was put; trying again with the token is harmless."""
    wanted = str(uuid.uuid4())
    stand_in.inject(faults.lost_answer())
    with pytest.raises(ConnectionClosedError):
        client.put_secret_value(SecretId="s", SecretString="two", ClientRequestToken=wanted)
    client.put_secret_value(SecretId="s", SecretString="two", ClientRequestToken=wanted)

    assert client.get_secret_value(SecretId="s")["SecretString"] == "two"
    assert len(client.describe_secret(SecretId="s")["VersionIdsToStages"]) == 2


def test_rubbish_holds_no_secret(stand_in: SecretsManagerStandIn, client: "SecretsManagerClient") -> None:
    """boto3 does not complain of a body that is no JSON: what it returns lacks what was asked for."""
    stand_in.inject(faults.rubbish())
    answer = client.get_secret_value(SecretId="s")

    assert not {"ARN", "Name", "VersionId", "SecretString"} & answer.keys()
    assert client.get_secret_value(SecretId="s")["SecretString"] == "canary-one"


def test_another_process_injects_faults(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", refusal_of: Refused
) -> None:
    """Faults can be put, seen and cleared over HTTP."""
    url = f"{stand_in.url}/_sandbox/faults"
    put = ask(url, "PUT", [faults.throttled(times=2).to_json()])
    refused = refusal_of(client.get_secret_value, SecretId="s")
    left = ask(url)
    ask(url, "DELETE")

    assert refused.code == "ThrottlingException"
    assert [put[0]["times"], left[0]["times"]] == [2, 1]
    assert client.get_secret_value(SecretId="s")["SecretString"] == "canary-one"


@pytest.mark.parametrize("body", [{"code": "x"}, [{"kode": "x"}], [1], "x"])
def test_faults_that_make_no_sense_are_refused(stand_in: SecretsManagerStandIn, body: object) -> None:
    """A drill learns at once that its fault was mistyped."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(f"{stand_in.url}/_sandbox/faults", "PUT", body)
    with caught.value as answer:
        assert answer.code == 400
        assert json.load(answer)["__type"] == "SerializationException"
    assert ask(f"{stand_in.url}/_sandbox/faults") == []


def test_calls_are_counted(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", refusal_of: Refused
) -> None:
    """Successful or not, a call is a call; asking the stand-in itself is none."""
    client.get_secret_value(SecretId="s")
    refusal_of(client.get_secret_value, SecretId="missing")
    counted = ask(f"{stand_in.url}/_sandbox/calls")

    assert {"CreateSecret": 1, "GetSecretValue": 2} == counted == stand_in.calls()


def test_it_says_that_it_is_there(stand_in: SecretsManagerStandIn) -> None:
    """Whoever waits for it can ask."""
    assert ask(f"{stand_in.url}/_sandbox/health") == {"status": "ok"}
