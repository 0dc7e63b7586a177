"""
Does RotateSecret run a rotation function as AWS does?

Only the stand-in can: moto and LocalStack need Docker for a function.
"""

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError

from ledger_db.stand_in.rotations import RetrySchedule
from ledger_db.stand_in.server import SecretsManagerStandIn
from tests.support.events import fields_of

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:rotate"
STEPS = ["createSecret", "setSecret", "testSecret", "finishSecret"]
PATIENCE_SECONDS = 10.0

Refused = Callable[..., Any]


class ScriptedRotator:
    """
    A rotation function that does what AWS's samples do to the secret, and nothing to a server.

    Attributes:
        events: What it was called with.

        failing: Step to how often it still fails.

        gate: If given, testSecret waits for it.
    """

    def __init__(self, client: "SecretsManagerClient", *, value: str = "two") -> None:
        self._client = client
        self._value = value
        self.events: list[dict[str, str]] = []
        self.failing: dict[str, int] = {}
        self.found_pending: list[bool] = []
        self.gate: threading.Event | None = None
        self.reached_gate = threading.Event()

    def __call__(self, event: dict[str, str]) -> None:
        """Take one step."""
        self.events.append(event)
        if self.failing.get(event["Step"], 0) > 0:
            self.failing[event["Step"]] -= 1
            raise RuntimeError(event["Step"])
        match event["Step"]:
            case "createSecret":
                self._create(event["SecretId"], event["ClientRequestToken"])
            case "testSecret" if self.gate is not None:
                self.reached_gate.set()
                assert self.gate.wait(PATIENCE_SECONDS)
            case "finishSecret":
                self._finish(event["SecretId"], event["ClientRequestToken"])

    @property
    def steps(self) -> list[str]:
        """The steps that were taken, in order."""
        return [event["Step"] for event in self.events]

    def _create(self, secret_id: str, token: str) -> None:
        try:
            self._client.get_secret_value(SecretId=secret_id, VersionId=token, VersionStage="AWSPENDING")
            self.found_pending.append(True)
        except ClientError:
            self.found_pending.append(False)
            self._client.put_secret_value(
                SecretId=secret_id,
                SecretString=self._value,
                ClientRequestToken=token,
                VersionStages=["AWSPENDING"],
            )

    def _finish(self, secret_id: str, token: str) -> None:
        labels = self._client.describe_secret(SecretId=secret_id)["VersionIdsToStages"]
        holder = next(version for version, found in labels.items() if "AWSCURRENT" in found)
        if holder != token:
            self._client.update_secret_version_stage(
                SecretId=secret_id,
                VersionStage="AWSCURRENT",
                MoveToVersionId=token,
                RemoveFromVersionId=holder,
            )


@contextmanager
def client_of(stand_in: SecretsManagerStandIn) -> Iterator["SecretsManagerClient"]:
    """A boto3 client that is closed again."""
    client = boto3.client(
        "secretsmanager",
        endpoint_url=stand_in.url,
        region_name="us-east-1",
        aws_access_key_id="contract",
        aws_secret_access_key="contract",
    )
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def stand_in() -> Iterator[SecretsManagerStandIn]:
    """A stand-in that does not wait long before it tries a rotation again."""
    schedule = RetrySchedule(attempts=3, first_wait_seconds=0.01, longest_wait_seconds=0.02)
    with SecretsManagerStandIn(schedule=schedule) as started:
        yield started


@pytest.fixture
def client(stand_in: SecretsManagerStandIn) -> Iterator["SecretsManagerClient"]:
    """A client for it."""
    with client_of(stand_in) as client:
        yield client


@pytest.fixture
def rotator(stand_in: SecretsManagerStandIn, client: "SecretsManagerClient") -> ScriptedRotator:
    """The rotation function behind FUNCTION."""
    rotator = ScriptedRotator(client)
    stand_in.register(FUNCTION, rotator)
    return rotator


@pytest.fixture
def secret(client: "SecretsManagerClient") -> str:
    """The ARN of a secret whose value is "one"."""
    return client.create_secret(Name=f"rotated/{uuid.uuid4()}", SecretString="one")["ARN"]


