"""What has to be true of the template for everybody to reach what they need, and nothing else?"""

import ast
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import botocore.loaders
import botocore.model
from botocore import xform_name

from ledger_db.settings import Settings
from tests.support.template_rotation import rotated, source
from tests.support.template_stacks import Stack

SERVICES = ("elasticache", "rds", "secretsmanager")
# AUTH tokens: the template offers ElastiCache's users, so nobody gets to change a whole replication group.
# Where a user logs in is asked only for a secret without a host, and the template's have one.
_NOT_OFFERED = {
    f"elasticache:{operation}"
    for operation in (
        "ModifyReplicationGroup",
        "DescribeReplicationGroups",
        "DescribeUserGroups",
        "DescribeServerlessCaches",
    )
}
# AWS gives these no resource to name.
_KNOW_NO_RESOURCE = {"ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"}
_READ_LOGIN = "secretsmanager:GetSecretValue"
_ROLE = "AWS::IAM::Role"
_POLICY = "AWS::IAM::ManagedPolicy"

Statement = Mapping[str, Any]


def listed(value: Any) -> list[Any]:
    """Return what a policy may say as one or as many."""
    return value if isinstance(value, list) else [value]


def statements_of(stack: Stack, role: str) -> list[Statement]:
    """Return every statement that is written into a role, or a policy."""
    properties = stack.resources[role]["Properties"]
    documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
    documents += [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
    return [statement for document in documents for statement in document["Statement"]]


def actions_of(statements: list[Statement]) -> set[str]:
    """Return what is allowed."""
    return {action for one in statements if one["Effect"] == "Allow" for action in listed(one["Action"])}


def holders(stack: Stack) -> Iterator[str]:
    """Yield every role and policy."""
    for kind in (_ROLE, _POLICY):
        yield from (name for name, _ in stack.of_type(kind))


@cache
def called_actions() -> frozenset[str]:
    """Return the action of every call of AWS that is in the functions' code."""
    loader = botocore.loaders.Loader()
    operations = {
        xform_name(operation): f"{service}:{operation}"
        for service in SERVICES
        for operation in loader.load_service_model(service, "service-2")["operations"]
    }
    names = set()
    for node in ast.walk(ast.parse(source())):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)  # that of a paginator
    return frozenset(operations[name] for name in names & operations.keys()) - _NOT_OFFERED


def the_role_may_do_what_the_code_does(stack: Stack) -> Iterator[str]:
    """Every call that the rotation function makes is allowed, and no other of these services."""
    wanted = set(called_actions())
    if stack.parameters["Database"] == "other":
        wanted = {action for action in wanted if not action.startswith("rds:")}
    if stack.parameters["Database"] == "create":
        # Its host is the instance itself, whose administrator says the same.
        wanted -= {action for action in wanted if action.startswith("rds:")} - {"rds:DescribeDBInstances"}
    if stack.parameters["Redis"] not in {"create", "elasticache"}:
        wanted = {action for action in wanted if not action.startswith("elasticache:")}
    if stack.parameters["Redis"] != "other":
        wanted -= {"secretsmanager:ListSecretVersionIds"}
    allowed = actions_of(statements_of(stack, "RotationRole"))
    allowed = {action for action in allowed if action.startswith((*(f"{name}:" for name in SERVICES), "*"))}
    if allowed != wanted:
        yield f"the rotation function is allowed {sorted(allowed)} and does {sorted(wanted)}"


def nothing_is_allowed_everywhere(stack: Stack) -> Iterator[str]:
    """A permission names what it is for."""
    for holder in holders(stack):
        for statement in statements_of(stack, holder):
            if statement["Effect"] != "Allow":
                continue
            if any(action.endswith("*") for action in listed(statement["Action"])):
                yield f"{holder} is allowed more than it says: {statement['Action']}"
            if "*" in listed(statement["Resource"]) and set(listed(statement["Action"])) - _KNOW_NO_RESOURCE:
                yield f"{holder} is allowed {statement['Action']} on everything"


def secrets_are_read_by_name(stack: Stack) -> Iterator[str]:
    """Whoever reads a secret reads one of this stack, or an administrator's that was named."""
    ours = {f"{{{name}}}" for name, _ in rotated(stack)}
    admins = {"{DatabaseServer.MasterUserSecret.SecretArn}", *stack.given.values()}
    for holder in holders(stack):
        known = ours | admins if holder == "RotationRole" else ours
        for statement in statements_of(stack, holder):
            reads = any(action.startswith("secretsmanager:") for action in listed(statement["Action"]))
            if reads and (stray := set(listed(statement["Resource"])) - known):
                yield f"{holder} reaches {stray}"


def opens(statement: Statement, action: str, secret: str) -> bool:
    """Whether *statement* allows *action* of KMS for *secret*, by way of Secrets Manager only."""
    conditions = statement.get("Condition", {}).get("StringEquals", {})
    return (
        action in listed(statement["Action"])
        and "{Key.Arn}" in listed(statement["Resource"])
        and conditions.get("kms:ViaService") == "secretsmanager.eu-west-1.amazonaws.com"
        and secret in listed(conditions.get("kms:EncryptionContext:SecretARN", []))
    )


