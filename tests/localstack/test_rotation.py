"""Does a service notice anything when LocalStack rotates its passwords with the functions that AWS runs?"""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import httpx
import pytest

from examples.trust_ledger.run import migrate_sandbox
from examples.trust_ledger.workload import LedgerWorkload
from ledger_db.drill.load import Load
from ledger_db.drill.report import describe_failure
from ledger_db.drill.service import Service, listen_from, python_command
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.seed import FIRST_ROLE, SECOND_ROLE
from localstack.host import LocalStack
from localstack.run import environment_of
from tests.localstack.clients import Clients
from tests.support.waiting import eventually

PORT = 8700
CLIENTS = 6
DATABASE, REDIS = Sandbox.database_secret_id, Sandbox.redis_secret_id


@dataclass(frozen=True, slots=True)
class Rotated:
    """What came of rotations under load."""

    requests: int
    failures: tuple[str, ...]
    flaws: tuple[str, ...]


@pytest.fixture(scope="module")
def service(servers: Sandbox, localstack: LocalStack) -> Iterator[Service]:
    """The Trust Ledger, as a process; it hears of rotations, as it polls only every five minutes."""
    migrate_sandbox(servers)
    listener = listen_from(PORT)
    command = python_command("uvicorn", "examples.trust_ledger.app:app", "--fd", str(listener.fileno()))
    environment = {**environment_of(servers, localstack), "LEDGER_DB_REFRESH_INTERVAL_SECONDS": "300"}
    with Service(
        [*command, "--no-access-log", "--log-level", "warning"],
        listener=listener,
        ready_path="/health/ready",
        environment=environment,
    ) as running:
        running.wait_ready()
        yield running


async def under_load(service: Service, rotate: Callable[[], object]) -> Rotated:
    """Let clients use *service* while *rotate* works in a thread."""
    workload, stop = LedgerWorkload(), asyncio.Event()
    load = Load(service.url, workload, clients=CLIENTS, pause_seconds=0.01)
    working = asyncio.create_task(load.run(stop))
    try:
        await asyncio.to_thread(rotate)
    finally:
        stop.set()
        await working
    async with httpx.AsyncClient(base_url=service.url, timeout=30, trust_env=False) as client:
        flaws = await workload.inspect(client)
    outcomes = load.take_outcomes(until=float("inf"))
    failures = [describe_failure(outcome, since=0.0) for outcome in outcomes if outcome.failed]
    return Rotated(load.requests, tuple(failures), flaws)


def rotate(clients: Clients, secret: str) -> str:
    """Rotate, and return the version; LocalStack says that it went well whatever happened."""
    version: str = clients("secretsmanager").rotate_secret(SecretId=secret)["VersionId"]
    labels = clients("secretsmanager").describe_secret(SecretId=secret)["VersionIdsToStages"]

    assert "AWSCURRENT" in labels[version], labels
    return version


def current_role(clients: Clients) -> str:
    """Return the role that AWSCURRENT logs in with."""
    answer = clients("secretsmanager").get_secret_value(SecretId=DATABASE, VersionStage="AWSCURRENT")
    role: str = json.loads(answer["SecretString"])["username"]
    return role


def use_strategy(clients: Clients, strategy: str) -> None:
    """Name the strategy in the secret, as a person would."""
    answer = clients("secretsmanager").get_secret_value(SecretId=DATABASE, VersionStage="AWSCURRENT")
    value = {**json.loads(answer["SecretString"]), "strategy": strategy}
    clients("secretsmanager").put_secret_value(SecretId=DATABASE, SecretString=json.dumps(value))


def roles_of_sessions(servers: Sandbox) -> set[str]:
    """Return as whom the service is logged in."""
    with closing(servers.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT usename FROM pg_stat_activity WHERE usename IN %s", ((FIRST_ROLE, SECOND_ROLE),)
        )
        return {row[0] for row in cursor.fetchall()}


@pytest.mark.parametrize("strategy", ["postgres-alternating", "postgres-single"])
async def test_no_request_fails_while_localstack_rotates(
    clients: Clients, service: Service, strategy: str
) -> None:
    """RotateSecret, our zip, real servers, a service under load: nobody is refused, nothing is lost."""
    use_strategy(clients, strategy)

    def rotate_both_twice() -> None:
        for secret in (DATABASE, REDIS, DATABASE, REDIS):
            rotate(clients, secret)

    rotated = await under_load(service, rotate_both_twice)

    assert (rotated.failures, rotated.flaws) == ((), ())
    assert rotated.requests > 100


async def test_the_service_hears_of_a_rotation(clients: Clients, service: Service, servers: Sandbox) -> None:
    """A message of the function, over Redis, renews the service's connections long before it would poll."""
    use_strategy(clients, "postgres-alternating")
    before = current_role(clients)
    await under_load(service, lambda: rotate(clients, DATABASE))
    after = current_role(clients)

    assert before != after
    eventually(lambda: roles_of_sessions(servers) <= {after}, "every session is of the new role")


def test_a_step_that_fails_leaves_awscurrent_as_it_was(clients: Clients, servers: Sandbox) -> None:
    """With the server gone nothing is rotated, and the next RotateSecret finishes what this one began."""
    use_strategy(clients, "postgres-alternating")
    role = current_role(clients)
    servers.postgres.stop()
    try:
        version = clients("secretsmanager").rotate_secret(SecretId=DATABASE)["VersionId"]
        labels = clients("secretsmanager").describe_secret(SecretId=DATABASE)["VersionIdsToStages"]
    finally:
        servers.postgres.start()

    assert labels[version] == ["AWSPENDING"]
    assert current_role(clients) == role
    assert rotate(clients, DATABASE) == version
    assert current_role(clients) != role