def labels_of(client: "SecretsManagerClient", secret: str) -> dict[str, list[str]]:
    """The labels of every version that has any."""
    return dict(client.describe_secret(SecretId=secret)["VersionIdsToStages"])


def test_the_four_steps_run_in_order(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", rotator: ScriptedRotator, secret: str
) -> None:
    """A rotation is createSecret, setSecret, testSecret, finishSecret, with AWS's event."""
    version = client.rotate_secret(SecretId=secret, RotationLambdaARN=FUNCTION)["VersionId"]

    assert stand_in.wait_until_idle(PATIENCE_SECONDS)
    assert rotator.events == [
        {"Step": step, "SecretId": secret, "ClientRequestToken": version} for step in STEPS
    ]


def test_a_rotation_makes_its_version_current(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", rotator: ScriptedRotator, secret: str
) -> None:
    """Afterwards readers get the new value, and the old one is the previous one."""
    version = client.rotate_secret(SecretId=secret, RotationLambdaARN=FUNCTION)["VersionId"]
    stand_in.wait_until_idle(PATIENCE_SECONDS)
    described = client.describe_secret(SecretId=secret)

    assert client.get_secret_value(SecretId=secret)["SecretString"] == "two"
    assert described["VersionIdsToStages"][version] == ["AWSCURRENT", "AWSPENDING"]
    assert described["RotationEnabled"]
    assert described["LastRotatedDate"] >= described["CreatedDate"]


