"""What do tests of rotations share: a runner for a sandbox, its labels, and whether a version logs in?"""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from botocore.config import Config

from ledger_db.answers.aws_client import core_session
from ledger_db.answers.tls import TLS
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.request import Request
from ledger_db.rotation.runner import Findings, Rules, Runner
from ledger_db.rotation.steps import STEPS, Outcome
from ledger_db.sandbox import Sandbox

PAIR = ["ledger_app_a", "ledger_app_b"]
OWNER = "ledger_owner"

_SESSION = core_session("sandbox")


def new_token() -> str:
    """Make what Secrets Manager calls a ClientRequestToken."""
    return str(uuid.uuid4())


def new_client(box: Sandbox, *, attempts: int = 3) -> Any:
    """Make a client that has no connection open yet; the session behind it is shared, which is quick."""
    return _SESSION.create_client(
        "secretsmanager",
        region_name="us-east-1",
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",
        endpoint_url=box.secrets_manager.url,
        config=Config(
            connect_timeout=2, read_timeout=5, retries={"total_max_attempts": attempts, "mode": "standard"}
        ),
    )


@dataclass(frozen=True, slots=True)
class Rotations:
    """
    Rotations of one secret of a sandbox, step by step.

    Attributes:
        box: The sandbox.

        client: For its Secrets Manager.

        strategy: How to rotate; by the secret's shape if None.

        secret_id: Which secret.

        visible_seconds: How long a value that was put just now is waited for.
    """

    box: Sandbox
    client: Any
    strategy: str | None
    secret_id: str = Sandbox.database_secret_id
    visible_seconds: float = 5.0

    def runner(self, client: Any = None, *, tls: TLS | None = None, **options: Any) -> Runner:
        """Make a runner, with another *client* if one is given."""
        used = self.client if client is None else client
        rules = Rules(
            allowed=("trust-ledger/*", "test/*"),
            strategy=self.strategy,
            tls=tls or TLS(),
            visible_seconds=self.visible_seconds,
        )
        return Runner(rules, lambda _: used, **options)

    def step(self, step: str, token: str, *, seconds: float = 20.0, runner: Runner | None = None) -> Outcome:
        """Do one step."""
        chosen = self.runner() if runner is None else runner
        return chosen.step(Request(step, self.secret_id, token), Deadline.after(seconds))

    def run(self, token: str | None = None, *, runner: Runner | None = None) -> str:
        """Do all four steps, and return the version."""
        token = token or new_token()
        for step in STEPS:
            self.step(step, token, runner=runner)
        return token

    def repair(self) -> str:
        """Repair, and return what it took."""
        return self.runner().repair(self.secret_id, Deadline.after(20.0)).value

    def examine(self) -> Findings:
        """Make a dry run."""
        return self.runner().examine(self.secret_id, Deadline.after(20.0))

    def labels(self) -> dict[str, str]:
        """Return label to version id."""
        versions = self.client.describe_secret(SecretId=self.secret_id)["VersionIdsToStages"]
        return {label: version for version, labels in versions.items() for label in labels}

    def value(self, stage: str = "AWSCURRENT") -> dict[str, Any]:
        """Return what the version with a label holds."""
        answer = self.client.get_secret_value(SecretId=self.secret_id, VersionStage=stage)
        value: dict[str, Any] = json.loads(answer["SecretString"])
        return value

    def value_of(self, version: str) -> dict[str, Any]:
        """Return what a version holds."""
        answer = self.client.get_secret_value(SecretId=self.secret_id, VersionId=version)
        value: dict[str, Any] = json.loads(answer["SecretString"])
        return value

    def put(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Store a changed value as a person would: AWSCURRENT moves at once."""
        self.client.put_secret_value(
            SecretId=self.secret_id,
            ClientRequestToken=new_token(),
            SecretString=json.dumps(change(self.value())),
        )

    def logs_in(self, stage: str = "AWSCURRENT") -> bool:
        """Whether PostgreSQL accepts the version with a label."""
        return self.accepts(self.value(stage))

    def accepts(self, value: dict[str, Any]) -> bool:
        """Whether PostgreSQL accepts what a version holds."""
        try:
            self.box.postgres.connect(user=value["username"], password=value["password"]).close()
        except psycopg2.OperationalError:
            return False
        return True

    def settle(self) -> None:
        """Start from a clean state: whatever a test before left is repaired, and the pair is named."""
        self.box.secrets_manager.clear_faults()
        self.repair()
        self.put(lambda value: {**value, "users": PAIR})

    def execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Do something as the superuser."""
        with closing(self.box.postgres.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def execute_as(self, stage: str, statement: str) -> list[tuple[Any, ...]]:
        """Do something as the application, with what the version with a label holds."""
        value = self.value(stage)
        login = {"user": value["username"], "password": value["password"]}
        with closing(self.box.postgres.connect(**login)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def own_secret(box: Sandbox, strategy: str | None, **fields: Any) -> Iterator[Rotations]:
    """
    Make a pair of roles and a secret that no other test knows, and remove the roles at the end.

    Args:
        box: Where.

        strategy: How they will be rotated; by the secret's shape if None.

        fields: Of the secret, other than usual.
    """
    name = f"test_{uuid.uuid4().hex[:8]}"
    users = [f"{name}_a", f"{name}_b"]
    password = uuid.uuid4().hex
    with closing(new_client(box)) as client:
        rotations = Rotations(box, client, strategy, f"test/{name}")
        for user in users:
            rotations.execute(f"CREATE ROLE {user} LOGIN IN ROLE {OWNER}")
            rotations.execute(f"ALTER ROLE {user} SET ROLE {OWNER}")
        rotations.execute(f"ALTER ROLE {users[0]} PASSWORD '{password}'")
        value = {
            "engine": "postgres",
            "host": box.postgres.host,
            "port": box.postgres.port,
            "dbname": box.postgres.database,
            "username": users[0],
            "password": password,
            "users": users,
            "masterarn": client.describe_secret(SecretId=box.admin_secret_id)["ARN"],
            **fields,
        }
        given = {field: content for field, content in value.items() if content is not None}
        client.create_secret(Name=rotations.secret_id, SecretString=json.dumps(given))
        yield rotations
        for user in (*users, f"{users[0]}_clone"):
            rotations.execute(f"DROP ROLE IF EXISTS {user}")
