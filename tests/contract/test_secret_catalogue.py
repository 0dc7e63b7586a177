"""Does a Secrets Manager describe, list and read many secrets as AWS's does?"""

import random
import string
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.neighbours import need_parameter
from tests.support.secrets_client import listed

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

Refused = Callable[..., Any]


def test_a_description_holds_what_was_given(client: "SecretsManagerClient", name: str) -> None:
    """DescribeSecret knows everything but the value."""
    tags: list[Any] = [{"Key": "team", "Value": "ledger"}]
    client.create_secret(Name=name, SecretString="one", Description="words", Tags=tags, KmsKeyId="alias/mine")
    described = client.describe_secret(SecretId=name)

    assert ("words", tags, "alias/mine") == (
        described["Description"],
        described["Tags"],
        described["KmsKeyId"],
    )
    assert "SecretString" not in described


def test_a_secret_that_was_never_rotated_says_nothing_of_rotation(
    client: "SecretsManagerClient", secret: str
) -> None:
    """Only what has a value is in the answer."""
    described = client.describe_secret(SecretId=secret)

    assert not {"RotationEnabled", "RotationLambdaARN", "RotationRules", "LastRotatedDate"} & described.keys()


def test_a_change_is_dated(client: "SecretsManagerClient", secret: str) -> None:
    """LastChangedDate is never before CreatedDate, and both are now."""
    client.put_secret_value(SecretId=secret, SecretString="two")
    described = client.describe_secret(SecretId=secret)

    assert described["CreatedDate"] <= described["LastChangedDate"]
    assert abs(datetime.now(UTC) - described["LastChangedDate"]) < timedelta(minutes=1)


def test_a_secret_is_listed(client: "SecretsManagerClient", secret: str) -> None:
    """A new secret is in the list, with its labels."""
    found = client.list_secrets(Filters=[{"Key": "name", "Values": [secret]}])["SecretList"]

    assert [secret] == [entry["Name"] for entry in found]
    assert list(found[0]["SecretVersionsToStages"].values()) == [["AWSCURRENT"]]


def test_a_list_comes_in_pages(client: "SecretsManagerClient", name: str) -> None:
    """A page is no longer than asked for, and nothing is lost between two."""
    wanted = [f"{name}/{number}" for number in range(5)]
    for one in wanted:
        client.create_secret(Name=one, SecretString="x")
    first = client.list_secrets(Filters=[{"Key": "name", "Values": [name]}], MaxResults=2)

    assert len(first["SecretList"]) == 2
    assert wanted == sorted(
        listed(client, Filters=[{"Key": "name", "Values": [name]}], PaginationConfig={"PageSize": 2})
    )


@pytest.mark.differs("moto", reason="fails with HTTP 500")
def test_an_invented_page_token_is_refused(client: "SecretsManagerClient", refusal_of: Refused) -> None:
    """A token has to come from an answer."""
    assert refusal_of(client.list_secrets, NextToken="nonsense").code == "InvalidNextTokenException"


@pytest.mark.differs("moto", reason="ignores SortBy and SortOrder")
def test_a_list_can_be_sorted_by_name(client: "SecretsManagerClient", name: str) -> None:
    """Names come in order, or in reverse."""
    need_parameter(client, "ListSecrets", "SortBy")
    for one in ("b", "c", "a"):
        client.create_secret(Name=f"{name}/{one}", SecretString="x")
    filters = [{"Key": "name", "Values": [name]}]

    assert [f"{name}/{one}" for one in "cba"] == listed(
        client, Filters=filters, SortBy="name", SortOrder="desc"
    )


@pytest.mark.parametrize("key", ["tag-key", "tag-value"])
def test_a_list_can_be_filtered_by_tag(client: "SecretsManagerClient", name: str, key: str) -> None:
    """Tags find secrets by how they begin."""
    mark = uuid.uuid4().hex
    client.create_secret(Name=name, SecretString="x", Tags=[{"Key": f"{mark}-key", "Value": f"{mark}-value"}])

    assert [name] == listed(client, Filters=[{"Key": key, "Values": [mark]}])


def test_a_list_can_be_filtered_by_words_of_the_description(
    client: "SecretsManagerClient", name: str
) -> None:
    """A word in the middle of the description finds the secret."""
    word = "".join(random.choices(string.ascii_lowercase, k=20))
    client.create_secret(Name=name, SecretString="x", Description=f"the {word} of the ledger")

    assert [name] == listed(client, Filters=[{"Key": "description", "Values": [word]}])


