"""Does an administrator's login go only to servers that are its own?"""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.rotation.failures import SecretsManagerDenied, explained
from ledger_db.rotation.postgres_admin import admin_of, past_proxy
from ledger_db.rotation.protocol import Tools

WRITER = "ledger.abc.eu-central-1.rds.amazonaws.com"
REPLICA = "copy.abc.eu-central-1.rds.amazonaws.com"
OTHER = "other.abc.eu-central-1.rds.amazonaws.com"
CLUSTER = "big.cluster-abc.eu-central-1.rds.amazonaws.com"
READER = "big.cluster-ro-abc.eu-central-1.rds.amazonaws.com"
CUSTOM = "app.cluster-custom-abc.eu-central-1.rds.amazonaws.com"
MEMBER = "big-1.abc.eu-central-1.rds.amazonaws.com"
SECOND = "copy-of-copy.abc.eu-central-1.rds.amazonaws.com"
PROXY = "pool.proxy-abc.eu-central-1.rds.amazonaws.com"
PROXY_READER = "read.endpoint.proxy-abc.eu-central-1.rds.amazonaws.com"
OTHER_PROXY = "else.proxy-abc.eu-central-1.rds.amazonaws.com"


class Pages:
    """What boto3 calls a paginator: everything, an element a page."""

    def __init__(self, name: str, elements: dict[str, list[dict[str, Any]]]) -> None:
        self._name = name
        self._elements = elements

    def paginate(self, DBProxyName: str = "") -> Iterator[dict[str, Any]]:  # noqa: N803 - AWS's name
        """Yield the pages."""
        for element in self._elements[DBProxyName]:
            yield {self._name: [element]}


class Rds:
    """
    Stands in for the API of RDS, which cannot be reached from here.

    It has an instance with a chain of replicas, another instance, a cluster, and proxies of both, and answers
    as the API's reference says.
    """

    def __init__(self) -> None:
        self._instances = [
            instance("ledger", WRITER),
            instance("copy", REPLICA, ReadReplicaSourceDBInstanceIdentifier="ledger"),
            instance("copy-of-copy", SECOND, ReadReplicaSourceDBInstanceIdentifier="copy"),
            instance("big-1", MEMBER, DBClusterIdentifier="big"),
            instance("other", OTHER),
            {"DBInstanceIdentifier": "being-made"},
        ]
        self._clusters = [
            {
                "DBClusterIdentifier": "big",
                "Endpoint": CLUSTER,
                "ReaderEndpoint": READER,
                "CustomEndpoints": [CUSTOM],
                "DBClusterMembers": [{"DBInstanceIdentifier": "big-1", "IsClusterWriter": True}],
                "Port": 6000,
            }
        ]
        self._proxies = [
            {"DBProxyName": "pool", "Endpoint": PROXY},
            {"DBProxyName": "else", "Endpoint": OTHER_PROXY},
        ]
        self._targets = {
            "pool": [
                {"Type": "TRACKED_CLUSTER", "RdsResourceId": "big"},
                {"Type": "RDS_INSTANCE", "RdsResourceId": "big-1", "TrackedClusterId": "big"},
            ],
            "else": [{"Type": "RDS_INSTANCE", "RdsResourceId": "other"}],
        }

    def describe_db_instances(self, **which: str) -> dict[str, Any]:
        """Find an instance by the name at the end of its ARN."""
        return {"DBInstances": [self._find(self._instances, "DBInstanceIdentifier", which)]}

    def describe_db_clusters(self, **which: str) -> dict[str, Any]:
        """Find a cluster by the name at the end of its ARN."""
        return {"DBClusters": [self._find(self._clusters, "DBClusterIdentifier", which)]}

    def get_paginator(self, operation: str) -> Pages:
        """Return all of a kind."""
        if operation == "describe_db_proxy_targets":
            return Pages("Targets", self._targets)
        name, elements = {
            "describe_db_instances": ("DBInstances", self._instances),
            "describe_db_clusters": ("DBClusters", self._clusters),
            "describe_db_proxies": ("DBProxies", self._proxies),
            "describe_db_proxy_endpoints": (
                "DBProxyEndpoints",
                [{"DBProxyName": "pool", "Endpoint": PROXY_READER}],
            ),
        }[operation]
        return Pages(name, {"": elements})

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


def tools(admin: dict[str, Any], **tags: str) -> Tools:
    """Return what a rotator works with where the administrator's secret holds *admin*."""
    clients: dict[str, Any] = {"rds": Rds(), "secretsmanager": Secrets(**tags)}
    full = {"username": "postgres", "password": "p", **admin}
    return Tools(read_secret=lambda name: Secret(name, "v9", full), client=clients.__getitem__)


def found(secret: Secret, admin: dict[str, Any], **tags: str) -> Secret:
    """Look for the administrator of *secret*, whose own secret holds *admin*."""
    return admin_of(secret, tools(admin, **tags))


