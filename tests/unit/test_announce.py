"""Who hears that a rotation is finished, and what if nobody does?"""

import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from ledger_db.answers.announcement import DEFAULT_CHANNEL, Announcement, parse
from ledger_db.answers.secret import Secret
from ledger_db.rotation import journal
from ledger_db.rotation.announce import Announcer
from ledger_db.rotation.events import STRATEGY, event_handler, moved_in
from ledger_db.rotation.failures import SecretsManagerDenied, Stopped
from ledger_db.rotation.protocol import Deadline, Tools
from ledger_db.settings import Settings
from tests.support.events import event_of
from tests.support.lambda_calls import Context

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:trust-ledger/postgres-AbC123"
PASSWORD = "canary-of-the-announcer"


class Topic:
    """Stands in for SNS: keeps what was published."""

    def __init__(self) -> None:
        self.published: list[dict[str, Any]] = []

    def publish(self, **message: Any) -> None:
        """Take a message."""
        self.published.append(message)


class BrokenTopic:
    """Stands in for SNS on a bad day."""

    def publish(self, **message: Any) -> None:
        """Refuse it, with a text that nobody should see."""
        raise RuntimeError(f"no permission for {message}")


def tools(topic: object = None, *, port: int = 1) -> Tools:
    """Return what the announcer works with: one secret, whose server listens on *port*, and one topic."""
    fields = {"engine": "redis", "host": "127.0.0.1", "port": port, "username": "app", "password": PASSWORD}
    return Tools(read_secret=lambda name: Secret(name, "v", fields), client=lambda service: topic)


def test_a_topic_gets_what_services_understand() -> None:
    """The message names secret, version and strategy; a service reads it as it is."""
    topic = Topic()
    announcer = Announcer(tools(topic), {"LEDGER_DB_ANNOUNCEMENTS_TOPIC_ARN": "arn:aws:sns:::topic"})
    announcer.announce(Announcement(ARN, "v2", "redis-acl"), Deadline.after(5))

    (published,) = topic.published
    assert published["TopicArn"] == "arn:aws:sns:::topic"
    assert parse(published["Message"].encode()) == Announcement(ARN, "v2", "redis-acl")
    assert set(json.loads(published["Message"])) == {"secret_id", "version_id", "strategy"}


def test_services_listen_where_rotations_announce() -> None:
    """Both sides have the same channel if nobody says otherwise."""
    assert Settings.model_fields["announcements_channel"].default == DEFAULT_CHANNEL


def test_nothing_configured_is_nothing_done(caplog: pytest.LogCaptureFixture) -> None:
    """A function without Redis and without a topic rotates all the same, and complains of nothing."""
    with caplog.at_level(logging.WARNING):
        Announcer(tools(), {}).announce(Announcement(ARN, "v2", "redis-acl"), Deadline.after(5))

    assert caplog.records == []


@pytest.mark.parametrize(
    ("environment", "topic"),
    [
        ({"LEDGER_DB_REDIS_SECRET_ID": "some/redis"}, None),
        ({"LEDGER_DB_ANNOUNCEMENTS_TOPIC_ARN": "arn"}, BrokenTopic()),
        ({"LEDGER_DB_ANNOUNCEMENTS_TOPIC_ARN": "arn"}, None),
    ],
)
def test_a_failure_is_a_line_and_no_error(
    environment: dict[str, str], topic: object, caplog: pytest.LogCaptureFixture
) -> None:
    """The rotation is finished; services find the new version by polling."""
    with caplog.at_level(logging.INFO):
        Announcer(tools(topic), environment).announce(Announcement(ARN, "v2", "redis-acl"), Deadline.after(5))

    (record,) = caplog.records
    assert event_of(record) == "rotation.not_announced"
    assert PASSWORD not in str(record.__dict__)
    assert "no permission" not in str(record.__dict__)


def test_the_line_says_whose_secret_it_was(caplog: pytest.LogCaptureFixture) -> None:
    """Neither that which was rotated nor an administrator's: there is a third one."""

    def read_secret(name: str) -> Secret:
        raise Stopped(SecretsManagerDenied, "GetSecretValue was denied")

    given = Tools(read_secret=read_secret, client=lambda _: None)
    environment = {"LEDGER_DB_ANNOUNCEMENTS_SECRET_ID": "some/publisher"}
    Announcer(given, environment).announce(Announcement(ARN, "v2", "redis-acl"), Deadline.after(5))

    (record,) = caplog.records
    line = json.loads(journal.JSONLines().format(record))
    assert line["problem"] == "the publisher's secret 'some/publisher': GetSecretValue was denied"