def test_filters_must_all_match(client: "SecretsManagerClient", name: str) -> None:
    """Two filters narrow the list; two values of one widen it."""
    for one in ("a", "b", "c"):
        client.create_secret(Name=f"{name}/{one}", SecretString="x", Tags=[{"Key": one, "Value": one}])
    either = {"Key": "name", "Values": [f"{name}/a", f"{name}/b"]}

    assert [f"{name}/a", f"{name}/b"] == sorted(listed(client, Filters=[either]))
    assert [f"{name}/b"] == listed(client, Filters=[either, {"Key": "tag-key", "Values": ["b"]}])


def test_a_filter_can_be_negated(client: "SecretsManagerClient", name: str) -> None:
    """An exclamation mark means: all others."""
    for one in ("a", "b"):
        client.create_secret(Name=f"{name}/{one}", SecretString="x")
    filters = [{"Key": "name", "Values": [name]}, {"Key": "name", "Values": [f"!{name}/a"]}]

    assert [f"{name}/b"] == listed(client, Filters=filters)


def test_an_unknown_filter_is_refused(client: "SecretsManagerClient", refusal_of: Refused) -> None:
    """A mistyped key does not silently match everything."""
    refused = refusal_of(client.list_secrets, Filters=[{"Key": "colour", "Values": ["blue"]}])

    assert refused.code == "ValidationException"


def test_many_are_read_at_once(client: "SecretsManagerClient", name: str) -> None:
    """BatchGetSecretValue answers the values in one call."""
    wanted = [f"{name}/{one}" for one in "abc"]
    for one in wanted:
        client.create_secret(Name=one, SecretString=f"value of {one}")
    read = client.batch_get_secret_value(SecretIdList=wanted)

    assert {one: f"value of {one}" for one in wanted} == {
        entry["Name"]: entry["SecretString"] for entry in read["SecretValues"]
    }
    assert not read.get("Errors")


def test_what_cannot_be_read_does_not_fail_the_rest(client: "SecretsManagerClient", secret: str) -> None:
    """A missing secret is an entry among the errors."""
    missing = f"{secret}/missing"
    read = client.batch_get_secret_value(SecretIdList=[secret, missing])

    assert [secret] == [entry["Name"] for entry in read["SecretValues"]]
    assert [(missing, "ResourceNotFoundException")] == [
        (error["SecretId"], error["ErrorCode"]) for error in read["Errors"]
    ]


def test_many_can_be_chosen_by_a_filter(client: "SecretsManagerClient", name: str) -> None:
    """BatchGetSecretValue takes the filters of ListSecrets, in pages."""
    for one in "abc":
        client.create_secret(Name=f"{name}/{one}", SecretString=one)
    filters: list[Any] = [{"Key": "name", "Values": [name]}]
    first = client.batch_get_secret_value(Filters=filters, MaxResults=2)
    rest = client.batch_get_secret_value(Filters=filters, MaxResults=2, NextToken=first["NextToken"])
    values = [entry["SecretString"] for page in (first, rest) for entry in page["SecretValues"]]

    assert sorted(values) == ["a", "b", "c"]


@pytest.mark.differs("moto", reason="one secret without a value fails the whole batch")
def test_a_filter_that_finds_a_secret_without_value_reads_the_rest(
    client: "SecretsManagerClient", name: str
) -> None:
    """A secret that has no value yet does not keep the others from being read."""
    client.create_secret(Name=f"{name}/empty")
    client.create_secret(Name=f"{name}/full", SecretString="x")
    read = client.batch_get_secret_value(Filters=[{"Key": "name", "Values": [name]}])

    assert [f"{name}/full"] == [entry["Name"] for entry in read["SecretValues"]]
    assert [error["ErrorCode"] for error in read["Errors"]] == ["ResourceNotFoundException"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"SecretIdList": ["a"], "Filters": [{"Key": "name", "Values": ["a"]}]},
        {"SecretIdList": ["a"], "MaxResults": 2},
    ],
    ids=["both", "size of a list"],
)
def test_a_batch_has_ids_or_filters(
    client: "SecretsManagerClient", parameters: dict[str, Any], refusal_of: Refused
) -> None:
    """What is asked for must be unambiguous."""
    assert refusal_of(client.batch_get_secret_value, **parameters).code == "InvalidParameterException"
