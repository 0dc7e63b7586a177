"""Does the stand-in's store stay within AWS's limits, and does its state file stay small?"""

import pytest

from ledger_db.stand_in import values as secret_operations
from ledger_db.stand_in.model import Secret, ServiceError
from ledger_db.stand_in.requests import validate
from ledger_db.stand_in.store import SecretStore


def token(number: int) -> str:
    """The id of the version with that number."""
    return f"{number:032}"


def put(store: SecretStore, number: int, *labels: str) -> None:
    """A version with a value."""
    request = {"SecretId": "s", "SecretString": str(number), "ClientRequestToken": token(number)}
    secret_operations.put_secret_value(store, request | ({"VersionStages": list(labels)} if labels else {}))


@pytest.fixture
def store() -> SecretStore:
    """A store with one secret, "s", that has no value."""
    store = SecretStore()
    secret_operations.create_secret(store, {"Name": "s"})
    return store


def test_a_secret_carries_at_most_twenty_labels(store: SecretStore) -> None:
    """The limit counts the labels of all versions, and a refused put leaves no version behind."""
    put(store, 1)
    put(store, 2, *[f"label-{number}" for number in range(19)])
    with pytest.raises(ServiceError, match="LimitExceededException"):
        put(store, 3, "one-too-many")

    assert list(store.find("s").versions) == [token(1), token(2)]


def test_a_label_that_only_moves_is_within_the_limit(store: SecretStore) -> None:
    """At the limit a rotation still works with the labels that there are."""
    put(store, 1)
    put(store, 2)
    put(store, 3, *[f"label-{number}" for number in range(18)])
    put(store, 4)

    assert store.find("s").stages()[token(4)] == ["AWSCURRENT"]


def test_old_versions_are_forgotten(store: SecretStore) -> None:
    """A thousand rotations keep a hundred versions, with the newest and the labelled ones among them."""
    put(store, 0, "keep")
    for number in range(1, 1001):
        put(store, number)
    kept = store.find("s").versions

    assert len(kept) == 100
    assert {token(0), token(999), token(1000)} <= kept.keys()


def test_a_secret_has_at_most_fifty_tags(store: SecretStore) -> None:
    """Tags are bounded; replacing one is always possible."""
    fifty = secret_operations.merged_tags({}, [{"Key": str(number), "Value": ""} for number in range(50)])

    assert secret_operations.merged_tags(fifty, [{"Key": "7", "Value": "new"}])["7"] == "new"
    with pytest.raises(ServiceError, match="50 tags"):
        secret_operations.merged_tags(fifty, [{"Key": "50", "Value": ""}])


def test_all_that_is_wrong_is_said_at_once() -> None:
    """One answer names every violation."""
    with pytest.raises(ServiceError) as caught:
        validate("UpdateSecretVersionStage", {"MoveToVersionId": "short"})

    assert caught.value.message.startswith("3 validation errors detected: ")
    assert all(name in caught.value.message for name in ("secretId", "versionStage", "moveToVersionId"))


def test_a_refusal_of_a_value_does_not_quote_it() -> None:
    """A password that is too long is not in the error."""
    with pytest.raises(ServiceError) as caught:
        validate("CreateSecret", {"Name": "s", "SecretString": "canary" * 20_000})

    assert "canary" not in str(caught.value)


def test_an_unset_deletion_is_not_a_deletion() -> None:
    """A secret that nobody deleted is usable."""
    secret = Secret(name="s", arn="arn", created_at=0.0, changed_at=0.0)

    assert secret_operations.usable(secret) is secret
