"""Does what is deployed to AWS deploy here, and do its functions rotate real servers over TLS?"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest

from infra import deploy, package
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.seed import FIRST_ROLE, SECOND_ROLE
from localstack import seed
from localstack.host import LocalStack
from tests.localstack.clients import Clients

NAME = "template"
STACK = "the-stack"
REDIS_USER = "ledger-app"
# LocalStack knows their types, and does nothing.
NOT_IMITATED = {"AWS::EC2::SecurityGroupIngress", "AWS::Logs::MetricFilter"}


@dataclass(frozen=True, slots=True)
class Stack:
    """The deployed template, and the servers that it is for."""

    clients: Clients
    servers: Sandbox
    localstack: LocalStack
    said: tuple[str, ...]

    def resources(self) -> dict[str, dict[str, Any]]:
        """Return what was made, by name."""
        answer = self.clients("cloudformation").describe_stack_resources(StackName=STACK)
        made = [found for found in answer["StackResources"] if found.get("PhysicalResourceId")]
        return {found["LogicalResourceId"]: found for found in made}

    def value(self, name: str) -> dict[str, Any]:
        """Return what AWSCURRENT of a secret of the stack holds."""
        answer = self.clients("secretsmanager").get_secret_value(
            SecretId=f"{NAME}/{name}", VersionStage="AWSCURRENT"
        )
        value: dict[str, Any] = json.loads(answer["SecretString"])
        return value

    def rotate_command(self, name: str, option: str) -> str:
        """Run ``ledger-db rotate`` as docs/infrastructure.md says, and return what it printed."""
        assert self.servers.tls is not None
        command = [sys.executable, "-m", "ledger_db.operate.cli", "rotate", f"{NAME}/{name}", option]
        run = subprocess.run(
            [*command, "--sslrootcert", str(self.servers.tls.ca_file)],
            env={**self.localstack.environment, "LEDGER_DB_DATABASE_SSLMODE": "verify-full"},
            capture_output=True,
            text=True,
            check=False,
        )

        assert (run.returncode, run.stderr) == (0, "")
        return run.stdout


@pytest.fixture(scope="module")
def tls_servers() -> Iterator[Sandbox]:
    """PostgreSQL and Valkey that insist on TLS, as those of AWS do."""
    with Sandbox(tls=True) as sandbox:
        with closing(sandbox.redis.connect()) as redis:
            redis.acl_setuser(
                REDIS_USER, enabled=True, reset_passwords=True, keys=["*"], channels=["*"], commands=["+@all"]
            )
        yield sandbox


def parameters(clients: Clients, servers: Sandbox, admins: dict[str, str]) -> dict[str, str]:
    """Return what a person gives who has servers already."""
    subnets = clients("ec2").describe_subnets()["Subnets"]
    return {
        "Name": NAME,
        "CodeBucket": NAME,
        "CodeKey": "code.zip",
        "Architecture": seed.ARCHITECTURE,
        "Rotation": "enabled",
        "VpcId": subnets[0]["VpcId"],
        "SubnetIds": ",".join(subnet["SubnetId"] for subnet in subnets[:2]),
        "Database": "other",
        "DatabaseHost": servers.postgres.host,
        "DatabasePort": str(servers.postgres.port),
        "DatabaseName": servers.postgres.database,
        "DatabaseFirstRole": FIRST_ROLE,
        "DatabaseSecondRole": SECOND_ROLE,
        "DatabaseAdminSecretArn": admins[servers.admin_secret_id],
        "DatabaseSecurityGroupId": "sg-0123456789abcdef0",
        "Redis": "other",
        "RedisUsername": REDIS_USER,
        "RedisHost": servers.redis.host,
        "RedisPort": str(servers.redis.port),
        "RedisAdminSecretArn": admins[servers.redis_admin_secret_id],
        "RedisSecurityGroupId": "sg-0123456789abcdef1",
    }


@pytest.fixture(scope="module")
def stack(clients: Clients, tls_servers: Sandbox, localstack: LocalStack) -> Stack:
    """The template as it is, put there by `make deploy`'s own code."""
    assert tls_servers.tls is not None
    clients("s3").create_bucket(Bucket=NAME)
    code = package.build(seed.ARCHITECTURE, trust=[tls_servers.tls.ca_file])
    clients("s3").put_object(Bucket=NAME, Key="code.zip", Body=code)
    admins = {
        name: clients("secretsmanager").create_secret(
            Name=f"{NAME}-admins/{name}", SecretString=json.dumps(value)
        )["ARN"]
        for name, value in seed.secrets_of(tls_servers).items()
        if name in {tls_servers.admin_secret_id, tls_servers.redis_admin_secret_id}
    }
    said: list[str] = []
    services = deploy.Clients(**{name: clients(name) for name in ("cloudformation", "s3", "sts")})
    deployment = deploy.Deployment(STACK, services, ask=lambda _: "yes", say=said.append)
    with pytest.MonkeyPatch.context() as patch:
        # Nothing here takes minutes to be made.
        patch.setattr(deploy, "_PATIENCE", {"Delay": 1, "MaxAttempts": 60})

        assert deployment.deploy(parameters(clients, tls_servers, admins))
    return Stack(clients, tls_servers, localstack, tuple(said))


