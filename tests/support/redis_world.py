"""An ACL user of a test's own on the sandbox's Redis, with its secrets, and what rotates it."""

import json
import secrets
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from ledger_db.answers.secret import Secret
from ledger_db.answers.tls import TLS
from ledger_db.rotation.protocol import Tools
from ledger_db.rotation.redis import hashed
from ledger_db.sandbox import Sandbox

RIGHTS = "~* &* +@all -@admin -@dangerous +acl|whoami +info"


@dataclass(frozen=True, slots=True)
class RedisWorld:
    """
    One user, its secret, and the administrator's.

    Attributes:
        box: Where they live.

        user: Name of the ACL user.

        secret_id: Of the user's secret, which names the administrator's.

        admin_secret_id: Of the administrator's.
    """

    box: Sandbox
    user: str
    secret_id: str
    admin_secret_id: str

    def admin(self) -> "redis.Redis":
        """Return a client that may do everything; the caller closes it."""
        return self.box.redis.connect()

    def fields(self, stage: str = "AWSCURRENT") -> dict[str, Any]:
        """Return what the user's secret holds."""
        with closing(self.box.client()) as client:
            answer = client.get_secret_value(SecretId=self.secret_id, VersionStage=stage)
        found: dict[str, Any] = json.loads(answer["SecretString"])
        return found

    def secret(self, version: str = "v", **changes: Any) -> Secret:
        """Return what AWSCURRENT holds as a rotator gets it, with *changes*."""
        return Secret(self.secret_id, version, {**self.fields(), **changes})

    def logs_in(self, password: str) -> bool:
        """Return whether the user logs in with *password*."""
        client = self.box.redis.connect(username=self.user, password=password)
        try:
            return bool(client.ping())
        except redis.AuthenticationError:
            return False
        finally:
            client.close()

    def known(self) -> set[str]:
        """Return the hashes of the passwords that the server knows for the user."""
        with closing(self.admin()) as admin:
            user: Any = admin.acl_getuser(self.user)
        return set(user["passwords"])

    def tools(self) -> Tools:
        """Return what a rotator needs here."""

        def read_secret(secret_id: str) -> Secret:
            # One client for all, as a warm function has it.
            client = self.box._shared_client()
            answer = client.get_secret_value(SecretId=secret_id, VersionStage="AWSCURRENT")
            return Secret(secret_id, answer["VersionId"], json.loads(answer["SecretString"]))

        ca_file = None if self.box.redis.ca_file is None else str(self.box.redis.ca_file)
        return Tools(
            read_secret=read_secret,
            client=lambda service: self.box._shared_client(),
            tls=TLS(mode=None if ca_file is None else "verify-full", ca_file=ca_file),
        )


def acl(admin: "redis.Redis", *words: str) -> None:
    """Send an ACL command as it stands."""
    admin.execute_command("ACL", *words)  # type: ignore[no-untyped-call] # redis-py has no types for it


@contextmanager
def redis_world(box: Sandbox, *, rights: str = RIGHTS) -> Iterator[RedisWorld]:
    """Make a user and two secrets, and remove them in the end."""
    name, password = f"rotated-{uuid.uuid4().hex[:8]}", secrets.token_urlsafe(24)
    world = RedisWorld(box, name, f"trust-ledger/{name}", f"trust-ledger/{name}-admin")
    place = {"engine": "redis", "host": box.redis.host, "port": box.redis.port}
    own = {**place, "username": name, "password": password, "masterarn": world.admin_secret_id}
    admin_value = {**place, "username": box.redis.admin_user, "password": box.redis.admin_password}
    with closing(box.redis.connect()) as admin, closing(box.client()) as client:
        acl(admin, "SETUSER", name, "on", hashed(password), *rights.split())
        # Like a user that has been there for long: a server that is started again knows it.
        acl(admin, "SAVE")
        client.create_secret(Name=world.admin_secret_id, SecretString=json.dumps(admin_value))
        client.create_secret(Name=world.secret_id, SecretString=json.dumps(own))
        try:
            yield world
        finally:
            acl(admin, "DELUSER", name)
            for secret_id in (world.secret_id, world.admin_secret_id):
                client.delete_secret(SecretId=secret_id, ForceDeleteWithoutRecovery=True)
