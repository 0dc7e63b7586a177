"""Does a Secrets Manager read, put and update values as AWS's does?"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.secrets_client import current, stages, token

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


Refused = Callable[..., Any]


def test_reading_tells_the_version_and_its_labels(client: "SecretsManagerClient", name: str) -> None:
    """A reader learns which version it has."""
    version = client.create_secret(Name=name, SecretString="x")["VersionId"]
    read = client.get_secret_value(SecretId=name)

    assert (version, ["AWSCURRENT"]) == (read["VersionId"], read["VersionStages"])


def test_an_old_version_can_be_read_by_its_id(client: "SecretsManagerClient", name: str) -> None:
    """The value before a rotation is still there."""
    first = client.create_secret(Name=name, SecretString="one")["VersionId"]
    client.put_secret_value(SecretId=name, SecretString="two")

    assert client.get_secret_value(SecretId=name, VersionId=first)["SecretString"] == "one"


def test_the_previous_version_can_be_read_by_its_label(client: "SecretsManagerClient", name: str) -> None:
    """AWSPREVIOUS is the last known good value."""
    client.create_secret(Name=name, SecretString="one")
    client.put_secret_value(SecretId=name, SecretString="two")

    assert client.get_secret_value(SecretId=name, VersionStage="AWSPREVIOUS")["SecretString"] == "one"


def test_an_unknown_version_is_not_found(
    client: "SecretsManagerClient", name: str, refusal_of: Refused
) -> None:
    """The error names the version."""
    client.create_secret(Name=name, SecretString="x")
    missing = token()
    refused = refusal_of(client.get_secret_value, SecretId=name, VersionId=missing)

    assert refused.code == "ResourceNotFoundException"
    assert (
        f"Secrets Manager can't find the specified secret value for VersionId: {missing}" == refused.message
    )


@pytest.mark.differs("moto", reason="says that the secret, not the value, is missing")
def test_a_label_that_nothing_carries_is_not_found(
    client: "SecretsManagerClient", name: str, refusal_of: Refused
) -> None:
    """The error names the label."""
    client.create_secret(Name=name, SecretString="x")
    refused = refusal_of(client.get_secret_value, SecretId=name, VersionStage="AWSPENDING")

    assert refused.code == "ResourceNotFoundException"
    assert (
        refused.message
        == "Secrets Manager can't find the specified secret value for staging label: AWSPENDING"
    )


def test_version_and_label_must_agree(client: "SecretsManagerClient", name: str, refusal_of: Refused) -> None:
    """Asking for a version under a label that it does not carry is refused."""
    first = client.create_secret(Name=name, SecretString="one")["VersionId"]
    client.put_secret_value(SecretId=name, SecretString="two")
    refused = refusal_of(client.get_secret_value, SecretId=name, VersionId=first, VersionStage="AWSCURRENT")

    assert refused.code == "InvalidRequestException"
    assert refused.message == "You provided a VersionStage that is not associated to the provided VersionId."


def test_version_and_label_that_agree_are_answered(client: "SecretsManagerClient", name: str) -> None:
    """A rotation function reads its own version under AWSPENDING."""
    client.create_secret(Name=name, SecretString="one")
    pending = token()
    client.put_secret_value(
        SecretId=name, SecretString="two", ClientRequestToken=pending, VersionStages=["AWSPENDING"]
    )
    read = client.get_secret_value(SecretId=name, VersionId=pending, VersionStage="AWSPENDING")

    assert read["SecretString"] == "two"


@pytest.mark.differs("moto", reason="never sets it")
def test_reading_is_noted_by_the_day(client: "SecretsManagerClient", name: str) -> None:
    """LastAccessedDate is a date without a time."""
    client.create_secret(Name=name, SecretString="x")
    client.get_secret_value(SecretId=name)
    accessed = client.describe_secret(SecretId=name)["LastAccessedDate"].astimezone(UTC)

    assert accessed == accessed.replace(hour=0, minute=0, second=0, microsecond=0)
    assert timedelta(0) <= datetime.now(UTC) - accessed < timedelta(days=1, minutes=1)


def test_a_put_becomes_current(client: "SecretsManagerClient", name: str) -> None:
    """Without labels a new value is the current one."""
    client.create_secret(Name=name, SecretString="one")
    client.put_secret_value(SecretId=name, SecretString="two")

    assert current(client, name) == "two"


def test_a_put_makes_the_current_version_the_previous_one(client: "SecretsManagerClient", name: str) -> None:
    """AWSPREVIOUS goes where AWSCURRENT was."""
    first = client.create_secret(Name=name, SecretString="one")["VersionId"]
    second = client.put_secret_value(SecretId=name, SecretString="two")["VersionId"]

    assert {first: ["AWSPREVIOUS"], second: ["AWSCURRENT"]} == {
        version: labels for version, labels in stages(client, name).items() if labels
    }


@pytest.mark.differs("moto", reason="lists versions without labels")
def test_the_version_before_the_previous_one_is_deprecated(client: "SecretsManagerClient", name: str) -> None:
    """A version that lost its last label is no longer listed."""
    first = client.create_secret(Name=name, SecretString="one")["VersionId"]
    client.put_secret_value(SecretId=name, SecretString="two")
    client.put_secret_value(SecretId=name, SecretString="three")

    assert first not in stages(client, name)


def test_a_deprecated_version_can_still_be_read(client: "SecretsManagerClient", name: str) -> None:
    """A version is not gone because its labels are."""
    first = client.create_secret(Name=name, SecretString="one")["VersionId"]
    client.put_secret_value(SecretId=name, SecretString="two")
    client.put_secret_value(SecretId=name, SecretString="three")

    assert client.get_secret_value(SecretId=name, VersionId=first)["SecretString"] == "one"


def test_a_put_with_a_label_leaves_current_alone(client: "SecretsManagerClient", name: str) -> None:
    """A rotation prepares its value without anybody noticing."""
    client.create_secret(Name=name, SecretString="one")
    put = client.put_secret_value(SecretId=name, SecretString="two", VersionStages=["AWSPENDING"])

    assert put["VersionStages"] == ["AWSPENDING"]
    assert current(client, name) == "one"


def test_a_label_moves_to_the_version_that_is_put(client: "SecretsManagerClient", name: str) -> None:
    """A label is on one version only."""
    client.create_secret(Name=name, SecretString="one")
    first = client.put_secret_value(SecretId=name, SecretString="two", VersionStages=["mine"])["VersionId"]
    second = client.put_secret_value(SecretId=name, SecretString="three", VersionStages=["mine"])["VersionId"]

    assert "mine" not in stages(client, name).get(first, [])
    assert stages(client, name)[second] == ["mine"]


def test_a_version_may_carry_several_labels(client: "SecretsManagerClient", name: str) -> None:
    """Labels of one's own stand beside those of AWS."""
    client.create_secret(Name=name, SecretString="one")
    version = client.put_secret_value(
        SecretId=name, SecretString="two", VersionStages=["AWSCURRENT", "blue", "green"]
    )["VersionId"]

    assert stages(client, name)[version] == ["AWSCURRENT", "blue", "green"]