def test_every_resource_is_made(stack: Stack) -> None:
    """The core of the template can be made, and what is for other servers is not."""
    made = stack.resources()

    assert {found["ResourceStatus"] for found in made.values()} == {"CREATE_COMPLETE"}
    assert {found["ResourceType"] for found in made.values() if found["PhysicalResourceId"] == "unknown"} == (
        NOT_IMITATED
    )
    assert {"DatabaseSecret", "RedisSecret", "RotationFunction", "AnnounceFunction", "LabelRule"} <= set(made)
    assert not {"DatabaseServer", "RedisServer", "RedisFirstPassword"} & set(made)


def test_deploying_ends_with_the_environment_of_a_service(stack: Stack) -> None:
    """What `make deploy` prints last leads a service to both secrets."""
    given = dict(line.split("=", 1) for line in stack.said if line.startswith("LEDGER_DB_"))
    arns = {name: made["PhysicalResourceId"] for name, made in stack.resources().items()}

    assert given == {
        "LEDGER_DB_DATABASE_SECRET_ID": arns["DatabaseSecret"],
        "LEDGER_DB_REDIS_SECRET_ID": arns["RedisSecret"],
        "LEDGER_DB_REDIS_TLS": "true",
    }


def test_the_functions_are_as_the_template_says(stack: Stack) -> None:
    """Handler, runtime, time and environment arrive, and Secrets Manager may call."""
    found = stack.clients("lambda").get_function_configuration(FunctionName=f"{NAME}-rotation")
    policy = json.loads(stack.clients("lambda").get_policy(FunctionName=f"{NAME}-rotation")["Policy"])
    (statement,) = policy["Statement"]

    assert (found["State"], found["Runtime"], found["Timeout"]) == ("Active", "python3.12", 300)
    assert found["Handler"] == "ledger_db.rotation.handler.lambda_handler"
    assert found["Environment"]["Variables"]["LEDGER_DB_ROTATION_SSLMODE"] == "verify-full"
    assert statement["Principal"] == {"Service": "secretsmanager.amazonaws.com"}


def test_the_rule_looks_for_both_secrets(stack: Stack) -> None:
    """What the rule waits for are the ARNs that there are, and it calls the second function."""
    (name,) = (made["PhysicalResourceId"] for key, made in stack.resources().items() if key == "LabelRule")
    rule = stack.clients("events").describe_rule(Name=name)
    (target,) = stack.clients("events").list_targets_by_rule(Rule=name)["Targets"]
    arns = {stack.resources()[key]["PhysicalResourceId"] for key in ("DatabaseSecret", "RedisSecret")}

    assert set(json.loads(rule["EventPattern"])["resources"]) == arns
    assert target["Arn"].endswith(f":function:{NAME}-announce")


@pytest.mark.parametrize("name", ["postgres", "redis"])
def test_a_new_deployment_is_repaired_and_then_rotates(stack: Stack, name: str) -> None:
    """The way of the documents: generated secret, --repair, RotateSecret; verify-full all along."""
    stack.rotate_command(name, "--repair")
    before = stack.value(name)
    secrets = stack.clients("secretsmanager")
    # A schedule that is an expression enables nothing in LocalStack; on AWS the template has done this.
    version = secrets.rotate_secret(
        SecretId=f"{NAME}/{name}",
        RotationLambdaARN=stack.clients("lambda").get_function(FunctionName=f"{NAME}-rotation")[
            "Configuration"
        ]["FunctionArn"],
        RotationRules={"AutomaticallyAfterDays": 30},
    )["VersionId"]
    labels = secrets.describe_secret(SecretId=f"{NAME}/{name}")["VersionIdsToStages"]
    after = stack.value(name)

    assert labels[version] == ["AWSCURRENT"]
    assert before["password"] != after["password"]
    assert log_in(stack.servers, name, after)


def log_in(servers: Sandbox, name: str, value: dict[str, Any]) -> bool:
    """Log in with what a secret holds."""
    if name == "redis":
        with closing(servers.redis.connect(username=value["username"], password=value["password"])) as redis:
            return bool(redis.ping())
    try:
        servers.postgres.connect(user=value["username"], password=value["password"]).close()
    except psycopg2.OperationalError:
        return False
    return True
