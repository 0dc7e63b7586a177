"""
What LocalStack does as soon as it is ready: it makes what a deployment of ledger_db has.

Secrets, a topic, the two functions, the rule between them, and rotation.  LocalStack runs this file in
itself, in a container and on the host alike, with its own boto3; running it again changes nothing.

    LEDGER_DB_LOCALSTACK_SEED   JSON: "secrets" (name to value, administrators first), "rotated" (names),
                                "environment" (of the functions, beyond what is the same everywhere)
    LEDGER_DB_LOCALSTACK_CODE   folder with rotation-x86_64.zip or rotation-arm64.zip
"""

import json
import logging
import os
import platform
import time
from functools import cache
from pathlib import Path
from typing import Any

import boto3

log = logging.getLogger("localstack.ledger_db")

REGION = "us-east-1"
NAME = "ledger-db"
TIMEOUT_SECONDS = 60


@cache
def client(service: str) -> Any:
    """Return a client for this LocalStack."""
    port = os.environ.get("GATEWAY_LISTEN", "").partition(",")[0].rpartition(":")[2] or "4566"
    session = boto3.session.Session(
        aws_access_key_id="localstack",
        aws_secret_access_key="localstack",  # noqa: S106 - LocalStack accepts everything
        region_name=REGION,
    )
    return session.client(service, endpoint_url=f"http://127.0.0.1:{port}")  # type: ignore[call-overload] # by name


def make_secrets(wanted: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Create the secrets that are missing; those that exist may have been rotated.  Return their ARNs."""
    secrets = client("secretsmanager")
    arns: dict[str, str] = {}
    for name, given in wanted.items():
        try:
            arns[name] = secrets.describe_secret(SecretId=name)["ARN"]
        except secrets.exceptions.ResourceNotFoundException:
            # What leads to the administrator's secret is its ARN, which is known only here.
            admin = {"masterarn": arns[given["masterarn"]]} if "masterarn" in given else {}
            value = json.dumps({**given, **admin})
            arns[name] = secrets.create_secret(Name=name, SecretString=value)["ARN"]
    return arns


def make_role() -> str:
    """Create the role of the functions; LocalStack allows everything to everybody."""
    iam = client("iam")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    try:
        made = iam.create_role(RoleName=NAME, AssumeRolePolicyDocument=json.dumps(trust))
    except iam.exceptions.EntityAlreadyExistsException:
        made = iam.get_role(RoleName=NAME)
    arn: str = made["Role"]["Arn"]
    return arn


def make_function(name: str, *, caller: str, code: Path, **settings: Any) -> str:
    """
    Create a function, or bring it up to date; return its ARN.

    Args:
        name: Of the function.

        caller: Which service may call it.

        code: Folder with the zip.

        settings: Handler, role and environment, as Lambda's API names them.
    """
    functions = client("lambda")
    architecture = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"
    content = (code / f"rotation-{architecture}.zip").read_bytes()
    try:
        functions.get_function(FunctionName=name)
    except functions.exceptions.ResourceNotFoundException:
        shape = {"Runtime": "python3.12", "Architectures": [architecture], "Timeout": TIMEOUT_SECONDS}
        functions.create_function(FunctionName=name, Code={"ZipFile": content}, **shape, **settings)
        functions.add_permission(
            FunctionName=name, StatementId=name, Action="lambda:InvokeFunction", Principal=caller
        )
    else:
        functions.update_function_code(FunctionName=name, ZipFile=content)
        wait_for(name, "function_updated_v2")
        functions.update_function_configuration(FunctionName=name, **settings)
        wait_for(name, "function_updated_v2")
    wait_for(name, "function_active_v2")
    arn: str = functions.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
    return arn


def wait_for(function: str, state: str) -> None:
    """Wait until a function can be used, or changed once more."""
    client("lambda").get_waiter(state).wait(FunctionName=function, WaiterConfig={"Delay": 1})


def make_rule(secrets: list[str], announces: str) -> None:
    """Have a move of AWSCURRENT announced, as AWS tells it; LocalStack itself sends no such event."""
    events = client("events")
    pattern = {
        "source": ["aws.secretsmanager"],
        "detail-type": ["Secret Label Updated"],
        "resources": secrets,
        "detail": {"labelUpdated": ["AWSCURRENT"]},
    }
    events.put_rule(Name=NAME, EventPattern=json.dumps(pattern), State="ENABLED")
    events.put_targets(Rule=NAME, Targets=[{"Id": "announce", "Arn": announces}])


def enable_rotation(secret: str, function: str) -> None:
    """
    Attach the function and the schedule to *secret*, with a first rotation as on AWS.

    LocalStack says that a rotation went well whatever happened in it, and keeps to no schedule.
    """
    secrets = client("secretsmanager")
    if secrets.describe_secret(SecretId=secret).get("RotationEnabled"):
        return
    version = secrets.rotate_secret(
        SecretId=secret, RotationLambdaARN=function, RotationRules={"AutomaticallyAfterDays": 30}
    )["VersionId"]
    labels = secrets.describe_secret(SecretId=secret)["VersionIdsToStages"].get(version, [])
    if "AWSCURRENT" not in labels:
        raise RuntimeError(
            f"the first rotation of {secret} failed, and AWSCURRENT is where it was; "
            f"the reason is in the log group /aws/lambda/{NAME}-rotation"
        )


def main() -> None:
    """Make everything."""
    began = time.monotonic()
    seed = json.loads(Path(os.environ["LEDGER_DB_LOCALSTACK_SEED"]).read_text(encoding="utf-8"))
    code = Path(os.environ["LEDGER_DB_LOCALSTACK_CODE"])
    arns = make_secrets(seed["secrets"])
    topic = client("sns").create_topic(Name=f"{NAME}-rotations")["TopicArn"]
    role = make_role()
    announcing = {"LEDGER_DB_ANNOUNCEMENTS_TOPIC_ARN": topic, **seed["environment"]}
    announces = make_function(
        f"{NAME}-announce",
        caller="events.amazonaws.com",
        code=code,
        Handler="ledger_db.rotation.events.event_handler",
        Role=role,
        Environment={"Variables": announcing},
    )
    allowed = {"LEDGER_DB_ROTATION_SECRETS": ",".join(seed["rotated"])}
    rotates = make_function(
        f"{NAME}-rotation",
        caller="secretsmanager.amazonaws.com",
        code=code,
        Handler="ledger_db.rotation.handler.lambda_handler",
        Role=role,
        Environment={"Variables": announcing | allowed},
    )
    make_rule([arns[name] for name in seed["rotated"]], announces)
    for name in seed["rotated"]:
        enable_rotation(name, rotates)
    log.info("ledger_db is there, made in %.1f s", time.monotonic() - began)


main()
