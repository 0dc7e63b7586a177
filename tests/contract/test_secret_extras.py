"""Does a Secrets Manager treat tags, policies, passwords and a missing rotation function as AWS's does?"""

import json
import string
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

Refused = Callable[..., Any]

FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:rotate"
OPEN_POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}
        ],
    }
)
CLOSED_POLICY = OPEN_POLICY.replace('"*", "Action"', '{"AWS": "arn:aws:iam::000000000000:root"}, "Action"')


def test_tags_are_added_and_replaced(client: "SecretsManagerClient", name: str) -> None:
    """A tag with a known key replaces its value."""
    client.create_secret(Name=name, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    client.tag_resource(SecretId=name, Tags=[{"Key": "b", "Value": "3"}, {"Key": "c", "Value": "4"}])
    tags = client.describe_secret(SecretId=name)["Tags"]

    assert {tag["Key"]: tag["Value"] for tag in tags} == {"a": "1", "b": "3", "c": "4"}


def test_tags_are_removed(client: "SecretsManagerClient", name: str) -> None:
    """Removing a tag that is not there is no error."""
    client.create_secret(Name=name, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    client.untag_resource(SecretId=name, TagKeys=["a", "missing"])

    assert client.describe_secret(SecretId=name)["Tags"] == [{"Key": "b", "Value": "2"}]


def test_a_policy_is_kept(client: "SecretsManagerClient", secret: str) -> None:
    """What was put comes back."""
    client.put_resource_policy(SecretId=secret, ResourcePolicy=CLOSED_POLICY)

    assert json.loads(CLOSED_POLICY) == json.loads(
        client.get_resource_policy(SecretId=secret)["ResourcePolicy"]
    )


def test_a_policy_can_be_deleted(client: "SecretsManagerClient", secret: str) -> None:
    """Afterwards there is none."""
    client.put_resource_policy(SecretId=secret, ResourcePolicy=CLOSED_POLICY)
    client.delete_resource_policy(SecretId=secret)

    assert "ResourcePolicy" not in client.get_resource_policy(SecretId=secret)


@pytest.mark.differs("moto", reason="keeps what is no policy")
def test_a_policy_must_be_json(client: "SecretsManagerClient", secret: str, refusal_of: Refused) -> None:
    """Text that is no policy is refused."""
    refused = refusal_of(client.put_resource_policy, SecretId=secret, ResourcePolicy="{ nonsense")

    assert refused.code == "MalformedPolicyDocumentException"


@pytest.mark.differs("moto", reason="does not implement BlockPublicPolicy")
def test_a_public_policy_can_be_blocked(
    client: "SecretsManagerClient", secret: str, refusal_of: Refused
) -> None:
    """A policy for everybody is refused if the caller wants that."""
    refused = refusal_of(
        client.put_resource_policy, SecretId=secret, ResourcePolicy=OPEN_POLICY, BlockPublicPolicy=True
    )

    assert refused.code == "PublicPolicyException"


@pytest.mark.differs("moto", reason="does not implement ValidateResourcePolicy")
@pytest.mark.parametrize(
    ("policy", "passes"), [(OPEN_POLICY, False), (CLOSED_POLICY, True)], ids=["open", "closed"]
)
def test_a_policy_can_be_validated(
    client: "SecretsManagerClient", secret: str, policy: str, *, passes: bool
) -> None:
    """A policy for everybody does not pass."""
    answer = client.validate_resource_policy(SecretId=secret, ResourcePolicy=policy)

    assert passes is answer["PolicyValidationPassed"]


def test_a_random_password_has_every_type_of_character(client: "SecretsManagerClient") -> None:
    """By default: 32 characters with lower and upper case, digits and punctuation."""
    password = client.get_random_password()["RandomPassword"]

    assert len(password) == 32
    for characters in (string.ascii_lowercase, string.ascii_uppercase, string.digits, string.punctuation):
        assert set(characters) & set(password)


def test_a_random_password_avoids_what_is_excluded(client: "SecretsManagerClient") -> None:
    """Characters that a server cannot cope with are left out."""
    password = client.get_random_password(
        PasswordLength=500, ExcludeCharacters="/@\"'\\", ExcludeNumbers=True
    )

    assert not set("/@\"'\\" + string.digits) & set(password["RandomPassword"])


def test_a_random_password_has_room_for_every_type(
    client: "SecretsManagerClient", refusal_of: Refused
) -> None:
    """Four types do not fit into three characters."""
    refused = refusal_of(client.get_random_password, PasswordLength=3)

    assert refused.code == "InvalidParameterException"
    assert "Password length is too short based on the required types." in refused.message


@pytest.mark.differs("moto", reason="says InvalidParameterValue")
def test_a_random_password_has_at_most_4096_characters(
    client: "SecretsManagerClient", refusal_of: Refused
) -> None:
    """Longer ones are refused by validation."""
    assert refusal_of(client.get_random_password, PasswordLength=4097).code == "ValidationException"


@pytest.mark.differs("moto", reason="fails with HTTP 500")
def test_something_must_be_left_to_choose_from(client: "SecretsManagerClient", refusal_of: Refused) -> None:
    """A request that excludes everything is refused."""
    everything = dict.fromkeys(
        ["ExcludeLowercase", "ExcludeUppercase", "ExcludeNumbers", "ExcludePunctuation"], True
    )

    assert refusal_of(client.get_random_password, **everything).code == "InvalidParameterException"


@pytest.mark.differs("moto", reason="rotates without a function, to a version without a value")
def test_a_rotation_needs_a_function(
    client: "SecretsManagerClient", secret: str, refusal_of: Refused
) -> None:
    """Without a function nothing is rotated, and nothing changes."""
    refused = refusal_of(client.rotate_secret, SecretId=secret)

    assert refused.code == "InvalidRequestException"
    assert refused.message == "No Lambda rotation function ARN is associated with this secret."
    assert client.get_secret_value(SecretId=secret)["SecretString"] == "one"


@pytest.mark.differs("moto", reason="refuses, but the configuration stays")
def test_an_unknown_function_configures_nothing(
    client: "SecretsManagerClient", secret: str, refusal_of: Refused
) -> None:
    """A function that cannot be reached leaves the secret as it was."""
    refused = refusal_of(client.rotate_secret, SecretId=secret, RotationLambdaARN=FUNCTION)
    described = client.describe_secret(SecretId=secret)

    assert refused.code == "ResourceNotFoundException"
    assert "RotationEnabled" not in set(described)
    assert list(described["VersionIdsToStages"].values()) == [["AWSCURRENT"]]


def test_what_was_never_configured_cannot_be_cancelled(
    client: "SecretsManagerClient", secret: str, refusal_of: Refused
) -> None:
    """CancelRotateSecret needs a rotation."""
    assert refusal_of(client.cancel_rotate_secret, SecretId=secret).code == "InvalidRequestException"
