"""Does a sandbox give what it promises: three servers, seeded, that can be rotated, stopped and started?"""

import json
import threading
from pathlib import Path

import boto3.session
import psycopg2
import pytest
import redis
from botocore.exceptions import ClientError, EndpointConnectionError

from ledger_db.errors import ConfigurationError, ManagerClosed, RotationFailed, ServerUnreachable
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.rotate import Strategy
from ledger_db.stand_in.faults import access_denied, throttled
from tests.support.waiting import eventually


def secret(box: Sandbox, secret_id: str, stage: str = "AWSCURRENT") -> dict[str, object]:
    """Read a secret as an application does."""
    client = box.client()
    try:
        answer = client.get_secret_value(SecretId=secret_id, VersionStage=stage)
    finally:
        client.close()
    value: dict[str, object] = json.loads(answer["SecretString"])
    return value


def database_user(box: Sandbox, credentials: dict[str, object]) -> str:
    """Log in with *credentials* and tell as whom the session works."""
    connection = box.postgres.connect(user=credentials["username"], password=credentials["password"])
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT session_user || ' as ' || current_user")
            row = cursor.fetchone()
    finally:
        connection.close()
    assert row is not None
    return str(row[0])


def redis_user(box: Sandbox, credentials: dict[str, object]) -> str:
    """Log in with *credentials* and tell as whom."""
    client = box.redis.connect(username=credentials["username"], password=credentials["password"])
    try:
        return str(client.acl_whoami())
    finally:
        client.close()


def test_the_database_secret_logs_in(box: Sandbox) -> None:
    """What an application reads from the secret opens the ledger database, and works as its owner."""
    credentials = secret(box, box.database_secret_id)

    assert credentials["engine"] == "postgres"
    assert credentials["dbname"] == "ledger"
    assert database_user(box, credentials) == f"{credentials['username']} as ledger_owner"


def test_the_redis_secret_logs_in(box: Sandbox) -> None:
    """What an application reads from the secret opens Redis."""
    credentials = secret(box, box.redis_secret_id)

    assert credentials["engine"] == "redis"
    assert redis_user(box, credentials) == "ledger_app"


def test_the_admin_secret_is_the_superuser(box: Sandbox) -> None:
    """A rotation finds the superuser through the field that AWS's own rotation uses."""
    client = box.client()
    arn = client.describe_secret(SecretId=box.admin_secret_id)["ARN"]
    client.close()

    assert secret(box, box.database_secret_id)["masterarn"] == arn
    assert database_user(box, secret(box, box.admin_secret_id)) == "postgres as postgres"


def test_no_password_no_entry(box: Sandbox) -> None:
    """Neither server lets anybody in without a password, not even from the same machine."""
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        box.postgres.connect(password="wrong")
    nobody = box.redis.connect(username=None, password=None)
    with pytest.raises(redis.AuthenticationError):
        nobody.ping()
    nobody.close()