@pytest.mark.differs("moto", reason="accepts any number")
def test_a_put_carries_at_most_twenty_labels(
    client: "SecretsManagerClient", name: str, refusal_of: Refused
) -> None:
    """Labels are bounded."""
    client.create_secret(Name=name, SecretString="one")
    labels = [f"label-{number}" for number in range(21)]
    refused = refusal_of(client.put_secret_value, SecretId=name, SecretString="two", VersionStages=labels)

    assert refused.code == "ValidationException"


def test_the_first_value_is_current_whatever_its_label(client: "SecretsManagerClient", name: str) -> None:
    """A secret with a value always has a current one."""
    client.create_secret(Name=name)
    version = client.put_secret_value(SecretId=name, SecretString="one", VersionStages=["AWSPENDING"])[
        "VersionId"
    ]

    assert {version: ["AWSCURRENT", "AWSPENDING"]} == stages(client, name)


def test_a_repeated_put_does_nothing(client: "SecretsManagerClient", name: str) -> None:
    """A put that is sent again because its answer was lost does not make a second version."""
    client.create_secret(Name=name, SecretString="one")
    wanted = token()
    for _ in range(2):
        client.put_secret_value(SecretId=name, SecretString="two", ClientRequestToken=wanted)

    assert len(stages(client, name)) == 2
    assert current(client, name) == "two"


