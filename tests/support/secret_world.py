"""A secret in the stand-in and a server in memory that knows it, for what is the same for every strategy."""

import json
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import boto3.session
from botocore.config import Config

from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.repair import Repair, Repaired
from ledger_db.rotation.steps import STEPS, Outcome, Steps
from ledger_db.rotation.versions import Versions
from ledger_db.stand_in.server import SecretsManagerStandIn
from tests.support.memory_server import MemoryRotator, MemoryServer

NAME = "app/db"
FIRST = "old-password-0001"

# Shared: the first client of a session is slow to make.
_SESSION = boto3.session.Session(
    aws_access_key_id="sandbox", aws_secret_access_key="sandbox", region_name="us-east-1"
)


def token() -> str:
    """Name a rotation."""
    return str(uuid.uuid4())


class World:
    """A secret, a server that knows it, and rotations of one with the other."""

    def __init__(self, stand_in: SecretsManagerStandIn, client: Any) -> None:
        self.stand_in = stand_in
        self.client = client
        self.server = MemoryServer({"a": FIRST})
        self.rotator = MemoryRotator(self.server)
        self.waits: list[float] = []
        client.create_secret(Name=NAME, SecretString=self.text(username="a", password=FIRST))

    def text(self, **fields: str) -> str:
        """Return a secret as JSON."""
        return json.dumps({"engine": "memory", "host": "db.example", **fields})

    def versions(self, *, seconds: float = 60.0, visible_seconds: float = 0.0) -> Versions:
        """Return the versions of the secret, as a step sees them."""
        return Versions(
            self.client,
            NAME,
            Deadline.after(seconds),
            visible_seconds=visible_seconds,
            sleep=self.waits.append,
        )

    def step(self, step: str, token: str, *, seconds: float = 60.0, visible_seconds: float = 0.0) -> Outcome:
        """Do one step."""
        versions = self.versions(seconds=60.0, visible_seconds=visible_seconds)
        steps = Steps(
            versions, self.rotator, Deadline.after(seconds), current=versions.current(), token=token
        )
        return steps.run(step, versions.labels())

    def rotate(self, token: str, steps: tuple[str, ...] = STEPS) -> list[Outcome]:
        """Do several steps."""
        return [self.step(step, token) for step in steps]

    def repair(self) -> Repaired:
        """Repair."""
        versions = self.versions()
        repair = Repair(versions, self.rotator, Deadline.after(60.0), current=versions.current())
        return repair.run(versions.labels())

    def labels(self) -> dict[str, str]:
        """Return label to version."""
        versions = self.client.describe_secret(SecretId=NAME)["VersionIdsToStages"]
        return {label: version for version, labels in versions.items() for label in labels}

    def put(self, token: str, stage: str, **fields: str) -> None:
        """Store a version as somebody else would."""
        self.client.put_secret_value(
            SecretId=NAME, ClientRequestToken=token, SecretString=self.text(**fields), VersionStages=[stage]
        )

    def current_logs_in(self) -> bool:
        """Whether the server accepts AWSCURRENT."""
        return self.server.login(self.versions().current()).ok


@contextmanager
def secret_world() -> Iterator[World]:
    """Make one, with a stand-in of its own."""
    config = Config(retries={"total_max_attempts": 2, "mode": "standard"})
    with (
        SecretsManagerStandIn() as stand_in,
        closing(_SESSION.client("secretsmanager", endpoint_url=stand_in.url, config=config)) as client,
    ):
        yield World(stand_in, client)
