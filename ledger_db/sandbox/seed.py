"""What is in a fresh sandbox: roles, users and secrets."""

import http.client
import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ledger_db.answers.announcement import DEFAULT_CHANNEL
from ledger_db.errors import ServerUnreachable
from ledger_db.sandbox.redis import hashed

if TYPE_CHECKING:
    from psycopg2.extensions import connection as PostgresConnection  # noqa: N812 - it is a class

DATABASE = "ledger"
OWNER = "ledger_owner"
FIRST_ROLE = "ledger_app_a"
SECOND_ROLE = "ledger_app_b"
REDIS_USER = "ledger_app"
ANNOUNCER = "ledger_announcer"

DATABASE_SECRET_ID = "trust-ledger/postgres"  # noqa: S105 - a name, not a secret
REDIS_SECRET_ID = "trust-ledger/redis"  # noqa: S105 - a name, not a secret
ADMIN_SECRET_ID = "trust-ledger/postgres-admin"  # noqa: S105 - a name, not a secret
REDIS_ADMIN_SECRET_ID = "trust-ledger/redis-admin"  # noqa: S105 - a name, not a secret
ANNOUNCEMENTS_SECRET_ID = "trust-ledger/redis-announcer"  # noqa: S105 - a name, not a secret
ROTATION_FUNCTION_ARN = "arn:aws:lambda:us-east-1:000000000000:function:ledger-db-rotation"

_HTTP_TIMEOUT_SECONDS = 10.0


def new_password() -> str:
    """Make a password that nobody guesses, without characters that need quoting anywhere."""
    return secrets.token_urlsafe(24)


def redis_rights() -> str:
    """
    Return what the application's Redis user may do: everything but administer the server, and publish.

    A service that is taken over has no other one read its secret, or log in again.
    """
    return "~* &* +@all -@admin -@dangerous -publish -spublish +acl|whoami +info"


def redis_users(passwords: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ACL lines of the application's user and of who announces rotations, and no more."""
    announces = f"resetchannels &{DEFAULT_CHANNEL} -@all +publish"
    return (
        f"user {REDIS_USER} on {hashed(passwords['redis'])} {redis_rights()}",
        f"user {ANNOUNCER} on {hashed(passwords['announcer'])} {announces}",
    )


def seed_postgres(connection: "PostgresConnection", *, password: str) -> None:
    """
    Make the database, its owner that cannot log in, and the pair of roles that log in as it.

    The second role of the pair has no password until the first alternating rotation gives it one.

    Args:
        connection: As the superuser, autocommit.

        password: Of the first role.
    """
    from psycopg2 import sql  # noqa: PLC0415 - only once the servers are on their way up

    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(OWNER)))
        for role in (FIRST_ROLE, SECOND_ROLE):
            names = {"role": sql.Identifier(role), "owner": sql.Identifier(OWNER)}
            cursor.execute(sql.SQL("CREATE ROLE {role} LOGIN IN ROLE {owner}").format(**names))
            # Whatever either role makes belongs to the owner, so that the other can use it after a rotation.
            cursor.execute(sql.SQL("ALTER ROLE {role} SET ROLE {owner}").format(**names))
        set_password(connection, FIRST_ROLE, password)
        names = {"database": sql.Identifier(DATABASE), "owner": sql.Identifier(OWNER)}
        cursor.execute(sql.SQL("CREATE DATABASE {database} OWNER {owner}").format(**names))


def set_password(connection: "PostgresConnection", role: str, password: str) -> None:
    """
    Give *role* a password that never leaves this process.

    The server gets a SCRAM verifier: its log, ``pg_stat_activity`` and anyone who listens on the way see that
    instead, and nobody logs in with a verifier.
    """
    from psycopg2 import sql  # noqa: PLC0415 - only once the servers are on their way up
    from psycopg2.extensions import encrypt_password  # noqa: PLC0415 - as above

    verifier = encrypt_password(password, role, scope=connection, algorithm="scram-sha-256")
    statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier))
    with connection.cursor() as cursor:
        cursor.execute(statement)


def seed_secrets(url: str, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """
    Create the secrets that are missing, and move those that exist to where the servers are now.

    In a folder that was kept the user name and password in a secret stay what the last rotation made them.

    Args:
        url: Of the Secrets Manager stand-in.

        wanted: Secret id to value; administrators first, since those after them name them in ``masterarn``.
    """
    arns: dict[str, str] = {}
    for secret_id, given in wanted.items():
        # The field by which AWS's own functions find the administrator's secret holds its ARN.
        admin = {"masterarn": arns[given["masterarn"]]} if "masterarn" in given else {}
        value = {**given, **admin}
        found = _find(url, secret_id)
        if found is None:
            request = {"Name": secret_id, "SecretString": json.dumps(value)}
            arns[secret_id] = _call(url, "CreateSecret", request)["ARN"]
            continue
        arns[secret_id] = found["ARN"]
        now = json.loads(found["SecretString"])
        moved = {**value, **now, **admin, "host": value["host"], "port": value["port"]}
        if moved != now:
            _call(url, "PutSecretValue", {"SecretId": secret_id, "SecretString": json.dumps(moved)})


def _find(url: str, secret_id: str) -> dict[str, Any] | None:
    try:
        return _call(url, "GetSecretValue", {"SecretId": secret_id, "VersionStage": "AWSCURRENT"})
    except _NotFoundError:
        return None


class _NotFoundError(Exception):
    """The stand-in has no such secret."""


def _call(url: str, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Call the stand-in as boto3 would, without the 170 ms that boto3 takes to be ready."""
    place = urlsplit(url)
    assert place.hostname is not None
    if operation in {"CreateSecret", "PutSecretValue"}:
        request = {"ClientRequestToken": secrets.token_hex(16), **request}
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=_HTTP_TIMEOUT_SECONDS)
    try:
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"secretsmanager.{operation}",
            "Connection": "close",
        }
        connection.request("POST", "/", body=json.dumps(request), headers=headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status == http.HTTPStatus.OK:
        answer: dict[str, Any] = json.loads(body)
        return answer
    if b"ResourceNotFoundException" in body:
        raise _NotFoundError
    # The answer holds AWS's words for what is wrong with the request, never the value of a secret.
    raise ServerUnreachable(
        f"the Secrets Manager stand-in answered {response.status} to {operation}: "
        f"{body.decode(errors='replace')[:300]}; its state file may be damaged: remove the sandbox's folder"
    )
