"""
Does a Secrets Manager create and find secrets as AWS's does?

What AWS does is taken from its API reference (botocore's service model), its user guide, and answers that
were recorded from the real service.  Each test is one behaviour.
"""

import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.secrets_client import current, stages, token

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


Refused = Callable[..., Any]

NOT_FOUND_STATUS = "answers HTTP 404 where AWS answers 400"


def test_a_new_secret_has_one_version_that_is_current(client: "SecretsManagerClient", name: str) -> None:
    """A secret that is created with a value can be read at once."""
    created = client.create_secret(Name=name, SecretString="one")

    assert {created["VersionId"]: ["AWSCURRENT"]} == stages(client, name)


def test_the_token_becomes_the_version_id(client: "SecretsManagerClient", name: str) -> None:
    """Who makes a version knows its id beforehand."""
    wanted = token()

    assert wanted == client.create_secret(Name=name, SecretString="x", ClientRequestToken=wanted)["VersionId"]


def test_an_arn_ends_in_six_random_characters(client: "SecretsManagerClient", name: str) -> None:
    """The namesake of a deleted secret has another ARN."""
    arn = client.create_secret(Name=name)["ARN"]

    assert arn.startswith("arn:aws:secretsmanager:us-east-1:")
    assert len(arn.rpartition(f":secret:{name}-")[2]) == 6


def test_a_secret_may_be_created_without_a_value(client: "SecretsManagerClient", name: str) -> None:
    """A secret can exist before its first value."""
    created = client.create_secret(Name=name)

    assert "VersionId" not in set(created)
    assert stages(client, name) == {}


def test_a_secret_without_a_value_cannot_be_read(
    client: "SecretsManagerClient", name: str, refusal_of: Refused
) -> None:
    """Reading a secret that has no value says which label has none."""
    client.create_secret(Name=name)
    refused = refusal_of(client.get_secret_value, SecretId=name)

    assert refused.code == "ResourceNotFoundException"
    assert (
        refused.message
        == "Secrets Manager can't find the specified secret value for staging label: AWSCURRENT"
    )


def test_creating_the_same_secret_twice_with_one_token_is_once(
    client: "SecretsManagerClient", name: str
) -> None:
    """An SDK that repeats CreateSecret because the answer was lost succeeds."""
    wanted = token()
    first = client.create_secret(Name=name, SecretString="x", ClientRequestToken=wanted)
    again = client.create_secret(Name=name, SecretString="x", ClientRequestToken=wanted)

    assert (first["ARN"], wanted) == (again["ARN"], again["VersionId"])


def test_creating_with_a_used_token_and_another_value_is_refused(
    client: "SecretsManagerClient", name: str, refusal_of: Refused
) -> None:
    """A token stands for one value."""
    wanted = token()
    arn = client.create_secret(Name=name, SecretString="x", ClientRequestToken=wanted)["ARN"]
    refused = refusal_of(client.create_secret, Name=name, SecretString="y", ClientRequestToken=wanted)

    assert refused.code == "ResourceExistsException"
    assert refused.message == (
        f"You can't use ClientRequestToken {wanted} because that value is already in use for a version of "
        f"secret {arn}."
    )


def test_a_name_can_be_used_once(client: "SecretsManagerClient", name: str, refusal_of: Refused) -> None:
    """Two secrets cannot have one name."""
    client.create_secret(Name=name, SecretString="x")
    refused = refusal_of(client.create_secret, Name=name, SecretString="x")

    assert (refused.code, refused.status) == ("ResourceExistsException", 400)
    assert f"The operation failed because the secret {name} already exists." == refused.message


@pytest.mark.differs("moto", reason="accepts any name")
@pytest.mark.parametrize("bad", ["with space", "semi;colon", "ümlaut", "a?b"])
def test_a_name_has_few_characters(client: "SecretsManagerClient", bad: str, refusal_of: Refused) -> None:
    """Names are ASCII letters, digits and a few signs."""
    refused = refusal_of(client.create_secret, Name=f"{bad}-{uuid.uuid4()}", SecretString="x")

    assert refused.code == "ValidationException"
    assert refused.message == (
        "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: "
        "-/_+=.@!"
    )


def test_a_name_may_have_all_allowed_signs(client: "SecretsManagerClient", name: str) -> None:
    """Every sign that the service documents is accepted."""
    wanted = f"{name}/_+=.@-x"

    assert wanted == client.create_secret(Name=wanted, SecretString="x")["Name"]


@pytest.mark.differs("moto", reason="accepts a name of any length")
def test_a_name_has_at_most_512_characters(client: "SecretsManagerClient", refusal_of: Refused) -> None:
    """A longer name is refused by validation."""
    refused = refusal_of(client.create_secret, Name="n" * 513, SecretString="x")

    assert refused.code == "ValidationException"
    assert "Member must have length less than or equal to 512" in refused.message