def test_one_way_that_fails_does_not_stop_the_other() -> None:
    """Redis is down: the topic still gets the message."""
    topic = Topic()
    both = {"LEDGER_DB_REDIS_SECRET_ID": "some/redis", "LEDGER_DB_ANNOUNCEMENTS_TOPIC_ARN": "arn"}
    Announcer(tools(topic), both).announce(Announcement(ARN, "v2", "redis-acl"), Deadline.after(5))

    assert len(topic.published) == 1


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_silent_redis_costs_a_bounded_time(silent_port: int) -> None:
    """Whoever waits for the rotation does not wait for an announcement."""
    announcer = Announcer(tools(port=silent_port), {"LEDGER_DB_REDIS_SECRET_ID": "some/redis"})
    began = time.monotonic()
    announcer.announce(Announcement(ARN, "v2", "redis-acl"), Deadline.after(0.5))

    assert time.monotonic() - began < 20


def test_no_time_left_is_no_error() -> None:
    """The last step may have used it all up."""
    topic = Topic()
    announcer = Announcer(tools(topic), {"LEDGER_DB_ANNOUNCEMENTS_TOPIC_ARN": "arn"})
    announcer.announce(Announcement(ARN, "v2", "redis-acl"), Deadline.after(0))

    assert topic.published == []


@pytest.mark.parametrize("said", ["true", "1", "yes", "on", "flase"])
def test_a_login_is_never_in_clear_by_a_typing_error(said: str, silent_port: int) -> None:
    """Only a clear no means no TLS."""
    given = {"LEDGER_DB_REDIS_SECRET_ID": "some/redis", "LEDGER_DB_REDIS_TLS": said}
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        announcer = Announcer(tools(port=server.getsockname()[1]), given)
        announcer.announce(Announcement(ARN, "v2", "redis-acl"), Deadline.after(0.5))
        server.settimeout(5)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(5)
            received = connection.recv(4096)

    # The first byte of a TLS handshake.
    assert received[:1] == b"\x16"
    assert PASSWORD.encode() not in received


EVENT = {
    "version": "0",
    "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
    "detail-type": "Secret Label Updated",
    "source": "aws.secretsmanager",
    "account": "123456789012",
    "region": "eu-west-1",
    "resources": [ARN],
    "detail": {"name": "trust-ledger/postgres", "labelUpdated": "AWSCURRENT", "versionId": "v2"},
}


def test_an_event_says_which_secret_has_which_version() -> None:
    """Managed rotations and changes by hand are announced like our own."""
    assert moved_in(EVENT) == Announcement(ARN, "v2", STRATEGY)


def test_an_event_without_an_arn_is_good_enough() -> None:
    """Services know secrets by name too."""
    assert moved_in({**EVENT, "resources": []}) == Announcement("trust-ledger/postgres", "v2", STRATEGY)


@pytest.mark.parametrize(
    "change",
    [
        {"source": "aws.ec2"},
        {"detail-type": "AWS API Call via CloudTrail"},
        {"detail": None},
        {"detail": {**EVENT["detail"], "labelUpdated": "AWSPREVIOUS"}},  # type: ignore[dict-item]
        {"detail": {**EVENT["detail"], "versionId": None}},  # type: ignore[dict-item]
        {"detail": {**EVENT["detail"], "versionId": "a\nforged line"}},  # type: ignore[dict-item]
        {"resources": ["arn\nforged"]},
        {"resources": [7]},
    ],
)
def test_other_events_are_ignored(change: dict[str, Any]) -> None:
    """A rule that lets too much through does no harm, and neither does a malformed event."""
    assert moved_in({**EVENT, **change}) is None


def test_an_event_that_is_none_ends_well(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """EventBridge would only send it again."""
    # It is for whole programs, and this one has other tests.
    monkeypatch.setattr(journal, "write_to_standard_output", lambda: None)
    event_handler({"detail-type": "nonsense"}, Context())

    assert caplog.messages == ["event.ignored"]


IMPORTS = """
import sys
import ledger_db.rotation.announce, ledger_db.rotation.elasticache, ledger_db.rotation.events
import ledger_db.rotation.redis
print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""


def test_the_function_imports_nothing_that_it_does_not_need() -> None:
    """A cold start waits for neither SQLAlchemy, FastAPI and pydantic, nor for boto3 and redis-py yet."""
    heavy = ["sqlalchemy", "fastapi", "pydantic", "boto3", "botocore", "redis", "psycopg2", "tenacity"]
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTS, *heavy], capture_output=True, text=True, check=True, timeout=60
    )

    assert ended.stdout.strip() == "[]"
