"""Does an administrator's login go only to servers that are its own?"""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.rotation.failures import SecretsManagerDenied, explained
from ledger_db.rotation.postgres_admin import admin_of
from ledger_db.rotation.protocol import Tools

WRITER = "ledger.abc.eu-central-1.rds.amazonaws.com"
REPLICA = "copy.abc.eu-central-1.rds.amazonaws.com"
OTHER = "other.abc.eu-central-1.rds.amazonaws.com"
CLUSTER = "big.cluster-abc.eu-central-1.rds.amazonaws.com"
READER = "big.cluster-ro-abc.eu-central-1.rds.amazonaws.com"


class Pages:
    """What boto3 calls a paginator: everything, an element a page."""

    def __init__(self, name: str, elements: list[dict[str, Any]]) -> None:
        self._name = name
        self._elements = elements

    def paginate(self) -> Iterator[dict[str, Any]]:
        """Yield the pages."""
        for element in self._elements:
            yield {self._name: [element]}


class Rds:
    """
    Stands in for the API of RDS, which cannot be reached from here.

    It has an instance, its replica, another instance, and a cluster, and answers as the API's reference says.
    """

    def __init__(self) -> None:
        self._instances = [
            instance("ledger", WRITER),
            instance("copy", REPLICA, ReadReplicaSourceDBInstanceIdentifier="ledger"),
            instance("other", OTHER),
            {"DBInstanceIdentifier": "being-made"},
        ]
        self._clusters = [
            {"DBClusterIdentifier": "big", "Endpoint": CLUSTER, "ReaderEndpoint": READER, "Port": 6000}
        ]

    def describe_db_instances(self, **which: str) -> dict[str, Any]:
        """Find an instance by the name at the end of its ARN."""
        return {"DBInstances": [self._find(self._instances, "DBInstanceIdentifier", which)]}

    def describe_db_clusters(self, **which: str) -> dict[str, Any]:
        """Find a cluster by the name at the end of its ARN."""
        return {"DBClusters": [self._find(self._clusters, "DBClusterIdentifier", which)]}

    def get_paginator(self, operation: str) -> Pages:
        """Return all of either."""
        if operation == "describe_db_instances":
            return Pages("DBInstances", self._instances)
        return Pages("DBClusters", self._clusters)

    def _find(self, elements: list[dict[str, Any]], key: str, which: dict[str, str]) -> dict[str, Any]:
        wanted = which[key].rpartition(":")[2]
        for element in elements:
            if element[key] == wanted:
                return element
        raise ClientError({"Error": {"Code": "DBInstanceNotFound"}}, "DescribeDBInstances")


class Secrets:
    """Stands in for Secrets Manager where it tells the tags that RDS puts on its secrets."""

    def __init__(self, **tags: str) -> None:
        self._tags = tags

    def describe_secret(self, **which: str) -> dict[str, Any]:
        """Return the tags."""
        names = {"instance": "aws:rds:primaryDBInstanceArn", "cluster": "aws:rds:primaryDBClusterArn"}
        return {"Tags": [{"Key": names[key], "Value": value} for key, value in self._tags.items()]}


def instance(name: str, host: str, **more: str) -> dict[str, Any]:
    """Make an instance of RDS."""
    return {"DBInstanceIdentifier": name, "Endpoint": {"Address": host, "Port": 5432}, **more}


def application(host: str, **more: Any) -> Secret:
    """Make the secret of an application."""
    return Secret(
        "app/db",
        "v1",
        {"host": host, "username": "app_a", "dbname": "ledger", "masterarn": "admin", **more},
    )


def found(secret: Secret, admin: dict[str, Any], **tags: str) -> Secret:
    """Look for the administrator of *secret*, whose own secret holds *admin*."""
    clients: dict[str, Any] = {"rds": Rds(), "secretsmanager": Secrets(**tags)}
    full = {"username": "postgres", "password": "p", **admin}
    return admin_of(
        secret, Tools(read_secret=lambda name: Secret(name, "v9", full), client=clients.__getitem__)
    )


def test_an_administrator_of_the_same_server_is_good() -> None:
    """It connects to the application's database."""
    admin = found(application("db.example"), {"host": "db.example"})

    assert (admin.username, admin.host, admin.fields["dbname"]) == ("postgres", "db.example", "ledger")


@pytest.mark.parametrize(
    ("field", "expected"), [("masterarn", True), ("admin_secret_arn", True), ("x", False)]
)
def test_an_administrator_is_named_by_either_field(field: str, *, expected: bool) -> None:
    """AWS's word for it, and a plain one."""
    assert (Secret("s", "v", {field: "arn"}).administrator_field is not None) is expected


@pytest.mark.parametrize(
    ("host", "admin_host"),
    [
        ("db.example", "other.example"),
        ("evil.example", WRITER),
        (OTHER, WRITER),
        (WRITER, OTHER),
        (WRITER, REPLICA),
        (OTHER, CLUSTER),
    ],
)
def test_an_administrator_of_another_server_is_refused(host: str, admin_host: str) -> None:
    """Whoever points the application's host elsewhere does not get an administrator's login."""
    with pytest.raises(SecretProblem, match="belongs to another server"):
        found(application(host), {"host": admin_host})


def test_another_port_is_another_server() -> None:
    """On one machine there may be several."""
    with pytest.raises(SecretProblem, match="belongs to another server"):
        found(application("db.example", port=5433), {"host": "db.example", "port": "5432"})


@pytest.mark.parametrize(("host", "admin_host"), [(REPLICA, WRITER), (READER, CLUSTER)])
def test_a_secret_of_a_replica_is_changed_at_the_writer(host: str, admin_host: str) -> None:
    """RDS says that they belong together; the change goes to where changes are taken."""
    assert found(application(host), {"host": admin_host, "port": 5432}).host == admin_host


@pytest.mark.parametrize(("kind", "host", "port"), [("instance", WRITER, 5432), ("cluster", CLUSTER, 6000)])
def test_a_secret_that_rds_manages_leads_to_its_server(kind: str, host: str, port: int) -> None:
    """It holds a user name and a password only; its tags say whose."""
    name = "ledger" if kind == "instance" else "big"
    arn = f"arn:aws:rds:eu-central-1:123456789012:{'db' if kind == 'instance' else 'cluster'}:{name}"

    admin = found(application(host, port=port), {}, **{kind: arn})

    assert (admin.host, admin.port("PostgreSQL")) == (host, port)


def test_a_secret_that_says_nothing_of_a_server_is_refused() -> None:
    """Neither a host nor a tag."""
    with pytest.raises(SecretProblem, match="no 'host' and no tag of RDS"):
        found(application("db.example"), {})


@pytest.mark.parametrize("username", ["app_a", "app_b"])
def test_a_user_of_the_application_is_no_administrator(username: str) -> None:
    """A secret that names its own kind gains nothing."""
    with pytest.raises(SecretProblem, match="user of the application itself"):
        found(
            application("db.example", users=["app_a", "app_b"]), {"host": "db.example", "username": username}
        )


def test_a_refusal_of_rds_is_told_in_a_sentence() -> None:
    """As every other refusal of AWS: what was asked, what came, what to do."""
    tags = {"instance": "arn:aws:rds:eu-central-1:123456789012:db:nobody"}
    with (
        pytest.raises(SecretsManagerDenied, match="look it up in AWS's documentation") as denied,
        explained("setSecret of app/db", lambda: "nothing was changed"),
    ):
        found(application(WRITER), {}, **tags)

    assert "RDS, asked where the administrator belongs, answered DBInstanceNotFound" in str(denied.value)