def test_a_rotation_begins_with_a_version_without_value(
    stand_in: SecretsManagerStandIn,
    client: "SecretsManagerClient",
    rotator: ScriptedRotator,
    secret: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """AWSPENDING is there before createSecret has run, and reading it finds nothing."""
    rotator.failing = {"createSecret": 100}
    version = client.rotate_secret(SecretId=secret, RotationLambdaARN=FUNCTION)["VersionId"]
    stand_in.wait_until_idle(PATIENCE_SECONDS)
    with pytest.raises(ClientError) as caught:
        client.get_secret_value(SecretId=secret, VersionStage="AWSPENDING")

    assert labels_of(client, secret)[version] == ["AWSPENDING"]
    assert caught.value.response["Error"]["Message"] == (
        "Secrets Manager can't find the specified secret value for staging label: AWSPENDING"
    )
    assert version not in {
        found["VersionId"] for found in client.list_secret_version_ids(SecretId=secret)["Versions"]
    }


def test_the_call_returns_before_the_rotation_ends(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", rotator: ScriptedRotator, secret: str
) -> None:
    """RotateSecret starts a rotation and does not wait for it."""
    rotator.gate = threading.Event()
    client.rotate_secret(SecretId=secret, RotationLambdaARN=FUNCTION)
    assert rotator.reached_gate.wait(PATIENCE_SECONDS)
    during = client.get_secret_value(SecretId=secret)["SecretString"]
    rotator.gate.set()
    stand_in.wait_until_idle(PATIENCE_SECONDS)

    assert (during, client.get_secret_value(SecretId=secret)["SecretString"]) == ("one", "two")


def test_a_second_rotation_needs_no_function(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", rotator: ScriptedRotator, secret: str
) -> None:
    """The function is remembered."""
    client.rotate_secret(SecretId=secret, RotationLambdaARN=FUNCTION)
    stand_in.wait_until_idle(PATIENCE_SECONDS)
    second = client.rotate_secret(SecretId=secret)["VersionId"]
    stand_in.wait_until_idle(PATIENCE_SECONDS)

    assert [*STEPS, *STEPS] == rotator.steps
    assert "AWSCURRENT" in labels_of(client, secret)[second]


@pytest.mark.parametrize("step", STEPS)
def test_a_failing_step_is_tried_again_with_the_same_token(
    stand_in: SecretsManagerStandIn,
    client: "SecretsManagerClient",
    rotator: ScriptedRotator,
    secret: str,
    step: str,
) -> None:
    """Whichever step fails, the whole rotation is repeated, and ends well."""
    rotator.failing = {step: 1}
    version = client.rotate_secret(SecretId=secret, RotationLambdaARN=FUNCTION)["VersionId"]
    stand_in.wait_until_idle(PATIENCE_SECONDS)

    assert [*STEPS[: STEPS.index(step) + 1], *STEPS] == rotator.steps
    assert {version} == {event["ClientRequestToken"] for event in rotator.events}
    assert client.get_secret_value(SecretId=secret)["SecretString"] == "two"


def test_a_rotation_that_keeps_failing_is_given_up(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", rotator: ScriptedRotator, secret: str
) -> None:
    """After the last attempt AWSPENDING stays where it is, and AWSCURRENT was never touched."""
    rotator.failing = {"testSecret": 100}
    version = client.rotate_secret(SecretId=secret, RotationLambdaARN=FUNCTION)["VersionId"]
    stand_in.wait_until_idle(PATIENCE_SECONDS)

    assert rotator.steps.count("testSecret") == 3
    assert labels_of(client, secret)[version] == ["AWSPENDING"]
    assert client.get_secret_value(SecretId=secret)["SecretString"] == "one"
    assert "LastRotatedDate" not in client.describe_secret(SecretId=secret)


def test_a_rotation_during_a_rotation_is_refused(
    stand_in: SecretsManagerStandIn,
    client: "SecretsManagerClient",
    rotator: ScriptedRotator,
    secret: str,
    refusal_of: Refused,
) -> None:
    """Two rotations of one secret never overlap."""
    rotator.gate = threading.Event()
    client.rotate_secret(SecretId=secret, RotationLambdaARN=FUNCTION)
    rotator.reached_gate.wait(PATIENCE_SECONDS)
    refused = refusal_of(client.rotate_secret, SecretId=secret)
    rotator.gate.set()
    stand_in.wait_until_idle(PATIENCE_SECONDS)

    assert (refused.code, refused.status) == ("InvalidRequestException", 400)
    assert refused.message == "A previous rotation isn't complete. That rotation will be reattempted."
    assert rotator.steps == STEPS


def test_an_unfinished_rotation_is_refused_and_tried_again(
    stand_in: SecretsManagerStandIn,
    client: "SecretsManagerClient",
    rotator: ScriptedRotator,
    secret: str,
    refusal_of: Refused,
) -> None:
    """What the refusal promises happens: the earlier version becomes current."""
    rotator.failing = {"setSecret": 3}
    version = client.rotate_secret(SecretId=secret, RotationLambdaARN=FUNCTION)["VersionId"]
    stand_in.wait_until_idle(PATIENCE_SECONDS)
    refused = refusal_of(client.rotate_secret, SecretId=secret)
    stand_in.wait_until_idle(PATIENCE_SECONDS)

    assert refused.code == "InvalidRequestException"
    assert "AWSCURRENT" in labels_of(client, secret)[version]
    assert rotator.found_pending == [False, True, True, True]


def test_a_repeated_request_does_not_rotate_twice(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", rotator: ScriptedRotator, secret: str
) -> None:
    """RotateSecret with a token that was used answers the same and starts nothing."""
    wanted = str(uuid.uuid4())
    for _ in range(2):
        answer = client.rotate_secret(SecretId=secret, RotationLambdaARN=FUNCTION, ClientRequestToken=wanted)
        stand_in.wait_until_idle(PATIENCE_SECONDS)

        assert wanted == answer["VersionId"]
    assert rotator.steps == STEPS


def test_configuring_without_rotating_only_tests(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", rotator: ScriptedRotator, secret: str
) -> None:
    """RotateImmediately=False calls testSecret once, on a version that is gone afterwards."""
    client.rotate_secret(
        SecretId=secret,
        RotationLambdaARN=FUNCTION,
        RotationRules={"AutomaticallyAfterDays": 30},
        RotateImmediately=False,
    )
    stand_in.wait_until_idle(PATIENCE_SECONDS)
    described = client.describe_secret(SecretId=secret)

    assert rotator.steps == ["testSecret"]
    assert list(described["VersionIdsToStages"].values()) == [["AWSCURRENT"]]
    assert (described["RotationEnabled"], described["RotationRules"]["AutomaticallyAfterDays"]) == (True, 30)
    assert round((described["NextRotationDate"] - described["CreatedDate"]).total_seconds() / 86_400) == 30


def test_a_cancelled_rotation_stops_after_the_step_that_it_is_in(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", rotator: ScriptedRotator, secret: str
) -> None:
    """CancelRotateSecret names the version that is left behind, and finishSecret never runs."""
    rotator.gate = threading.Event()
    version = client.rotate_secret(SecretId=secret, RotationLambdaARN=FUNCTION)["VersionId"]
    rotator.reached_gate.wait(PATIENCE_SECONDS)
    cancelled = client.cancel_rotate_secret(SecretId=secret)
    rotator.gate.set()
    stand_in.wait_until_idle(PATIENCE_SECONDS)

    assert version == cancelled["VersionId"]
    assert STEPS[:3] == rotator.steps
    assert not client.describe_secret(SecretId=secret)["RotationEnabled"]
    assert client.get_secret_value(SecretId=secret)["SecretString"] == "one"


def test_after_a_cancelled_rotation_is_cleaned_up_another_can_begin(
    stand_in: SecretsManagerStandIn, client: "SecretsManagerClient", rotator: ScriptedRotator, secret: str
) -> None:
    """Taking AWSPENDING away ends what was cancelled."""
    rotator.gate = threading.Event()
    version = client.rotate_secret(SecretId=secret, RotationLambdaARN=FUNCTION)["VersionId"]
    rotator.reached_gate.wait(PATIENCE_SECONDS)
    client.cancel_rotate_secret(SecretId=secret)
    rotator.gate.set()
    stand_in.wait_until_idle(PATIENCE_SECONDS)
    client.update_secret_version_stage(
        SecretId=secret, VersionStage="AWSPENDING", RemoveFromVersionId=version
    )
    client.rotate_secret(SecretId=secret)
    stand_in.wait_until_idle(PATIENCE_SECONDS)

    assert client.get_secret_value(SecretId=secret)["SecretString"] == "two"


def test_what_a_function_raises_is_not_logged(
    stand_in: SecretsManagerStandIn,
    client: "SecretsManagerClient",
    secret: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The text of an exception may hold a password, so only its type is written down."""
    caplog.set_level("DEBUG", logger="ledger_db")

    def careless(event: dict[str, str]) -> None:
        raise ValueError("canary-password")

    stand_in.register(FUNCTION, careless)
    client.rotate_secret(SecretId=secret, RotationLambdaARN=FUNCTION)
    stand_in.wait_until_idle(PATIENCE_SECONDS)

    ours = [record for record in caplog.records if record.name.startswith("ledger_db")]
    assert "ValueError" in {fields_of(record).get("error") for record in ours}
    assert "canary-password" not in str([vars(record) for record in ours])


def test_stopping_waits_for_the_step_that_runs(client: "SecretsManagerClient", secret: str) -> None:
    """A rotation in the middle ends in an orderly way when the stand-in stops, and leaves no thread."""
    before = set(threading.enumerate())
    with SecretsManagerStandIn() as other, client_of(other) as its_client:
        rotator = ScriptedRotator(its_client)
        rotator.gate = threading.Event()
        other.register(FUNCTION, rotator)
        its_client.create_secret(Name="stopped", SecretString="one")
        its_client.rotate_secret(SecretId="stopped", RotationLambdaARN=FUNCTION)
        rotator.reached_gate.wait(PATIENCE_SECONDS)
        rotator.gate.set()

    assert other.wait_until_idle(PATIENCE_SECONDS)
    left = {thread for thread in threading.enumerate() if thread.name.startswith(("stand-in", "rotation"))}
    for thread in left - before:
        thread.join(PATIENCE_SECONDS)
    assert not {thread for thread in left - before if thread.is_alive()}


def test_the_wait_between_attempts_grows_to_a_limit() -> None:
    """A server that stays down is not asked in a tight loop, and one that comes back is asked soon."""
    schedule = RetrySchedule(first_wait_seconds=1.0, longest_wait_seconds=5.0)

    assert [schedule.wait_seconds(failures) for failures in (1, 2, 3, 4, 5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
