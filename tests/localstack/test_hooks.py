"""Is everything there when LocalStack says that it is ready?"""

import json
import os
import subprocess
import sys
from typing import Any

from ledger_db.sandbox import Sandbox
from localstack.host import READY_HOOKS, LocalStack
from tests.localstack.clients import Clients
from tests.support.rotations import new_token
from tests.support.waiting import eventually

FUNCTION = "ledger-db-rotation"
APPLICATION = (Sandbox.database_secret_id, Sandbox.redis_secret_id)


def secrets_of(clients: Clients) -> dict[str, Any]:
    """Describe every secret of the sandbox."""
    ours = [Sandbox.admin_secret_id, Sandbox.redis_admin_secret_id, *APPLICATION]
    described = {name: clients("secretsmanager").describe_secret(SecretId=name) for name in ours}
    return {
        name: (answer["ARN"], answer["VersionIdsToStages"], answer.get("RotationEnabled"))
        for name, answer in described.items()
    }


def test_both_secrets_have_been_rotated_once(clients: Clients) -> None:
    """Who finds the environment ready finds a function that has rotated real servers."""
    for name in APPLICATION:
        described = clients("secretsmanager").describe_secret(SecretId=name)
        labels = [label for found in described["VersionIdsToStages"].values() for label in found]

        assert described["RotationEnabled"]
        assert described["RotationLambdaARN"].endswith(f":function:{FUNCTION}")
        assert sorted(labels) == ["AWSCURRENT", "AWSPREVIOUS"]


def test_an_administrators_secret_is_found_by_its_arn(clients: Clients) -> None:
    """What leads the function to the administrator leads there in this LocalStack."""
    value = json.loads(
        clients("secretsmanager").get_secret_value(SecretId=Sandbox.database_secret_id)["SecretString"]
    )
    admin = clients("secretsmanager").describe_secret(SecretId=Sandbox.admin_secret_id)

    assert value["masterarn"] == admin["ARN"]


def test_no_password_is_written_down(localstack: LocalStack, clients: Clients) -> None:
    """No log holds a password, and the file with the first ones is private."""
    seeded = localstack.folder.parent / "code" / "seed.json"
    passwords = [value["password"] for value in json.loads(seeded.read_text())["secrets"].values()]
    for name in APPLICATION:
        answer = clients("secretsmanager").get_secret_value(SecretId=name, VersionStage="AWSCURRENT")
        passwords.append(json.loads(answer["SecretString"])["password"])
    events = clients("logs").filter_log_events(logGroupName=f"/aws/lambda/{FUNCTION}")["events"]
    written = localstack.log_file.read_text(errors="replace") + "".join(event["message"] for event in events)

    assert len(set(passwords)) == 7
    assert "finishSecret" in written
    assert [password for password in passwords if password in written] == []
    assert seeded.stat().st_mode & 0o077 == 0


def test_running_the_hook_again_changes_nothing(localstack: LocalStack, clients: Clients) -> None:
    """A hook that runs twice neither rotates nor replaces a secret."""
    before = secrets_of(clients)
    (hook,) = READY_HOOKS.glob("*.py")
    folder = localstack.folder.parent / "code"
    environment = {
        **os.environ,
        "GATEWAY_LISTEN": localstack.url.removeprefix("http://"),
        "LEDGER_DB_LOCALSTACK_SEED": str(folder / "seed.json"),
        "LEDGER_DB_LOCALSTACK_CODE": str(folder),
    }
    subprocess.run([sys.executable, str(hook)], env=environment, check=True, timeout=60)

    assert before == secrets_of(clients)


def test_a_move_of_awscurrent_is_announced_to_the_topic(clients: Clients) -> None:
    """The event that AWS sends reaches the function by the rule, and services by the topic."""
    topic = clients("sns").create_topic(Name="ledger-db-rotations")["TopicArn"]
    queue = clients("sqs").create_queue(QueueName="listener")["QueueUrl"]
    queue_arn = clients("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    clients("sns").subscribe(
        TopicArn=topic,
        Protocol="sqs",
        Endpoint=queue_arn["Attributes"]["QueueArn"],
        Attributes={"RawMessageDelivery": "true"},
    )
    arn = clients("secretsmanager").describe_secret(SecretId=Sandbox.database_secret_id)["ARN"]
    version = new_token()
    event = {
        "Source": "aws.secretsmanager",
        "DetailType": "Secret Label Updated",
        "Resources": [arn],
        "Detail": json.dumps({"labelUpdated": "AWSCURRENT", "versionId": version}),
    }
    clients("events").put_events(Entries=[event])
    heard: list[str] = []

    def is_heard() -> bool:
        received = clients("sqs").receive_message(QueueUrl=queue, WaitTimeSeconds=1)
        heard.extend(message["Body"] for message in received.get("Messages", []))
        return any(version in message for message in heard)

    eventually(is_heard, "the announcement arrives", timeout_seconds=30)

    assert arn in "".join(heard)