def test_a_put_that_is_repeated_late_moves_no_label(client: "SecretsManagerClient", name: str) -> None:
    """An old put that arrives again does not roll the secret back."""
    client.create_secret(Name=name, SecretString="one")
    late = token()
    client.put_secret_value(SecretId=name, SecretString="two", ClientRequestToken=late)
    client.put_secret_value(SecretId=name, SecretString="three")
    client.put_secret_value(SecretId=name, SecretString="two", ClientRequestToken=late)

    assert current(client, name) == "three"


def test_a_used_token_with_another_value_is_refused(
    client: "SecretsManagerClient", name: str, refusal_of: Refused
) -> None:
    """A version cannot be modified."""
    client.create_secret(Name=name, SecretString="one")
    wanted = token()
    client.put_secret_value(SecretId=name, SecretString="two", ClientRequestToken=wanted)
    refused = refusal_of(
        client.put_secret_value, SecretId=name, SecretString="three", ClientRequestToken=wanted
    )

    assert refused.code == "ResourceExistsException"
    assert current(client, name) == "two"


@pytest.mark.differs("moto", reason="overwrites the value of a version that is AWSPENDING")
def test_a_pending_version_cannot_be_modified_either(
    client: "SecretsManagerClient", name: str, refusal_of: Refused
) -> None:
    """A createSecret that is repeated cannot replace a password that the server may have by then."""
    client.create_secret(Name=name, SecretString="one")
    pending = {"SecretId": name, "ClientRequestToken": token(), "VersionStages": ["AWSPENDING"]}
    client.put_secret_value(SecretString="two", **pending)  # type: ignore[arg-type]
    refused = refusal_of(client.put_secret_value, SecretString="three", **pending)

    assert refused.code == "ResourceExistsException"


def test_a_put_needs_a_value(client: "SecretsManagerClient", name: str, refusal_of: Refused) -> None:
    """A version without a value cannot be put."""
    client.create_secret(Name=name, SecretString="one")
    refused = refusal_of(client.put_secret_value, SecretId=name)

    assert refused.code == "InvalidRequestException"
    assert refused.message == "You must provide either SecretString or SecretBinary."


def test_an_update_with_a_value_makes_a_current_version(client: "SecretsManagerClient", name: str) -> None:
    """UpdateSecret is another way to put."""
    first = client.create_secret(Name=name, SecretString="one")["VersionId"]
    second = client.update_secret(SecretId=name, SecretString="two")["VersionId"]

    assert current(client, name) == "two"
    assert {first: ["AWSPREVIOUS"], second: ["AWSCURRENT"]} == stages(client, name)


def test_an_update_of_the_description_makes_no_version(client: "SecretsManagerClient", name: str) -> None:
    """Words about a secret are no part of its value."""
    version = client.create_secret(Name=name, SecretString="one", Description="before")["VersionId"]
    updated = client.update_secret(SecretId=name, Description="after")

    assert "VersionId" not in set(updated)
    assert client.describe_secret(SecretId=name)["Description"] == "after"
    assert [version] == list(stages(client, name))


def test_an_update_keeps_what_it_does_not_name(client: "SecretsManagerClient", name: str) -> None:
    """A new value does not cost the description or the tags."""
    tags: list[Any] = [{"Key": "team", "Value": "ledger"}]
    client.create_secret(Name=name, SecretString="one", Description="kept", Tags=tags)
    client.update_secret(SecretId=name, SecretString="two")
    described = client.describe_secret(SecretId=name)

    assert ("kept", tags) == (described["Description"], described["Tags"])


def test_an_update_with_a_used_token_and_another_value_is_refused(
    client: "SecretsManagerClient", name: str, refusal_of: Refused
) -> None:
    """UpdateSecret cannot modify a version."""
    used = client.create_secret(Name=name, SecretString="one")["VersionId"]
    refused = refusal_of(client.update_secret, SecretId=name, SecretString="two", ClientRequestToken=used)

    assert refused.code == "ResourceExistsException"
