"""How does a test stop a rotation half way?"""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ledger_db.rotation.steps import STEPS
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.rotate import SandboxRotator


class HalfRotation:
    """A rotation between setSecret and finishSecret: the server has the new password, AWSCURRENT the old."""

    def __init__(self, secret_id: str, rotator: SandboxRotator) -> None:
        self._rotator = rotator
        self._event = {"SecretId": secret_id, "ClientRequestToken": str(uuid.uuid4())}
        self._finished = False
        for step in STEPS[:2]:
            self._rotator({**self._event, "Step": step})

    @property
    def version(self) -> str:
        """The version that carries AWSPENDING."""
        return self._event["ClientRequestToken"]

    def finish(self) -> None:
        """Do the other two steps."""
        if not self._finished:
            for step in STEPS[2:]:
                self._rotator({**self._event, "Step": step})
            self._finished = True


@contextmanager
def half_rotated_database(box: Sandbox) -> Iterator[HalfRotation]:
    """Stop a single-user rotation in its window; whatever the test does, it is finished at the end."""
    client = box.client()
    try:
        rotation = HalfRotation(
            box.database_secret_id, SandboxRotator(client, "single-user", ca_file=box.postgres.ca_file)
        )
        yield rotation
        box.secrets_manager.clear_faults()
        rotation.finish()
    finally:
        client.close()


@contextmanager
def half_rotated_redis(box: Sandbox) -> Iterator[HalfRotation]:
    """Stop a Redis rotation in its window, with only the new password valid: the harshest kind."""
    client = box.client()
    try:
        rotation = HalfRotation(box.redis_secret_id, SandboxRotator(client, ca_file=box.redis.ca_file))
        pending = json.loads(
            client.get_secret_value(SecretId=box.redis_secret_id, VersionId=rotation.version)["SecretString"]
        )
        admin: Any = box.redis.connect()
        admin.execute_command("ACL", "SETUSER", pending["username"], "resetpass", f">{pending['password']}")
        admin.close()
        yield rotation
        box.secrets_manager.clear_faults()
        rotation.finish()
    finally:
        client.close()
