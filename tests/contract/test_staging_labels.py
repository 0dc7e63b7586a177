"""Does a Secrets Manager move staging labels as AWS's does?"""

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

Refused = Callable[..., Any]


@pytest.fixture
def versions(client: "SecretsManagerClient", name: str) -> tuple[str, str]:
    """The ids of two versions: AWSCURRENT (value "one") and AWSPENDING (value "two")."""
    first = client.create_secret(Name=name, SecretString="one")["VersionId"]
    second = client.put_secret_value(SecretId=name, SecretString="two", VersionStages=["AWSPENDING"])[
        "VersionId"
    ]
    return first, second


def stages(client: "SecretsManagerClient", name: str) -> dict[str, list[str]]:
    """The labels of every version that has any, sorted."""
    described = client.describe_secret(SecretId=name)
    return {version: sorted(labels) for version, labels in described["VersionIdsToStages"].items() if labels}


def finish(client: "SecretsManagerClient", name: str, *, gains: str, loses: str) -> None:
    """What finishSecret does."""
    client.update_secret_version_stage(
        SecretId=name, VersionStage="AWSCURRENT", MoveToVersionId=gains, RemoveFromVersionId=loses
    )


def rotate(client: "SecretsManagerClient", name: str, value: str) -> str:
    """What the four steps of a rotation do to a secret."""
    version = client.put_secret_value(SecretId=name, SecretString=value, VersionStages=["AWSPENDING"])[
        "VersionId"
    ]
    loses = next(key for key, labels in stages(client, name).items() if "AWSCURRENT" in labels)
    finish(client, name, gains=version, loses=loses)
    return version


def test_finishing_a_rotation_moves_current_and_previous(
    client: "SecretsManagerClient", name: str, versions: tuple[str, str]
) -> None:
    """AWSPREVIOUS follows AWSCURRENT; AWSPENDING stays beside it."""
    first, second = versions
    finish(client, name, gains=second, loses=first)

    assert {first: ["AWSPREVIOUS"], second: ["AWSCURRENT", "AWSPENDING"]} == stages(client, name)


@pytest.mark.differs("moto", reason="a read without a label ignores that AWSCURRENT has moved")
def test_after_a_rotation_the_default_is_the_new_value(
    client: "SecretsManagerClient", name: str, versions: tuple[str, str]
) -> None:
    """Whoever asks for no label gets AWSCURRENT."""
    first, second = versions
    finish(client, name, gains=second, loses=first)

    assert client.get_secret_value(SecretId=name)["SecretString"] == "two"


def test_after_a_rotation_the_label_reads_the_new_value(
    client: "SecretsManagerClient", name: str, versions: tuple[str, str]
) -> None:
    """Whoever asks for AWSCURRENT gets it."""
    first, second = versions
    finish(client, name, gains=second, loses=first)

    assert client.get_secret_value(SecretId=name, VersionStage="AWSCURRENT")["SecretString"] == "two"


@pytest.mark.differs("moto", reason="a put after a rotation leaves AWSCURRENT on two versions")
def test_two_rotations_and_a_put_leave_one_current_version(client: "SecretsManagerClient", name: str) -> None:
    """However a secret changes, one version is current and one was."""
    client.create_secret(Name=name, SecretString="one")
    rotate(client, name, "two")
    second = rotate(client, name, "three")
    third = client.put_secret_value(SecretId=name, SecretString="four")["VersionId"]
    labels = [label for found in stages(client, name).values() for label in found]

    assert (labels.count("AWSCURRENT"), labels.count("AWSPREVIOUS")) == (1, 1)
    assert stages(client, name)[third] == ["AWSCURRENT"]
    assert "AWSPREVIOUS" in stages(client, name)[second]


def test_a_rotation_can_be_rolled_back(
    client: "SecretsManagerClient", name: str, versions: tuple[str, str]
) -> None:
    """Moving AWSCURRENT back to the previous version swaps the two labels."""
    first, second = versions
    finish(client, name, gains=second, loses=first)
    finish(client, name, gains=first, loses=second)

    assert {first: ["AWSCURRENT"], second: ["AWSPENDING", "AWSPREVIOUS"]} == stages(client, name)


def test_moving_current_must_name_where_it_is(
    client: "SecretsManagerClient", name: str, versions: tuple[str, str], refusal_of: Refused
) -> None:
    """Nobody moves AWSCURRENT without saying from where."""
    first, second = versions
    refused = refusal_of(
        client.update_secret_version_stage, SecretId=name, VersionStage="AWSCURRENT", MoveToVersionId=second
    )

    assert refused.code == "InvalidParameterException"
    assert refused.message == (
        "The parameter RemoveFromVersionId can't be empty. Staging label AWSCURRENT is currently attached to "
        f"version {first}, so you must explicitly reference that version in RemoveFromVersionId."
    )


