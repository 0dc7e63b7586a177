"""Are the policies of the template enough for everything, and is nothing in them too much?"""

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3.session
import pytest
from botocore.config import Config

from ledger_db import ConfigurationError, ConnectionManager, Settings
from ledger_db.rotation import journal
from ledger_db.rotation.events import event_handler
from ledger_db.rotation.failures import SecretsManagerDenied
from tests.support.lambda_calls import Context, awscurrent_moved
from tests.support.policy_gate import Permission, PolicyGate, permissions
from tests.support.rotations import Rotations
from tests.support.template_stacks import GIVEN, SCENARIOS, Stack, load
from tests.support.waiting import eventually

TEMPLATE = Path(__file__).resolve().parents[2] / "infra" / "template.yaml"
OWN_SERVERS = SCENARIOS["servers of one's own"]
ENDPOINT = "AWS_ENDPOINT_URL_SECRETS_MANAGER"


@pytest.fixture(scope="module")
def stack() -> Stack:
    """The template, for servers that exist, as the sandbox's do."""
    return Stack(load(TEMPLATE), {**GIVEN, **OWN_SERVERS})


def names_in(pair: Rotations) -> Mapping[str, str]:
    """What the template's references stand for here."""
    return {
        "{DatabaseSecret}": pair.secret_id,
        "{RedisSecret}": pair.box.redis_secret_id,
        # Who announces here is the sandbox's administrator.
        "{AnnounceSecret}": pair.box.redis_admin_secret_id,
        OWN_SERVERS["DatabaseAdminSecretArn"]: pair.box.admin_secret_id,
        OWN_SERVERS["RedisAdminSecretArn"]: pair.box.redis_admin_secret_id,
    }


def of_the_service(stack: Stack, pair: Rotations) -> frozenset[Permission]:
    """What the policy allows that a service attaches."""
    document = stack.resources["ServicePolicy"]["Properties"]["PolicyDocument"]
    return permissions([document], names_in(pair))


def of_the_role(stack: Stack, role: str, pair: Rotations) -> frozenset[Permission]:
    """What the policies of a function's role allow."""
    policies = stack.resources[role]["Properties"]["Policies"]
    return permissions([policy["PolicyDocument"] for policy in policies], names_in(pair))


def gate_for(pair: Rotations, allowed: Iterable[Permission]) -> PolicyGate:
    """A Secrets Manager for somebody who may do what is *allowed*."""
    return PolicyGate(pair.box.secrets_manager.url, allowed, names_in(pair).values())


def client_of(gate: PolicyGate) -> Any:
    """A client of boto3 that goes through the gate."""
    session = boto3.session.Session(
        aws_access_key_id="sandbox", aws_secret_access_key="sandbox", region_name="us-east-1"
    )
    return session.client(
        "secretsmanager",
        endpoint_url=gate.url,
        config=Config(read_timeout=10, retries={"total_max_attempts": 1, "mode": "standard"}),
    )


def settings_for(pair: Rotations) -> Settings:
    """Settings of a service: nothing is polled while a test runs."""
    return Settings(
        database_secret_id=pair.secret_id, refresh_interval_seconds=300, startup_timeout_seconds=20
    )


def test_what_the_template_allows_is_enough_and_nothing_is_too_much(
    stack: Stack, pair: Rotations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service starts and is told of a rotation, and each party has its own policy and uses all of it."""
    # It is for whole programs, and this one has other tests.
    monkeypatch.setattr(journal, "write_to_standard_output", lambda: None)
    service = gate_for(pair, of_the_service(stack, pair))
    rotation = gate_for(pair, of_the_role(stack, "RotationRole", pair))
    announcing = gate_for(pair, of_the_role(stack, "AnnounceRole", pair))
    with service.opened(), rotation.opened(), announcing.opened(), closing(client_of(rotation)) as client:
        monkeypatch.setenv(ENDPOINT, service.url)
        with ConnectionManager(settings_for(pair)) as db, closing(pair.box.redis.connect()) as admin:
            channel = settings_for(pair).announcements_channel
            eventually(lambda: admin.pubsub_numsub(channel)[0][1] > 0, "the service listens")
            version = pair.run(runner=pair.runner(client))
            monkeypatch.setenv(ENDPOINT, announcing.url)
            monkeypatch.setenv("LEDGER_DB_ANNOUNCEMENTS_SECRET_ID", names_in(pair)["{AnnounceSecret}"])
            arn = pair.client.describe_secret(SecretId=pair.secret_id)["ARN"]
            event_handler(awscurrent_moved(arn, version), Context())

            eventually(
                lambda: db.health().servers[0].credentials.version == version, "the service has followed"
            )

    assert service.used == of_the_service(stack, pair)
    assert announcing.used == of_the_role(stack, "AnnounceRole", pair)
    unused = of_the_role(stack, "RotationRole", pair) - rotation.used
    # What is left is for the other secret, which has no rotation here.
    assert {permission.secret for permission in unused} <= {
        pair.box.redis_secret_id,
        pair.box.redis_admin_secret_id,
    }


@pytest.mark.parametrize("secret", ["{DatabaseSecret}", "{RedisSecret}"])
def test_a_service_without_a_permission_names_it(
    stack: Stack, pair: Rotations, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    """Whoever reads the error knows which action on which secret to allow."""
    missing = names_in(pair)[secret]
    allowed = {each for each in of_the_service(stack, pair) if each.secret != missing}
    with gate_for(pair, allowed).opened() as gate:
        monkeypatch.setenv(ENDPOINT, gate.url)

        with pytest.raises(ConfigurationError, match="secretsmanager:GetSecretValue") as caught:
            ConnectionManager(settings_for(pair)).open()

    assert missing in str(caught.value)


@pytest.mark.parametrize(
    ("action", "secret"),
    [
        ("secretsmanager:DescribeSecret", "{DatabaseSecret}"),
        ("secretsmanager:GetSecretValue", "{DatabaseSecret}"),
        ("secretsmanager:PutSecretValue", "{DatabaseSecret}"),
        ("secretsmanager:UpdateSecretVersionStage", "{DatabaseSecret}"),
        ("secretsmanager:GetSecretValue", OWN_SERVERS["DatabaseAdminSecretArn"]),
    ],
)
def test_a_rotation_without_a_permission_fails_by_name_and_harms_nobody(
    stack: Stack, pair: Rotations, action: str, secret: str
) -> None:
    """Take any action away, and a step says so; what is in AWSCURRENT still logs in."""
    missing = Permission(action, names_in(pair)[secret])
    allowed = of_the_role(stack, "RotationRole", pair)
    assert missing in allowed
    with (
        gate_for(pair, allowed - {missing}).opened() as gate,
        closing(client_of(gate)) as client,
        pytest.raises(SecretsManagerDenied, match=action.partition(":")[2]),
    ):
        pair.run(runner=pair.runner(client))

    assert pair.logs_in()
