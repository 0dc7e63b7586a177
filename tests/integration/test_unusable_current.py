"""What does a service do about a new AWSCURRENT that nobody can use?"""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from ledger_db import ConnectionManager, Settings
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import client_of
from tests.support.events import event_of
from tests.support.idle_sessions import fill_pool, pid
from tests.support.rotations import new_client
from tests.support.waiting import eventually

POOL = 3
CLOSED_PORT = 1


@dataclass(frozen=True, slots=True)
class OwnSecret:
    """A secret of the test's own, with what the sandbox's application logs in with."""

    client: Any
    name: str
    fields: dict[str, Any]

    def put(self, **changes: Any) -> None:
        """Make a new AWSCURRENT with *changes*."""
        self.client.put_secret_value(SecretId=self.name, SecretString=json.dumps({**self.fields, **changes}))

    def reads(self, box: Sandbox) -> int:
        """Return how often anybody has read a secret so far."""
        return box.secrets_manager.calls().get("GetSecretValue", 0)


@contextmanager
def own_copy(box: Sandbox, of: str) -> Iterator[OwnSecret]:
    """Make a secret that says what *of* says."""
    with closing(new_client(box)) as client:
        fields = json.loads(client.get_secret_value(SecretId=of)["SecretString"])
        name = f"test/unusable-{uuid.uuid4()}"
        client.create_secret(Name=name, SecretString=json.dumps(fields))
        try:
            yield OwnSecret(client, name, fields)
        finally:
            client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


@pytest.fixture
def secret(environment: Sandbox) -> Iterator[OwnSecret]:
    """Of PostgreSQL."""
    with own_copy(environment, environment.database_secret_id) as secret:
        yield secret


@pytest.fixture
def administer(environment: Sandbox) -> Iterator[Callable[[str], None]]:
    """Executes a statement as an administrator."""
    with closing(environment.postgres.connect()) as connection:
        connection.autocommit = True

        def administer(statement: str) -> None:
            with connection.cursor() as cursor:
                cursor.execute(statement)

        yield administer


@pytest.fixture
def other(administer: Callable[[str], None]) -> Iterator[str]:
    """A role without a place: its password is right, and it may have no connection."""
    name = f"other_{uuid.uuid4().hex}"
    administer(f"CREATE ROLE {name} LOGIN PASSWORD 'of-the-other' CONNECTION LIMIT 0")
    yield name
    administer(f"DROP ROLE {name}")


UNUSABLE: dict[str, tuple[dict[str, Any], bool]] = {
    "database gone": ({"dbname": "gone"}, True),
    "may not connect": ({"dbname": "closed"}, True),
    "port closed": ({"port": CLOSED_PORT}, False),
    "host unknown": ({"host": "nowhere.invalid"}, False),
    "wrong password": ({"password": "wrong"}, False),
    "no place for the role": ({"username": "other", "password": "of-the-other"}, False),
}


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
@pytest.mark.parametrize(("changes", "permanent"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_works_is_kept_and_the_rest_is_told_once(
    environment: Sandbox,
    secret: OwnSecret,
    administer: Callable[[str], None],
    other: str,
    driver: str,
    changes: dict[str, Any],
    *,
    permanent: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Trials become rare, every idle connection stays, and health says what only a person can mend."""
    closed = f"closed_{uuid.uuid4().hex}"
    if changes.get("dbname") == "closed":
        administer(f"CREATE DATABASE {closed}")
        administer(f"REVOKE CONNECT ON DATABASE {closed} FROM PUBLIC")
        changes = {"dbname": closed}
    if "username" in changes:
        changes = {**changes, "username": other}
    settings = Settings(database_secret_id=secret.name, redis_secret_id=None, refresh_interval_seconds=300)
    try:
        with client_of(driver, settings, pool_size=POOL) as client:
            fill_pool(client, POOL)
            before = {client.begin(pid) for _ in range(2 * POOL)}
            reads = secret.reads(environment)
            secret.put(**changes)
            client.db.look_now()

            def told() -> int:
                return sum(event_of(record) == "credentials.not_adopted" for record in caplog.records)

            caplog.set_level("DEBUG", logger="ledger_db.credentials")
            eventually(lambda: told() >= 3, "it is tried three times")
            assert secret.reads(environment) - reads <= 4
            levels = [r.levelname for r in caplog.records if event_of(r) == "credentials.not_adopted"]
            assert levels[:3] == ["WARNING", "DEBUG", "DEBUG"]
            assert {client.begin(pid) for _ in range(2 * POOL)} == before
            shown = client.db.health().servers[0].credentials
            assert shown.permanent == permanent
            assert "is not in use" in str(shown.problem)
            assert client.db.health().ok != permanent

            secret.put()
            client.db.look_now()
            eventually(lambda: client.db.health().servers[0].credentials.problem is None, "it is mended")
            assert client.db.health().ok
    finally:
        administer(f"DROP DATABASE IF EXISTS {closed}")


def test_a_pool_that_is_all_in_use_keeps_nobody_from_a_new_version(
    environment: Sandbox, secret: OwnSecret
) -> None:
    """It is tried beside the pool; once adopted, whoever comes next logs in with it."""
    settings = Settings(database_secret_id=secret.name, redis_secret_id=None, refresh_interval_seconds=300)
    with ConnectionManager(settings.model_copy(update={"pool_size": 1, "max_overflow": 0})) as db, db.begin():
        version = db.health().servers[0].credentials.version
        secret.put(application="other")
        db.look_now()

        eventually(lambda: db.health().servers[0].credentials.version != version, "it is adopted")


def test_a_role_with_no_place_for_a_trial_follows_its_rotation(
    environment: Sandbox, secret: OwnSecret, administer: Callable[[str], None]
) -> None:
    """All its places are ours, and that there is none comes after the password, which was accepted."""
    role = f"tight_{uuid.uuid4().hex}"
    administer(f"CREATE ROLE {role} LOGIN PASSWORD 'first' CONNECTION LIMIT 1")
    try:
        secret.put(username=role, password="first")
        settings = Settings(
            database_secret_id=secret.name, redis_secret_id=None, refresh_interval_seconds=300
        )
        with client_of("psycopg2", settings, pool_size=1, max_overflow=0) as client:
            client.begin(pid)
            version = client.db.health().servers[0].credentials.version
            administer(f"ALTER ROLE {role} PASSWORD 'second'")
            secret.put(username=role, password="second")
            client.db.look_now()

            eventually(lambda: client.db.health().servers[0].credentials.version != version, "it is adopted")
            assert client.begin(pid)
    finally:
        administer(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{role}'")
        administer(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    "changes", [{"port": CLOSED_PORT}, {"host": "nowhere.invalid"}, {"password": "wrong"}]
)
def test_of_redis_too(
    environment: Sandbox, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The same pauses, one warning, and the client goes on."""
    with own_copy(environment, environment.redis_secret_id) as secret:
        settings = Settings(
            database_secret_id=None, redis_secret_id=secret.name, refresh_interval_seconds=300
        )
        with ConnectionManager(settings) as db:
            own_id = db.redis.client_id()
            caplog.set_level("DEBUG", logger="ledger_db.credentials")
            secret.put(**changes)
            db.look_now()

            def levels() -> list[str]:
                return [r.levelname for r in caplog.records if event_of(r) == "credentials.not_adopted"]

            eventually(lambda: len(levels()) >= 3, "it is tried three times")
            assert levels()[:3] == ["WARNING", "DEBUG", "DEBUG"]
            assert db.redis.client_id() == own_id
            assert "is not in use" in str(db.health().servers[0].credentials.problem)