def test_the_environment_is_all_that_boto3_needs(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is configured by nothing but the environment reaches the secrets."""
    for name, value in box.environment.items():
        monkeypatch.setenv(name, value)
    client = boto3.session.Session().client("secretsmanager")
    answer = client.get_secret_value(SecretId=box.environment["LEDGER_DB_DATABASE_SECRET_ID"])
    client.close()

    assert answer["Name"] == "trust-ledger/postgres"


@pytest.mark.parametrize("strategy", ["single-user", "alternating-users"])
def test_after_a_rotation_the_new_credentials_log_in(box: Sandbox, strategy: Strategy) -> None:
    """AWSCURRENT is on the new version, opens the database, and AWSPENDING is gone."""
    before = secret(box, box.database_secret_id)
    version = box.rotate_database(strategy)
    after = secret(box, box.database_secret_id)
    client = box.client()
    labels = client.describe_secret(SecretId=box.database_secret_id)["VersionIdsToStages"]
    client.close()

    assert labels[version] == ["AWSCURRENT"]
    assert after["password"] != before["password"]
    assert (after["username"] == before["username"]) == (strategy == "single-user")
    assert database_user(box, after) == f"{after['username']} as ledger_owner"


def test_alternating_users_leaves_the_old_one_alone(box: Sandbox) -> None:
    """For one whole rotation the credentials before it stay valid."""
    before = secret(box, box.database_secret_id)
    box.rotate_database("alternating-users")

    assert database_user(box, before) == f"{before['username']} as ledger_owner"


def test_single_user_retires_the_old_password(box: Sandbox) -> None:
    """The old password is refused as soon as the rotation has changed the server."""
    before = secret(box, box.database_secret_id)
    box.rotate_database("single-user")

    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        database_user(box, before)


def test_redis_knows_two_passwords(box: Sandbox) -> None:
    """The password before a rotation stays valid until the next one, and not longer."""
    first = secret(box, box.redis_secret_id)
    box.rotate_redis()
    second = secret(box, box.redis_secret_id)

    assert [redis_user(box, first), redis_user(box, second)] == ["ledger_app", "ledger_app"]

    box.rotate_redis()

    with pytest.raises(redis.AuthenticationError):
        redis_user(box, first)


def test_both_roles_use_what_either_made(box: Sandbox) -> None:
    """A table that the application made before an alternating rotation is its own after it."""
    maker = secret(box, box.database_secret_id)
    connection = box.postgres.connect(user=maker["username"], password=maker["password"])
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS made_by_either; CREATE TABLE made_by_either (id int)")
    connection.close()
    box.rotate_database("alternating-users")
    user = secret(box, box.database_secret_id)
    connection = box.postgres.connect(user=user["username"], password=user["password"])
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE made_by_either ADD COLUMN name text; DROP TABLE made_by_either")
        done = cursor.statusmessage
    connection.close()

    assert done == "DROP TABLE"


def test_the_same_rotation_runs_within_its_window(box: Sandbox) -> None:
    """Between the change on the server and AWSCURRENT lies the window that was asked for."""
    before = secret(box, box.database_secret_id)
    rotation = threading.Thread(target=box.rotate_database, args=("single-user", 3.0))
    rotation.start()

    def refused() -> bool:
        try:
            database_user(box, before)
        except psycopg2.OperationalError:
            return True
        return False

    eventually(refused, "the old password is refused while the window is open")
    pending = secret(box, box.database_secret_id, "AWSPENDING")

    assert secret(box, box.database_secret_id) == before
    assert database_user(box, pending) == f"{pending['username']} as ledger_owner"

    rotation.join()

    assert secret(box, box.database_secret_id) == pending


def test_a_failed_rotation_says_what_is_true(own_box: Sandbox) -> None:
    """With the server down a rotation fails in setSecret, and the next one works."""
    own_box.postgres.stop()
    try:
        with pytest.raises(RotationFailed, match=r"setSecret of trust-ledger/postgres: .* nobody listens"):
            own_box.rotate_database()
    finally:
        own_box.postgres.start()
    own_box.rotate_database()

    assert database_user(own_box, secret(own_box, own_box.database_secret_id)).endswith("as ledger_owner")


@pytest.mark.parametrize("name", ["database_secret_id", "redis_secret_id"])
def test_rotate_secret_calls_the_rotation_function(own_box: Sandbox, name: str) -> None:
    """The function that goes to Lambda does AWS's four steps here when RotateSecret asks for it."""
    secret_id = getattr(own_box, name)
    before = secret(own_box, secret_id)
    client = own_box.client()
    version = client.rotate_secret(SecretId=secret_id, RotationLambdaARN=own_box.rotation_function_arn)[
        "VersionId"
    ]

    def labels() -> list[str]:
        return client.describe_secret(SecretId=secret_id)["VersionIdsToStages"][version]

    eventually(lambda: labels() == ["AWSCURRENT"], "the rotation ends")
    client.close()
    after = secret(own_box, secret_id)

    assert after["password"] != before["password"]
    who = database_user if after["engine"] == "postgres" else redis_user
    assert who(own_box, after).startswith(str(after["username"]))


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_postgres_comes_back_with_its_data(own_box: Sandbox, ending: str) -> None:
    """After an orderly stop or a crash the server is back on its port with what was committed."""
    connection = own_box.postgres.connect()
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE survives_{ending} AS SELECT 42 AS answer")
    connection.close()
    getattr(own_box.postgres, ending)()
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        own_box.postgres.connect()
    own_box.postgres.start()
    connection = own_box.postgres.connect()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT answer FROM survives_{ending}")
        row = cursor.fetchone()
    connection.close()

    assert row == (42,)


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_redis_comes_back_with_its_data(own_box: Sandbox, ending: str) -> None:
    """After an orderly stop or a crash the server has its keys, and its newest password."""
    own_box.rotate_redis()
    client = own_box.redis.connect()
    client.set("survives", ending)
    client.close()
    getattr(own_box.redis, ending)()
    client = own_box.redis.connect()
    with pytest.raises(redis.ConnectionError, match="refused"):
        client.ping()
    client.close()
    own_box.redis.start()
    client = own_box.redis.connect()
    found = client.get("survives")
    client.close()

    assert found == ending
    assert redis_user(own_box, secret(own_box, own_box.redis_secret_id)) == "ledger_app"


def test_secrets_manager_comes_back_with_its_secrets(own_box: Sandbox) -> None:
    """While it is stopped connections are refused; afterwards every secret is there."""
    before = secret(own_box, own_box.database_secret_id)
    own_box.secrets_manager.stop()
    with pytest.raises(EndpointConnectionError):
        secret(own_box, own_box.database_secret_id)
    own_box.secrets_manager.start()

    assert secret(own_box, own_box.database_secret_id) == before


def test_faults_are_injected_and_cleared(own_box: Sandbox) -> None:
    """A fault hits the requests that it names until it is used up or cleared."""
    own_box.secrets_manager.inject(throttled("DescribeSecret"))
    own_box.secrets_manager.inject(access_denied("GetSecretValue", stage="AWSCURRENT"))
    with pytest.raises(ClientError, match="AccessDeniedException"):
        secret(own_box, own_box.database_secret_id)
    own_box.secrets_manager.clear_faults()
    calls = own_box.secrets_manager.calls()["GetSecretValue"]
    secret(own_box, own_box.database_secret_id)

    assert own_box.secrets_manager.calls()["GetSecretValue"] == calls + 1


def test_starting_what_runs_changes_nothing(own_box: Sandbox) -> None:
    """Starting a running server and stopping a stopped one are no errors."""
    own_box.postgres.start()
    own_box.redis.start()
    own_box.secrets_manager.start()
    own_box.redis.stop()
    own_box.redis.stop()
    own_box.redis.start()

    assert redis_user(own_box, secret(own_box, own_box.redis_secret_id)) == "ledger_app"


def test_before_the_start_there_is_nothing_to_use() -> None:
    """Using a sandbox outside of its with block says so."""
    with pytest.raises(ManagerClosed, match="use it in a with block"):
        _ = Sandbox().postgres


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, passable_path: Path) -> None:
    """A wrong LEDGER_DB_PG_BIN or LEDGER_DB_REDIS_BIN fails at once, and the message names the setting."""
    monkeypatch.setenv("LEDGER_DB_PG_BIN", str(passable_path))
    with pytest.raises(ConfigurationError, match=r"LEDGER_DB_PG_BIN is .* no initdb in it"):
        Sandbox().start()
    monkeypatch.delenv("LEDGER_DB_PG_BIN")
    monkeypatch.setenv("LEDGER_DB_REDIS_BIN", "no-such-program")
    with pytest.raises(ConfigurationError, match="LEDGER_DB_REDIS_BIN is no-such-program"):
        Sandbox().start()


@pytest.mark.parametrize(
    ("setting", "server"), [("LEDGER_DB_REDIS_BIN", "Valkey"), ("LEDGER_DB_PG_BIN", "initdb")]
)
def test_a_server_that_does_not_start_tells_why(
    monkeypatch: pytest.MonkeyPatch, passable_path: Path, setting: str, server: str
) -> None:
    """The message has the last words of the program that failed, and nothing is left of the others."""
    for name in ("initdb", "postgres", "redis-server"):
        (passable_path / name).write_text("#!/bin/sh\necho it hurts here >&2\nexit 3\n")
        (passable_path / name).chmod(0o755)
    (passable_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(passable_path / "tmp"))
    program = passable_path if setting == "LEDGER_DB_PG_BIN" else passable_path / "redis-server"
    monkeypatch.setenv(setting, str(program))
    with pytest.raises(ServerUnreachable, match=f"{server} ended with status 3.* it hurts here"):
        Sandbox().start()

    assert list((passable_path / "tmp").iterdir()) == []