@pytest.mark.differs("moto", reason="asks for RemoveFromVersionId with AWSCURRENT only")
def test_moving_any_label_must_name_where_it_is(
    client: "SecretsManagerClient", name: str, versions: tuple[str, str], refusal_of: Refused
) -> None:
    """The same holds for every label."""
    first, _ = versions
    refused = refusal_of(
        client.update_secret_version_stage, SecretId=name, VersionStage="AWSPENDING", MoveToVersionId=first
    )

    assert refused.code == "InvalidParameterException"


def test_who_names_the_wrong_holder_loses_the_race(
    client: "SecretsManagerClient", name: str, versions: tuple[str, str], refusal_of: Refused
) -> None:
    """Of two that move a label, the second is refused, and the label stays with the first."""
    first, second = versions
    finish(client, name, gains=second, loses=first)
    refused = refusal_of(
        client.update_secret_version_stage,
        SecretId=name,
        VersionStage="AWSCURRENT",
        MoveToVersionId=second,
        RemoveFromVersionId=first,
    )

    assert refused.code == "InvalidParameterException"
    assert stages(client, name)[second] == ["AWSCURRENT", "AWSPENDING"]


def test_a_free_label_needs_no_holder(
    client: "SecretsManagerClient", name: str, versions: tuple[str, str]
) -> None:
    """A new label is simply attached."""
    first, _ = versions
    client.update_secret_version_stage(SecretId=name, VersionStage="blue", MoveToVersionId=first)

    assert stages(client, name)[first] == ["AWSCURRENT", "blue"]


def test_a_label_can_be_removed(client: "SecretsManagerClient", name: str, versions: tuple[str, str]) -> None:
    """A cancelled rotation is cleaned up by taking AWSPENDING away."""
    _, second = versions
    client.update_secret_version_stage(SecretId=name, VersionStage="AWSPENDING", RemoveFromVersionId=second)

    assert second not in stages(client, name)


@pytest.mark.differs("moto", reason="leaves the secret without a current version")
def test_current_cannot_be_removed(
    client: "SecretsManagerClient", name: str, versions: tuple[str, str], refusal_of: Refused
) -> None:
    """A secret with a value always has a current one."""
    first, _ = versions
    refused = refusal_of(
        client.update_secret_version_stage,
        SecretId=name,
        VersionStage="AWSCURRENT",
        RemoveFromVersionId=first,
    )

    assert refused.code == "InvalidParameterException"
    assert stages(client, name)[first] == ["AWSCURRENT"]


@pytest.mark.parametrize("field", ["MoveToVersionId", "RemoveFromVersionId"])
def test_a_label_cannot_go_to_or_from_a_missing_version(
    client: "SecretsManagerClient",
    name: str,
    versions: tuple[str, str],
    field: str,
    refusal_of: Refused,
) -> None:
    """The version must exist."""
    refused = refusal_of(
        client.update_secret_version_stage, SecretId=name, VersionStage="blue", **{field: str(uuid.uuid4())}
    )

    assert refused.code == "InvalidParameterException"
    assert len(stages(client, name)) == 2


@pytest.mark.differs("moto", reason="wants RemoveFromVersionId even where nothing moves")
def test_moving_a_label_to_where_it_is_changes_nothing(
    client: "SecretsManagerClient", name: str, versions: tuple[str, str]
) -> None:
    """A finishSecret step that is repeated succeeds."""
    first, second = versions
    before = stages(client, name)
    client.update_secret_version_stage(SecretId=name, VersionStage="AWSCURRENT", MoveToVersionId=first)

    assert before == stages(client, name)
    assert second in before


@pytest.mark.differs("moto", reason="lists deprecated versions always")
def test_only_labelled_versions_are_listed(
    client: "SecretsManagerClient", name: str, versions: tuple[str, str]
) -> None:
    """ListSecretVersionIds leaves deprecated versions out unless asked."""
    first, second = versions
    client.update_secret_version_stage(SecretId=name, VersionStage="AWSPENDING", RemoveFromVersionId=second)
    listed = client.list_secret_version_ids(SecretId=name)["Versions"]
    everything = client.list_secret_version_ids(SecretId=name, IncludeDeprecated=True)["Versions"]

    assert [first] == [version["VersionId"] for version in listed]
    assert {first, second} == {version["VersionId"] for version in everything}


@pytest.mark.differs("moto", reason="answers the name where the ARN belongs, and no pages")
def test_versions_come_in_pages(client: "SecretsManagerClient", name: str, versions: tuple[str, str]) -> None:
    """A long history is read piece by piece."""
    one = client.list_secret_version_ids(SecretId=name, MaxResults=1)
    two = client.list_secret_version_ids(SecretId=name, MaxResults=1, NextToken=one["NextToken"])

    assert set(versions) == {page["Versions"][0]["VersionId"] for page in (one, two)}
    assert one["ARN"].startswith("arn:")
    assert not two.get("NextToken")
