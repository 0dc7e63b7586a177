"""
How does a sandbox rotate its credentials: AWS's four steps, without a Lambda.

    createSecret   a version with the new password gets AWSPENDING
    setSecret      the server learns the new password
    testSecret     somebody logs in with it
    finishSecret   AWSCURRENT moves to the new version, AWSPENDING is taken from it
"""

import json
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from ledger_db.errors import RotationFailed
from ledger_db.sandbox import seed
from ledger_db.sandbox.redis import hashed

if TYPE_CHECKING:
    import redis
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from psycopg2.extensions import connection as PostgresConnection  # noqa: N812 - it is a class

Strategy = Literal["single-user", "alternating-users"]
Event = dict[str, str]
Secret = dict[str, Any]

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
_STATE_AFTER = {
    "createSecret": "nothing has changed",
    "setSecret": "AWSPENDING holds a password that the server may or may not have",
    "testSecret": "the server was told the password in AWSPENDING, and AWSCURRENT is as before",
    "finishSecret": "the server has the password in AWSPENDING, and AWSCURRENT may be as before",
}
_OTHER_ROLE = {seed.FIRST_ROLE: seed.SECOND_ROLE, seed.SECOND_ROLE: seed.FIRST_ROLE}


def run(secret_id: str, rotator: Callable[[Event], None]) -> str:
    """
    Run the four steps, once.

    Returns:
        The id of the new version.

    Raises:
        RotationFailed: With the step, the secret's name, and what is true now.
    """
    token = str(uuid.uuid4())
    for step in STEPS:
        try:
            rotator({"Step": step, "SecretId": secret_id, "ClientRequestToken": token})
        except Exception as error:
            # The type and no text: a driver's text may name what it was working with.
            raise RotationFailed(
                f"{step} of {secret_id} failed with {type(error).__name__}; {_STATE_AFTER[step]}; "
                "rotate again, which replaces AWSPENDING"
            ) from error
    return token


class DatabaseRotator:
    """
    Rotates the application's PostgreSQL credentials; called once a step, as a rotation Lambda is.

    Args:
        client: For Secrets Manager.

        connect: Makes a connection as the superuser, or with other parameters.

        strategy: Which role gets the new password.

        window_seconds: How long finishSecret waits before it moves AWSCURRENT.
    """

    def __init__(
        self,
        client: "SecretsManagerClient",
        connect: "Callable[..., PostgresConnection]",
        *,
        strategy: Strategy,
        window_seconds: float = 0.0,
    ) -> None:
        if strategy not in ("single-user", "alternating-users"):
            raise ValueError(f"there is no strategy {strategy!r}; it is single-user or alternating-users")
        self._versions = _Versions(client)
        self._connect = connect
        self._strategy = strategy
        self._window_seconds = window_seconds

    def __call__(self, event: Event) -> None:
        """Do the step that *event* names."""
        steps = {
            "createSecret": self._create,
            "setSecret": self._set,
            "testSecret": self._test,
            "finishSecret": self._finish,
        }
        steps[event["Step"]](event)

    def _create(self, event: Event) -> None:
        def next_user(current: Secret) -> Secret:
            if self._strategy == "single-user":
                return {}
            return {"username": _OTHER_ROLE[current["username"]]}

        self._versions.put_pending(event, next_user)

    def _set(self, event: Event) -> None:
        pending = self._versions.pending(event)
        connection = self._connect()
        try:
            seed.set_password(connection, pending["username"], pending["password"])
        finally:
            connection.close()

    def _test(self, event: Event) -> None:
        pending = self._versions.pending(event)
        self._connect(user=pending["username"], password=pending["password"]).close()

    def _finish(self, event: Event) -> None:
        time.sleep(self._window_seconds)
        self._versions.promote(event)


