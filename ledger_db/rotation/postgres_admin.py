"""
Who is the administrator that a secret names, and may it act on this server?

The attack: who may write a secret of an application names another administrator's secret, or points the host
at a server of their own, and has this function hand the administrator's login over.  So the administrator
logs in only where its own secret, or RDS itself, says that it belongs.
"""

from typing import Any, Final

from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.rotation.failures import asking
from ledger_db.rotation.protocol import Tools

_INSTANCE_TAG: Final = "aws:rds:primarydbinstancearn"
_CLUSTER_TAG: Final = "aws:rds:primarydbclusterarn"
_ASKED: Final = "RDS, asked where the administrator belongs,"


def admin_of(secret: Secret, tools: Tools) -> Secret:
    """
    Return the administrator's login for the server of *secret*.

    Raises:
        SecretProblem: There is none, it belongs to another server, or it is the application itself.
    """
    field = secret.administrator_field
    if field is None:
        raise secret.problem("masterarn", "the name or ARN of an administrator's secret")
    secret_id = secret.text(field)
    admin = tools.read_secret(secret_id)
    admin.check_engine("PostgreSQL")
    if admin.username in {secret.username, *(secret.fields.get("users") or ())}:
        raise SecretProblem(f"the administrator in {field!r} is a user of the application itself")
    host, port = _address(admin, secret_id, tools)
    if (host, port) != (secret.host, secret.port("PostgreSQL")) and not _belongs(secret.host, host, tools):
        raise SecretProblem(f"the administrator in {field!r} belongs to another server than 'host'")
    # To the address of its own secret, which for a reader endpoint is the writer: only that takes changes.
    changes = {"host": host, "port": port, "dbname": secret.database("PostgreSQL")}
    return Secret(admin.name, admin.version, {**admin.fields, **changes})


def _address(admin: Secret, secret_id: str, tools: Tools) -> tuple[str, int]:
    """Return where *admin* belongs; RDS-managed secrets have no address, but tags that lead to it."""
    if "host" in admin.fields:
        return admin.host, admin.port("PostgreSQL")
    secrets_manager, rds = tools.client("secretsmanager"), tools.client("rds")
    with asking("secretsmanager", "DescribeSecret of Secrets Manager"):
        tags = {
            tag["Key"].lower(): tag["Value"]
            for tag in secrets_manager.describe_secret(SecretId=secret_id).get("Tags", ())
        }
    with asking("rds", _ASKED):
        if _INSTANCE_TAG in tags:
            answer = rds.describe_db_instances(DBInstanceIdentifier=tags[_INSTANCE_TAG])["DBInstances"][0]
            return answer["Endpoint"]["Address"], answer["Endpoint"]["Port"]
        if _CLUSTER_TAG in tags:
            answer = rds.describe_db_clusters(DBClusterIdentifier=tags[_CLUSTER_TAG])["DBClusters"][0]
            return answer["Endpoint"], answer["Port"]
    raise SecretProblem(f"the administrator's secret {admin.name!r} has no 'host' and no tag of RDS")


def _belongs(host: str, admin_host: str, tools: Tools) -> bool:
    """Whether *host* is a replica or a reader of the server at *admin_host*, says RDS."""
    # Two addresses that are no names of RDS: there is nobody to ask.
    if not all(".rds." in name for name in (host, admin_host)):
        return False
    rds = tools.client("rds")
    with asking("rds", _ASKED):
        return _is_replica(rds, host, admin_host) or _is_in_cluster(rds, host, admin_host)


def _is_replica(rds: Any, host: str, admin_host: str) -> bool:
    instances = {
        instance["Endpoint"]["Address"]: instance
        for page in rds.get_paginator("describe_db_instances").paginate()
        for instance in page["DBInstances"]
        if "Endpoint" in instance
    }
    source = instances.get(host, {}).get("ReadReplicaSourceDBInstanceIdentifier")
    # A replica in another region names its source by ARN; the administrator is of this region, so no match.
    return source is not None and source == instances.get(admin_host, {}).get("DBInstanceIdentifier")


def _is_in_cluster(rds: Any, host: str, admin_host: str) -> bool:
    for page in rds.get_paginator("describe_db_clusters").paginate():
        for cluster in page["DBClusters"]:
            if admin_host in {cluster.get("Endpoint"), cluster.get("ReaderEndpoint")}:
                return host in {cluster.get("Endpoint"), cluster.get("ReaderEndpoint")}
    return False