@pytest.mark.differs("moto", reason="accepts values of any size")
@pytest.mark.parametrize("value", ["x" * 65_537, "é" * 32_769], ids=["ascii", "two bytes each"])
def test_a_value_has_at_most_64_kibibytes(
    client: "SecretsManagerClient", name: str, value: str, refusal_of: Refused
) -> None:
    """The limit counts bytes, and the refusal does not repeat the value."""
    refused = refusal_of(client.create_secret, Name=name, SecretString=value)

    assert refused.code == "ValidationException"
    assert "at 'secretString' failed to satisfy constraint" in refused.message
    assert value[:9] not in refused.message


def test_a_value_may_have_64_kibibytes(client: "SecretsManagerClient", name: str) -> None:
    """The largest value is kept whole."""
    client.create_secret(Name=name, SecretString="x" * 65_536)

    assert current(client, name) == "x" * 65_536


@pytest.mark.differs("moto", reason="keeps both")
def test_a_value_is_text_or_bytes(client: "SecretsManagerClient", name: str, refusal_of: Refused) -> None:
    """A secret cannot have two values."""
    refused = refusal_of(client.create_secret, Name=name, SecretString="x", SecretBinary=b"y")

    assert refused.code == "InvalidParameterException"


@pytest.mark.parametrize(
    "value", ["p@ss:w/o%r+d#?'\"\\ ", "пароль-密碼-🔑", json.dumps({"password": "a\nb"})]
)
def test_text_comes_back_as_it_was(client: "SecretsManagerClient", name: str, value: str) -> None:
    """No character of a password is changed on the way."""
    client.create_secret(Name=name, SecretString=value)

    assert value == current(client, name)


def test_bytes_come_back_as_they_were(client: "SecretsManagerClient", name: str) -> None:
    """A binary secret has no text."""
    client.create_secret(Name=name, SecretBinary=bytes(range(256)))
    read = client.get_secret_value(SecretId=name)

    assert bytes(range(256)) == read["SecretBinary"]
    assert "SecretString" not in read


@pytest.mark.parametrize("length", [65])
def test_a_token_has_at_most_64_characters(
    client: "SecretsManagerClient", name: str, length: int, refusal_of: Refused
) -> None:
    """Version ids are bounded."""
    refused = refusal_of(client.create_secret, Name=name, SecretString="x", ClientRequestToken="t" * length)

    assert refused.code == "InvalidParameterException"


@pytest.mark.parametrize("cut", [None, -7], ids=["whole", "partial"])
def test_a_secret_is_found_by_its_arn(client: "SecretsManagerClient", name: str, cut: int | None) -> None:
    """An ARN finds the secret, without its random end too."""
    arn = client.create_secret(Name=name, SecretString="x")["ARN"]

    assert name == client.get_secret_value(SecretId=arn[:cut])["Name"]


def test_an_unknown_secret_is_not_found(
    client: "SecretsManagerClient", name: str, refusal_of: Refused
) -> None:
    """The error says that the secret is missing, not its value."""
    refused = refusal_of(client.get_secret_value, SecretId=name)

    assert refused.code == "ResourceNotFoundException"
    assert refused.message == "Secrets Manager can't find the specified secret."


@pytest.mark.differs("moto", reason=NOT_FOUND_STATUS)
def test_what_is_not_found_is_the_clients_fault(
    client: "SecretsManagerClient", name: str, refusal_of: Refused
) -> None:
    """Every client error is HTTP 400."""
    assert refusal_of(client.get_secret_value, SecretId=name).status == 400


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("cancel_rotate_secret", {}),
        ("delete_resource_policy", {}),
        ("delete_secret", {}),
        ("describe_secret", {}),
        ("get_resource_policy", {}),
        ("put_resource_policy", {"ResourcePolicy": '{"Version":"2012-10-17","Statement":[]}'}),
        ("put_secret_value", {"SecretString": "x"}),
        ("restore_secret", {}),
        ("rotate_secret", {}),
        ("tag_resource", {"Tags": [{"Key": "k", "Value": "v"}]}),
        ("untag_resource", {"TagKeys": ["k"]}),
        ("update_secret", {"Description": "d"}),
        ("update_secret_version_stage", {"VersionStage": "x", "MoveToVersionId": "0" * 32}),
    ],
)
def test_every_operation_says_that_a_secret_is_missing(
    client: "SecretsManagerClient", name: str, operation: str, more: dict[str, Any], refusal_of: Refused
) -> None:
    """No operation works on a secret that does not exist."""
    assert refusal_of(getattr(client, operation), SecretId=name, **more).code == "ResourceNotFoundException"


@pytest.mark.differs("moto", reason="fails with HTTP 500")
def test_listing_the_versions_of_a_missing_secret_says_so(
    client: "SecretsManagerClient", name: str, refusal_of: Refused
) -> None:
    """ListSecretVersionIds is no exception."""
    assert refusal_of(client.list_secret_version_ids, SecretId=name).code == "ResourceNotFoundException"