def who_reads_a_secret_may_open_it(stack: Stack) -> Iterator[str]:
    """A secret that is encrypted with the stack's key is of use only with that key."""
    encrypted = {f"{{{name}}}" for name, _ in rotated(stack)} | {
        "{DatabaseServer.MasterUserSecret.SecretArn}"
    }
    needs = {_READ_LOGIN: "kms:Decrypt", "secretsmanager:PutSecretValue": "kms:GenerateDataKey"}
    for holder in holders(stack):
        statements = statements_of(stack, holder)
        for statement in statements:
            for action in needs.keys() & set(listed(statement["Action"])):
                for secret in encrypted & set(listed(statement["Resource"])):
                    if not any(opens(other, needs[action], secret) for other in statements):
                        yield f"{holder} may {action} {secret} and not {needs[action]}"


def keys_are_used_for_secrets_only(stack: Stack) -> Iterator[str]:
    """A key opens named secrets, by way of Secrets Manager, and nothing else."""
    for holder in holders(stack):
        for statement in statements_of(stack, holder):
            if any(action.startswith("kms:") for action in listed(statement["Action"])):
                conditions = statement.get("Condition", {}).get("StringEquals", {})
                if not conditions.get("kms:ViaService") or not conditions.get(
                    "kms:EncryptionContext:SecretARN"
                ):
                    yield f"{holder} may use a key for anything"


def services_secrets(stack: Stack) -> set[str]:
    """Return what services log in with: all that rotates but the login of who announces."""
    return {f"{{{name}}}" for name, _ in rotated(stack) if name != "AnnounceSecret"}


def a_service_reads_and_no_more(stack: Stack) -> Iterator[str]:
    """What a service is given lets it read its secrets, all of them."""
    statements = statements_of(stack, "ServicePolicy")
    if actions_of(statements) != {_READ_LOGIN, "kms:Decrypt"}:
        yield f"a service is allowed {sorted(actions_of(statements))}"
    reach = {
        secret for one in statements if _READ_LOGIN in listed(one["Action"]) for secret in one["Resource"]
    }
    if reach != services_secrets(stack):
        yield f"a service reads {sorted(reach)}"


def functions_write_their_log(stack: Stack) -> Iterator[str]:
    """Each function has a log of its own that ends some day, that its role may write and the key encrypt."""
    for name, properties in stack.of_type("AWS::Lambda::Function"):
        group = properties.get("LoggingConfig", {}).get("LogGroup", "").strip("{}")
        log = stack.resources.get(group, {}).get("Properties", {})
        if "RetentionInDays" not in log or log.get("KmsKeyId") != "{Key.Arn}":
            yield f"{name} has no log that is encrypted and ends"
            continue
        role = properties["Role"].strip("{}").removesuffix(".Arn")
        may = [one for one in statements_of(stack, role) if "logs:PutLogEvents" in listed(one["Action"])]
        if [one["Resource"] for one in may] != [f"{{{group}.Arn}}"]:
            yield f"{name} may not write its log"
        if f"log-group:{log['LogGroupName']}" not in json.dumps(stack.resources["Key"]):
            yield f"the key is not for the log of {name}"


def functions_enter_the_network(stack: Stack) -> Iterator[str]:
    """Lambda may put each function into the VPC, and no function may do anything there itself."""
    network = statements_of(stack, "NetworkPolicy")
    denied = json.dumps([one for one in network if one["Effect"] == "Deny"])
    for name, properties in stack.of_type("AWS::Lambda::Function"):
        role = properties["Role"].strip("{}").removesuffix(".Arn")
        if "{NetworkPolicy}" not in stack.resources[role]["Properties"].get("ManagedPolicyArns", []):
            yield f"{name} cannot be put into the VPC"
        if f"function:{properties['FunctionName']}" not in denied:
            yield f"the code of {name} may change the network"


def everybody_reaches_the_servers(stack: Stack) -> Iterator[str]:
    """Functions and services are let out to each server's port, and in there."""
    ports = [stack.parameters["DatabasePort"], stack.parameters["RedisPort"]]
    ports = ports[: 1 if stack.parameters["Redis"] == "none" else 2]
    doors = [what for _, what in stack.of_type("AWS::EC2::SecurityGroupIngress")]
    for who in ("FunctionSecurityGroup", "ServiceSecurityGroup"):
        out = {
            (rule["ToPort"], rule.get("DestinationSecurityGroupId"))
            for rule in stack.resources[who]["Properties"]["SecurityGroupEgress"]
        }
        let_in = {
            (door["ToPort"], door["GroupId"])
            for door in doors
            if door.get("SourceSecurityGroupId") == f"{{{who}.GroupId}}"
            and door["FromPort"] == door["ToPort"]
        }
        for port in ports:
            if not {way for way in out if way[0] == port} & let_in:
                yield f"{who} does not reach port {port}"
        if not any(port == 443 for port, _ in out):
            yield f"{who} does not reach AWS"


