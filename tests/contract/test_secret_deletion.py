"""Does a Secrets Manager delete and restore secrets as AWS's does?"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.secrets_client import listed

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

Refused = Callable[..., Any]

MARKED = "You can't perform this operation on the secret because it was marked for deletion."
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:rotate"


def test_a_deleted_secret_has_thirty_days(client: "SecretsManagerClient", secret: str) -> None:
    """Without a word about it the recovery window is 30 days."""
    answer = client.delete_secret(SecretId=secret)

    assert abs(answer["DeletionDate"] - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=1)
    assert "DeletedDate" in client.describe_secret(SecretId=secret)


def test_a_deleted_secret_cannot_be_read(
    client: "SecretsManagerClient", secret: str, refusal_of: Refused
) -> None:
    """Reading a deleted secret fails, so that a forgotten user is found in time."""
    client.delete_secret(SecretId=secret, RecoveryWindowInDays=7)

    assert refusal_of(client.get_secret_value, SecretId=secret).code == "InvalidRequestException"


@pytest.mark.differs("moto", reason="has a text of its own")
def test_the_refusal_says_that_the_secret_is_deleted(
    client: "SecretsManagerClient", secret: str, refusal_of: Refused
) -> None:
    """The error tells a deleted secret from a missing one."""
    client.delete_secret(SecretId=secret)

    assert refusal_of(client.get_secret_value, SecretId=secret).message == MARKED


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("update_secret", {"SecretString": "x"}),
        ("rotate_secret", {"RotationLambdaARN": FUNCTION}),
        ("cancel_rotate_secret", {}),
        ("delete_secret", {}),
        pytest.param(
            "put_secret_value",
            {"SecretString": "x"},
            marks=pytest.mark.differs("moto", reason="accepts it"),
        ),
        pytest.param(
            "tag_resource",
            {"Tags": [{"Key": "k", "Value": "v"}]},
            marks=pytest.mark.differs("moto", reason="accepts it"),
        ),
        pytest.param(
            "get_resource_policy",
            {},
            marks=pytest.mark.differs("moto", reason="accepts it"),
        ),
    ],
)
def test_a_deleted_secret_cannot_be_changed(
    client: "SecretsManagerClient", secret: str, operation: str, more: dict[str, Any], refusal_of: Refused
) -> None:
    """Between deletion and restoration a secret is frozen."""
    client.delete_secret(SecretId=secret)

    assert refusal_of(getattr(client, operation), SecretId=secret, **more).code == "InvalidRequestException"


@pytest.mark.differs("moto", reason="says ResourceExistsException")
def test_the_name_of_a_deleted_secret_is_taken(
    client: "SecretsManagerClient", secret: str, refusal_of: Refused
) -> None:
    """A secret inside its recovery window is not overwritten."""
    client.delete_secret(SecretId=secret)
    refused = refusal_of(client.create_secret, Name=secret, SecretString="x")

    assert refused.code == "InvalidRequestException"
    assert refused.message == (
        "You can't create this secret because a secret with this name is already scheduled for deletion."
    )


def test_a_deleted_secret_can_be_restored(client: "SecretsManagerClient", secret: str) -> None:
    """Within the recovery window nothing is lost."""
    client.delete_secret(SecretId=secret)
    client.restore_secret(SecretId=secret)

    assert client.get_secret_value(SecretId=secret)["SecretString"] == "one"


def test_a_deleted_secret_is_listed_on_request_only(client: "SecretsManagerClient", secret: str) -> None:
    """A list shows what is planned to be deleted if asked."""
    client.delete_secret(SecretId=secret)
    filters = [{"Key": "name", "Values": [secret]}]

    assert listed(client, Filters=filters) == []
    assert [secret] == listed(client, Filters=filters, IncludePlannedDeletion=True)


def test_a_secret_can_be_deleted_at_once(
    client: "SecretsManagerClient", secret: str, refusal_of: Refused
) -> None:
    """By force there is no recovery, and the name is free."""
    before = client.delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)["ARN"]

    assert refusal_of(client.describe_secret, SecretId=secret).code == "ResourceNotFoundException"
    assert before != client.create_secret(Name=secret, SecretString="x")["ARN"]


def test_deleting_what_is_missing_by_force_is_no_error(client: "SecretsManagerClient", name: str) -> None:
    """A script that cleans up need not look first."""
    assert name == client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)["Name"]


@pytest.mark.parametrize("days", [6, 31])
def test_a_recovery_window_has_seven_to_thirty_days(
    client: "SecretsManagerClient", secret: str, days: int, refusal_of: Refused
) -> None:
    """Other windows are refused, and the secret lives."""
    refused = refusal_of(client.delete_secret, SecretId=secret, RecoveryWindowInDays=days)

    assert refused.code == "InvalidParameterException"
    assert client.get_secret_value(SecretId=secret)["SecretString"] == "one"


def test_force_and_a_window_exclude_each_other(
    client: "SecretsManagerClient", secret: str, refusal_of: Refused
) -> None:
    """A request that contradicts itself is refused."""
    refused = refusal_of(
        client.delete_secret, SecretId=secret, RecoveryWindowInDays=7, ForceDeleteWithoutRecovery=True
    )

    assert refused.code == "InvalidParameterException"
