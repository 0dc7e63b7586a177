"""What is an announcement, and which secret does it mean?"""

import json

import pytest
from hypothesis import given, strategies as st

from ledger_db.answers.announcement import Announcement, is_same_secret, parse

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:trust-ledger/postgres-AbC123"


def test_an_announcement_is_understood() -> None:
    """Secret, version and strategy are all there is."""
    message = json.dumps({"secret_id": ARN, "version_id": "v2", "strategy": "redis-acl"}).encode()

    assert parse(message) == Announcement(ARN, "v2", "redis-acl")


def test_fields_that_somebody_adds_later_do_no_harm() -> None:
    """An older service understands a newer announcement."""
    message = json.dumps({"secret_id": "s", "version_id": 7, "overlap_until": 5}).encode()

    assert parse(message) == Announcement("s")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (False, False), (1, False), ("true", False), ([True], False), (None, False)],
)
def test_only_true_is_urgent(value: object, expected: bool) -> None:  # noqa: FBT001 - a row of the table
    """Nothing is replaced in a hurry because of a message that is hard to read."""
    message = json.dumps({"secret_id": "s", "urgent": value}).encode()
    found = parse(message)

    assert found is not None
    assert found.urgent is expected


def test_what_is_written_is_what_is_read() -> None:
    """An older service meets no field that it would not expect, unless it is needed."""
    ordinary, urgent = Announcement("s", "v2", "redis-acl"), Announcement("s", "v2", urgent=True)

    assert parse(ordinary.to_json().encode()) == ordinary
    assert parse(urgent.to_json().encode()) == urgent
    assert "urgent" not in ordinary.to_json()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"trust-ledger/postgres"',
        b"{}",
        b'{"secret_id": null}',
        b'{"secret_id": ""}',
        b'{"secret_id": ["a"]}',
        b'{"secret_id": "a\\nforged log line"}',
        json.dumps({"secret_id": "x" * 641}).encode(),
        json.dumps({"secret_id": "x", "padding": "y" * 5000}).encode(),
        b"[" * 4000,
    ],
)
def test_what_is_no_announcement_is_ignored(message: bytes) -> None:
    """Malformed, oversized or hostile messages are nothing."""
    assert parse(message) is None


@given(st.binary(max_size=300))
def test_no_message_makes_it_raise(message: bytes) -> None:
    """Whatever is published, the listener lives."""
    found = parse(message)

    assert found is None or isinstance(found.secret_id, str)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("trust-ledger/postgres", "trust-ledger/postgres"),
        ("trust-ledger/postgres", ARN),
        (ARN, ARN),
        (ARN, ARN.removesuffix("-AbC123")),
        (ARN, ARN.replace("eu-west-1", "us-east-1")),
        ("name-AbC123", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:name-AbC123"),
    ],
)
def test_a_secret_is_known_by_name_or_arn(one: str, other: str) -> None:
    """Services and announcements may each use either, in the primary's region or a replica's."""
    assert is_same_secret(one, other)
    assert is_same_secret(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("trust-ledger/postgres", "trust-ledger/redis"),
        ("postgres", ARN),
        ("trust-ledger", "trust-ledger/postgres"),
        (ARN, ARN.replace("AbC123", "XyZ789")[:-6] + "XyZ789x"),
        ("arn:aws:secretsmanager", "arn:aws:sns"),
    ],
)
def test_another_secret_is_another_secret(one: str, other: str) -> None:
    """Nobody reads Secrets Manager for a rotation that is not theirs."""
    assert not is_same_secret(one, other)