def endpoints_are_for_what_is_called(stack: Stack) -> Iterator[str]:
    """Where the stack makes the ways to AWS, it makes each that the functions need, and lets the VPC in."""
    made = {
        what["ServiceName"].rpartition(".")[2]: what for _, what in stack.of_type("AWS::EC2::VPCEndpoint")
    }
    allowed = actions_of(statements_of(stack, "RotationRole"))
    needed = {name for name in SERVICES if any(action.startswith(f"{name}:") for action in allowed)}
    if set(made) != (needed if stack.parameters["EndpointCidr"] else set()):
        yield f"there are endpoints for {sorted(made)}, and {sorted(needed)} are called"
    for name, what in made.items():
        if what.get("PrivateDnsEnabled") is not True or what.get("VpcEndpointType") != "Interface":
            yield f"nobody finds the endpoint of {name}"
        doors = stack.resources["EndpointSecurityGroup"]["Properties"]["SecurityGroupIngress"]
        if [(door["ToPort"], door["CidrIp"]) for door in doors] != [(443, stack.parameters["EndpointCidr"])]:
            yield "the endpoints are not open to the VPC"


def a_database_takes_no_login_in_clear(stack: Stack) -> Iterator[str]:
    """A database that is made insists on TLS, keeps verifiers, is not public; nobody wrote its password."""
    for name, what in stack.of_type("AWS::RDS::DBParameterGroup"):
        given = what["Parameters"]
        if (given.get("rds.force_ssl"), given.get("password_encryption")) != ("1", "scram-sha-256"):
            yield f"{name} allows a login in clear"
    for name, what in stack.of_type("AWS::RDS::DBInstance"):
        if "MasterUserPassword" in what or what.get("ManageMasterUserPassword") is not True:
            yield f"{name} has a password that somebody wrote"
        if what.get("PubliclyAccessible") is not False or what.get("StorageEncrypted") is not True:
            yield f"{name} is open to others"
        if not what.get("DBParameterGroupName"):
            yield f"{name} has the parameters of everybody"


def a_cache_takes_no_login_in_clear(stack: Stack) -> Iterator[str]:
    """A cache that is made insists on TLS and on a user; nobody wrote a password."""
    for name, what in stack.of_type("AWS::ElastiCache::ReplicationGroup"):
        if what.get("TransitEncryptionEnabled") is not True or not what.get("UserGroupIds"):
            yield f"{name} allows a login in clear, or none"
    for name, what in stack.of_type("AWS::ElastiCache::User"):
        passwords = what.get("AuthenticationMode", {}).get("Passwords", [])
        if not passwords or not all(text.startswith("{{resolve:secretsmanager:") for text in passwords):
            yield f"{name} has a password that somebody wrote, or none"


def services_only_listen(stack: Stack) -> Iterator[str]:
    """Who announces may do nothing else on a cache that is made, and nobody else may announce."""
    users = dict(stack.of_type("AWS::ElastiCache::User"))
    for name, what in users.items():
        may = what["AccessString"].split()
        if name == "RedisAnnouncer":
            if may != ["on", "resetchannels", "&ledger_db:rotations", "-@all", "+publish"]:
                yield f"{name} may do more than announce"
        elif "off" not in may and may[-2:] != ["-publish", "-spublish"]:
            yield f"{name} may announce"
    groups = [what["UserIds"] for _, what in stack.of_type("AWS::ElastiCache::UserGroup")]
    if users and not all("{RedisAnnouncer}" in ids for ids in groups):
        yield "nobody may announce"


def a_service_gets_its_settings(stack: Stack) -> Iterator[str]:
    """What the stack prints for a service are settings that there are."""
    printed = {what["Description"]: what["Value"] for what in stack.outputs.values()}
    settings = {name: value for name, value in printed.items() if name.startswith("LEDGER_DB_")}
    for name in settings:
        if name.removeprefix("LEDGER_DB_").lower() not in Settings.model_fields:
            yield f"there is no setting {name}"
    if set(settings.values()) < services_secrets(stack):
        yield "a service is not told its secrets"


def leaves(node: Any) -> Iterator[Any]:
    """Yield every value in *node*."""
    if isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from leaves(inner)
    else:
        yield node


def nothing_is_left_open(stack: Stack) -> Iterator[str]:
    """No property is empty because of a parameter that was not given, as it need not be."""
    for name, resource in stack.resources.items():
        if "" in leaves(resource["Properties"]):
            yield f"{name} is made, and a part of it was never given"


CONTRACTS = (
    the_role_may_do_what_the_code_does,
    nothing_is_allowed_everywhere,
    secrets_are_read_by_name,
    who_reads_a_secret_may_open_it,
    keys_are_used_for_secrets_only,
    a_service_reads_and_no_more,
    functions_write_their_log,
    functions_enter_the_network,
    everybody_reaches_the_servers,
    endpoints_are_for_what_is_called,
    a_database_takes_no_login_in_clear,
    a_cache_takes_no_login_in_clear,
    nothing_is_left_open,
    services_only_listen,
    a_service_gets_its_settings,
)