def _nobody(name: str) -> Any:
    raise AssertionError(f"{name} was asked for")


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
        (MEMBER, OTHER),
        (CUSTOM, WRITER),
        (PROXY, WRITER),
        (OTHER_PROXY, CLUSTER),
        ("nobody.proxy-abc.eu-central-1.rds.amazonaws.com", CLUSTER),
        ("gone.abc.eu-central-1.rds.amazonaws.com", "gone.abc.us-east-1.rds.amazonaws.com"),
        ("/var/run/A", "/var/run/a"),
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


@pytest.mark.parametrize(
    ("host", "admin_host"),
    [
        (REPLICA, WRITER),
        (SECOND, WRITER),
        (READER, CLUSTER),
        (CUSTOM, CLUSTER),
        (MEMBER, CLUSTER),
        (CLUSTER, MEMBER),
        (f"{MEMBER.upper()}.", CLUSTER.upper()),
        (PROXY, CLUSTER),
        (PROXY_READER, MEMBER),
        (OTHER_PROXY, OTHER),
    ],
)
def test_a_secret_of_a_replica_is_changed_at_the_writer(host: str, admin_host: str) -> None:
    """RDS says that they belong together; the change goes to where changes are taken."""
    assert found(application(host), {"host": admin_host, "port": 5432}).host == admin_host


@pytest.mark.parametrize(
    ("host", "admin_host"),
    [
        ("DB.Example.", "db.example"),
        ("db.example", "DB.EXAMPLE"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::1", "0:0:0:0:0:0:0:1"),
    ],
)
def test_a_server_may_be_spelt_in_two_ways(host: str, admin_host: str) -> None:
    """Nobody is asked: DNS knows no case, and an address has several forms."""
    assert found(application(host), {"host": admin_host}).host == admin_host


@pytest.mark.parametrize(
    ("host", "port", "listed"),
    [
        ("db.internal", 5432, ["db.internal"]),
        ("DB.internal.", 5432, ["other.internal", "db.Internal"]),
        ("pooler.internal", 6432, ["pooler.internal:6432"]),
        ("2001:db8::7", 5432, ["2001:DB8:0::7"]),
    ],
)
def test_an_administrators_secret_lists_other_names_of_its_server(
    host: str, port: int, listed: list[str]
) -> None:
    """A name that RDS cannot know, in the words of who owns the administrator; the login stays."""
    admin = found(application(host, port=port), {"host": "db.example", "hosts": listed})

    assert (admin.host, admin.port("PostgreSQL")) == ("db.example", 5432)


@pytest.mark.parametrize(
    ("host", "port"), [("db.internal", 5433), ("evil.db.internal", 5432), ("db.internal.evil.example", 5432)]
)
def test_a_name_that_is_not_listed_is_refused(host: str, port: int) -> None:
    """A port of its own is a server of its own, and no part of a name is one."""
    with pytest.raises(SecretProblem, match="add it to the list 'hosts' in the administrator's secret"):
        found(application(host, port=port), {"host": "db.example", "hosts": ["db.internal"]})


def test_what_rds_manages_cannot_list_a_name() -> None:
    """Nobody but RDS writes that secret, so it is not what is advised."""
    arn = "arn:aws:rds:eu-central-1:123456789012:cluster:big"

    with pytest.raises(SecretProblem, match="in a secret of another administrator"):
        found(application("db.internal"), {}, cluster=arn)


def test_an_application_lists_no_names_itself() -> None:
    """Who may write its secret must not say where an administrator belongs."""
    with pytest.raises(SecretProblem, match="belongs to another server"):
        found(application("evil.example", hosts=["evil.example", "db.example"]), {"host": "db.example"})


@pytest.mark.parametrize("hosts", ["db.internal", [1], {"a": 1}, ["db.internal:x"], ["[::1]:5432"], [""]])
def test_a_list_of_names_that_is_none_is_refused(hosts: Any) -> None:
    """By field, and whose secret it is in."""
    with pytest.raises(
        SecretProblem, match=r"administrator's secret 'admin' in 'masterarn': .*field 'hosts'"
    ):
        found(application("db.example"), {"host": "db.example", "hosts": hosts})


def test_a_login_goes_past_a_proxy() -> None:
    """The proxy lets nobody in with the next password: the server behind it is asked."""
    secret = past_proxy(application(PROXY, port=5432), tools({"host": CLUSTER, "port": 6000}))

    assert (secret.host, secret.port("PostgreSQL"), secret.username) == (CLUSTER, 6000, "app_a")


def test_a_proxy_without_an_administrator_is_refused() -> None:
    """Nobody says which server is behind it."""
    secret = Secret("app/db", "v1", {"host": PROXY, "username": "app_a"})

    with pytest.raises(SecretProblem, match="'host' is a proxy of RDS"):
        past_proxy(secret, tools({"host": CLUSTER}))


def test_where_there_is_no_proxy_nobody_is_asked() -> None:
    """Not even for the administrator's secret, which may be none of this rotation's business."""
    secret = application(REPLICA)

    assert past_proxy(secret, Tools(read_secret=_nobody, client=_nobody)) is secret


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
