"""
Who is the administrator that a secret names, and may it act on this server?

The attack: who may write a secret of an application names another administrator's secret, or points the host
at a server of their own, and has this function hand the administrator's login over.  So the administrator
logs in only where its own secret, or RDS itself, says that it belongs.
"""

from dataclasses import replace
from typing import Final

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.rotation.failures import asking, of_secret
from ledger_db.rotation.protocol import ServerProblem, Tools
from ledger_db.rotation.rds_names import ASKED, RdsNames, is_of_rds, is_proxy, plain

_INSTANCE_TAG: Final = "aws:rds:primarydbinstancearn"
_CLUSTER_TAG: Final = "aws:rds:primarydbclusterarn"
# What a person does where that is something else than for the application's own login.
_NEXT_MOVES: Final = {
    Reason.REFUSED: "set the administrator's password at the server to what AWSCURRENT of its secret holds, "
    "or end that secret's own rotation, then rotate again",
    Reason.NO_LOGIN: "ALTER ROLE ... LOGIN for the administrator, then rotate again",
    Reason.FORBIDDEN: "let the administrator in from here, and give it the right to: CREATEROLE and, from "
    "PostgreSQL 16 on, ADMIN OPTION on the role; rds_password where rds.restrict_password_commands is on",
    Reason.CLOSED_PORT: "start the server, or mend 'port' in the administrator's secret",
    Reason.NO_ADDRESS: "mend 'host' in the administrator's secret, or the DNS of the network this runs in",
}
_LIST_IT: Final = "add it to the list 'hosts' in the administrator's secret"
_LIST_IT_ELSEWHERE: Final = (
    "list it as 'hosts' in a secret of another administrator, with a 'host' of its own: what RDS manages is "
    "written by RDS alone"
)
_EXPECTED_HOSTS: Final = "a list of names, each with ':port' behind it where that is another one"


def admin_of(secret: Secret, tools: Tools) -> Secret:
    """
    Return the administrator's login for the server of *secret*.

    Raises:
        SecretProblem: There is none, it belongs to another server, or it is the application itself.

        Stopped: Its secret could not be read, or RDS not be asked.
    """
    field = secret.administrator_field
    if field is None:
        raise secret.problem("masterarn", "the name or ARN of an administrator's secret")
    secret_id = secret.text(field)
    with of_secret(f"the administrator's secret {secret_id!r} in {field!r}"):
        admin = tools.read_secret(secret_id)
        admin.check_engine("PostgreSQL")
        # Asking for a field is checking it.
        _ = admin.username, admin.password
        host, port = _address(admin, secret_id, tools)
        known = _names(admin, host, port)
    if admin.username in {secret.username, *(secret.fields.get("users") or ())}:
        raise SecretProblem(f"the administrator in {field!r} is a user of the application itself")
    if (plain(secret.host), secret.port("PostgreSQL")) not in known and not _belongs(
        secret.host, host, tools
    ):
        raise SecretProblem(
            f"the administrator in {field!r} belongs to another server than 'host': it is for {host}:{port}, "
            f"and RDS knows that one by no name like {secret.host}:{secret.port('PostgreSQL')}; write a name "
            "of the administrator's server into 'host', or, where that is one (a CNAME, a pooler), "
            + (_LIST_IT if "host" in admin.fields else _LIST_IT_ELSEWHERE)
        )
    # To the address of its own secret, which for a reader endpoint is the writer: only that takes changes.
    changes = {"host": host, "port": port, "dbname": secret.database("PostgreSQL")}
    return Secret(admin.name, admin.version, {**admin.fields, **changes})


def past_proxy(secret: Secret, tools: Tools) -> Secret:
    """
    Return *secret* with the address of the server itself, if its own is a proxy of RDS.

    A proxy lets in who knows AWSCURRENT, and nobody else: the next password could never be tried there.

    Raises:
        SecretProblem: No administrator is named, who would know the server behind it; and as `admin_of`.
    """
    if not is_proxy(secret.host):
        return secret
    if secret.administrator_field is None:
        raise SecretProblem(
            f"secret {secret.name!r}: field 'host' is a proxy of RDS, which lets nobody in with a password "
            "before it is AWSCURRENT; name the instance or the cluster there, or, in 'masterarn', the secret "
            "of an administrator that does"
        )
    admin = admin_of(secret, tools)
    address = {"host": admin.host, "port": admin.port("PostgreSQL")}
    return Secret(secret.name, secret.version, {**secret.fields, **address})


def as_administrator(problem: ServerProblem, admin: Secret) -> ServerProblem:
    """Return *problem* in the words for a login that is not the application's, but that of *admin*."""
    reason, what = problem.reason, problem.probe.what
    probe = replace(problem.probe, what=f"the administrator of secret {admin.name!r}: {what}")
    next_move = problem.next_move or _NEXT_MOVES.get(reason)
    return ServerProblem(probe, next_move=next_move, is_untouched=problem.is_untouched)


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
    with asking("rds", ASKED):
        if _INSTANCE_TAG in tags:
            answer = rds.describe_db_instances(DBInstanceIdentifier=tags[_INSTANCE_TAG])["DBInstances"][0]
            return answer["Endpoint"]["Address"], answer["Endpoint"]["Port"]
        if _CLUSTER_TAG in tags:
            answer = rds.describe_db_clusters(DBClusterIdentifier=tags[_CLUSTER_TAG])["DBClusters"][0]
            return answer["Endpoint"], answer["Port"]
    raise SecretProblem(f"the administrator's secret {admin.name!r} has no 'host' and no tag of RDS")


def _names(admin: Secret, host: str, port: int) -> set[tuple[str, int]]:
    """
    Return the addresses that *admin* is good for, says its own secret.

    The list gives nothing to who may only write the secret of an application: the administrator logs in at
    its own address, whatever is listed, and who may write this secret has the administrator already.
    """
    listed = admin.fields.get("hosts") or []
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise admin.problem("hosts", _EXPECTED_HOSTS)
    return {(plain(host), port), *(_name(admin, one, port) for one in listed)}


def _name(admin: Secret, listed: str, port: int) -> tuple[str, int]:
    # An address of IPv6 has more than one colon, and gets no port of its own.
    name, _, own_port = listed.rpartition(":") if listed.count(":") == 1 else (listed, "", "")
    one = Secret(admin.name, admin.version, {"host": name, "port": own_port or port})
    try:
        return plain(one.host), one.port("PostgreSQL")
    except SecretProblem as problem:
        raise admin.problem("hosts", _EXPECTED_HOSTS) from problem


def _belongs(host: str, admin_host: str, tools: Tools) -> bool:
    # Two addresses that are no names of RDS: there is nobody to ask.
    if not (is_of_rds(host) and is_of_rds(admin_host)):
        return False
    return RdsNames(tools.client("rds")).are_one_server(host, admin_host)