class RedisRotator:
    """
    Rotates the application's Redis password; called once a step, as a rotation Lambda is.

    As ElastiCache does, the server knows two passwords from setSecret on: the new one and the one before it.

    Args:
        client: For Secrets Manager.

        connect: Makes a client as the administrator, or with other parameters.

        window_seconds: How long finishSecret waits before it moves AWSCURRENT.
    """

    def __init__(
        self,
        client: "SecretsManagerClient",
        connect: "Callable[..., redis.Redis]",
        *,
        window_seconds: float = 0.0,
    ) -> None:
        self._versions = _Versions(client)
        self._connect = connect
        self._window_seconds = window_seconds

    def __call__(self, event: Event) -> None:
        """Do the step that *event* names."""
        steps = {
            "createSecret": self._create,
            "setSecret": self._set,
            "testSecret": self._test,
            "finishSecret": self._finish,
        }
        steps[event["Step"]](event)

    def _create(self, event: Event) -> None:
        self._versions.put_pending(event, lambda _: {})

    def _set(self, event: Event) -> None:
        current, pending = self._versions.current(event), self._versions.pending(event)
        passwords = (hashed(current["password"]), hashed(pending["password"]))
        admin = self._connect()
        try:
            # One command, so there is no moment without a valid password; hashes, so there is no password on
            # the wire.
            _acl(admin, "SETUSER", pending["username"], "resetpass", *passwords)
            # The users of a server that is started again are those in its file.
            _acl(admin, "SAVE")
        finally:
            admin.close()

    def _test(self, event: Event) -> None:
        pending = self._versions.pending(event)
        application = self._connect(username=pending["username"], password=pending["password"])
        try:
            application.ping()
        finally:
            application.close()

    def _finish(self, event: Event) -> None:
        time.sleep(self._window_seconds)
        self._versions.promote(event)


def _acl(admin: "redis.Redis", *words: str) -> None:
    # Not acl_setuser(), which has no way to say "these passwords and no others" in one command.
    admin.execute_command("ACL", *words)  # type: ignore[no-untyped-call] # redis-py has no types for it


class _Versions:
    """The versions of a secret during its rotation."""

    def __init__(self, client: "SecretsManagerClient") -> None:
        self._client = client

    def current(self, event: Event) -> Secret:
        answer = self._client.get_secret_value(SecretId=event["SecretId"], VersionStage="AWSCURRENT")
        value: Secret = json.loads(answer["SecretString"])
        return value

    def pending(self, event: Event) -> Secret:
        answer = self._client.get_secret_value(
            SecretId=event["SecretId"], VersionId=event["ClientRequestToken"], VersionStage="AWSPENDING"
        )
        value: Secret = json.loads(answer["SecretString"])
        return value

    def put_pending(self, event: Event, changes: Callable[[Secret], Secret]) -> None:
        """Put the next value, unless an earlier attempt with the same token has."""
        try:
            self.pending(event)
        except self._client.exceptions.ResourceNotFoundException:
            current = self.current(event)
            value = {**current, **changes(current), "password": seed.new_password()}
            self._client.put_secret_value(
                SecretId=event["SecretId"],
                ClientRequestToken=event["ClientRequestToken"],
                SecretString=json.dumps(value),
                VersionStages=["AWSPENDING"],
            )

    def promote(self, event: Event) -> None:
        """Move AWSCURRENT to the new version and take AWSPENDING from it; nothing to do if that is done."""
        token = event["ClientRequestToken"]
        versions = self._client.describe_secret(SecretId=event["SecretId"])["VersionIdsToStages"]
        holders = {label: version for version, labels in versions.items() for label in labels}
        if holders["AWSCURRENT"] != token:
            self._client.update_secret_version_stage(
                SecretId=event["SecretId"],
                VersionStage="AWSCURRENT",
                MoveToVersionId=token,
                RemoveFromVersionId=holders["AWSCURRENT"],
            )
        if holders.get("AWSPENDING") == token:
            self._client.update_secret_version_stage(
                SecretId=event["SecretId"], VersionStage="AWSPENDING", RemoveFromVersionId=token
            )
