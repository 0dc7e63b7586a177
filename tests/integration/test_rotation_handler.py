"""Does the Lambda function rotate, as a process of its own that knows nothing but its environment?"""

import json
import os
import subprocess
import sys
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from ledger_db.rotation.steps import STEPS
from ledger_db.sandbox import Sandbox
from tests.support.neighbours import need_parameter
from tests.support.rotations import Rotations, new_token
from tests.support.waiting import eventually

ROLE_TOKEN = "sensitive-" + "x" * 30

# What the runtime of Lambda does: import the handler, call it, report the class and the text of an error.
RUNTIME = """
import json, sys
from ledger_db.rotation.handler import lambda_handler

class Context:
    def get_remaining_time_in_millis(self):
        return 30_000

try:
    done = lambda_handler(json.loads(sys.stdin.read()), Context())
    if done is not None:
        print(json.dumps(done))
except Exception as error:
    print(json.dumps({"errorType": type(error).__name__, "errorMessage": str(error)}))
    sys.exit(1)
"""


class Function:
    """The deployed function; every call is a cold start."""

    def __init__(self, box: Sandbox, **environment: str) -> None:
        self._environment = {
            **os.environ,
            **box.environment,
            "LEDGER_DB_ROTATION_SECRETS": "test/*",
            **environment,
        }

    def invoke(self, secret_id: str, step: str, token: str, **more: str) -> list[dict[str, Any]]:
        """Do a step; return the lines that it wrote."""
        return self.send({"SecretId": secret_id, "Step": step, "ClientRequestToken": token, **more})

    def send(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Call it; return the lines that it wrote, with what it returned as the last."""
        done = subprocess.run(
            [sys.executable, "-c", RUNTIME],
            input=json.dumps(event),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        return [json.loads(line) for line in done.stdout.splitlines()]


def test_four_cold_starts_rotate_a_secret(pair: Rotations) -> None:
    """By ARN, with a token of a role passed on; every line is JSON, and no password is in any."""
    need_parameter(pair.client, "PutSecretValue", "RotationToken")
    function, token = Function(pair.box), new_token()
    arn = pair.client.describe_secret(SecretId=pair.secret_id)["ARN"]
    lines = [line for step in STEPS for line in function.invoke(arn, step, token, RotationToken=ROLE_TOKEN)]

    assert pair.labels()["AWSCURRENT"] == token
    assert pair.logs_in()
    ended = [line for line in lines if line.get("event") == "step.ended"]
    assert [(line["step"], line["outcome"]) for line in ended] == [(step, "done") for step in STEPS]
    assert pair.value()["password"] not in str(lines)
    assert ROLE_TOKEN not in str(lines)


def test_a_secret_that_the_function_is_not_for_is_refused(pair: Rotations) -> None:
    """The class of the error is what an alarm goes by."""
    function = Function(pair.box, LEDGER_DB_ROTATION_SECRETS="other/*")

    lines = function.invoke(pair.secret_id, "createSecret", new_token())

    assert lines[-1]["errorType"] == "SecretNotAllowed"
    assert pair.labels().keys() == {"AWSCURRENT"}


def test_a_cancelled_rotation_is_not_carried_on(pair: Rotations) -> None:
    """CancelRotateSecret says that nothing shall be rotated any more."""
    pair.client.rotate_secret(
        SecretId=pair.secret_id, RotationLambdaARN=pair.box.rotation_function_arn, RotateImmediately=False
    )
    eventually(lambda: pair.labels().keys() == {"AWSCURRENT"}, "the test of the rotation has ended")
    pair.client.cancel_rotate_secret(SecretId=pair.secret_id)

    lines = Function(pair.box).invoke(pair.secret_id, "createSecret", new_token())

    assert lines[-1]["errorType"] == "EventInvalid"
    assert "rotation is not enabled" in lines[-1]["errorMessage"]


def test_services_are_told(pair: Rotations) -> None:
    """After finishSecret a message without any value is on the channel; nothing before that."""
    function = Function(
        pair.box,
        LEDGER_DB_ANNOUNCEMENTS_SECRET_ID=pair.box.redis_admin_secret_id,
        LEDGER_DB_ANNOUNCEMENTS_CHANNEL="ledger_db:test",
        LEDGER_DB_ROTATION_SSLMODE="disable",
    )
    token = new_token()
    with pair.box.redis.connect() as client, client.pubsub() as channel:
        channel.subscribe("ledger_db:test")
        assert channel.get_message(timeout=5.0) is not None
        for step in STEPS[:3]:
            function.invoke(pair.secret_id, step, token)
        assert channel.get_message(timeout=0.0) is None
        function.invoke(pair.secret_id, STEPS[3], token)
        message = channel.get_message(timeout=5.0)

    assert message is not None
    told = json.loads(message["data"])
    assert told["version_id"] == token
    assert told["strategy"] == "postgres-alternating"
    assert pair.secret_id in told["secret_id"]


def test_services_that_cannot_be_told_do_not_matter(pair: Rotations) -> None:
    """The rotation is done, and polling finds it."""
    function = Function(pair.box, LEDGER_DB_ANNOUNCEMENTS_SECRET_ID="no/such/secret")
    token = new_token()
    lines = [line for step in STEPS for line in function.invoke(pair.secret_id, step, token)]

    assert pair.labels()["AWSCURRENT"] == token
    assert "rotation.not_announced" in [line.get("event") for line in lines]
    assert "errorType" not in lines[-1]


def test_a_leak_can_be_answered_by_the_function(pair: Rotations) -> None:
    """A person invokes it, from where the server need not be reachable, and hears what was done."""
    leaked = pair.value()
    login = {"user": leaked["username"], "password": leaked["password"]}
    with closing(pair.box.postgres.connect(**login)):
        lines = Function(pair.box).send({"Compromised": pair.secret_id, "GraceSeconds": 0})

    assert lines[-1]["Versions"][-1] == pair.labels()["AWSCURRENT"]
    assert (lines[-1]["SessionsEnded"], lines[-1]["SessionsLeft"]) == (1, 0)
    with pytest.raises(psycopg2.OperationalError):
        pair.box.postgres.connect(**login)
    assert leaked["password"] not in str(lines)


@pytest.mark.parametrize(
    ("allowed", "event", "kind", "told"),
    [
        ("test/*", {"GraceSeconds": 30}, "TimeUsedUp", "1 x 30 s of grace and 20 s beside are needed"),
        ("other/*", {"GraceSeconds": 0}, "SecretNotAllowed", "not configured to rotate that secret"),
        ("test/*", {"Step": "setSecret"}, "EventInvalid", "other fields"),
    ],
)
def test_a_leak_that_the_function_cannot_answer_changes_nothing(
    pair: Rotations, allowed: str, event: dict[str, Any], kind: str, told: str
) -> None:
    """Too little time, another function's secret, half a step in it: said before anything is done."""
    labels = pair.labels()
    function = Function(pair.box, LEDGER_DB_ROTATION_SECRETS=allowed)

    answer = function.send({"Compromised": pair.secret_id, **event})[-1]

    assert answer["errorType"] == kind
    assert told in answer["errorMessage"]
    assert "nothing was changed" in answer["errorMessage"]
    assert labels == pair.labels()
