"""Does a rotation get on with servers, roles and databases that are set up in their own way?"""

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psycopg2
import pytest

from ledger_db.answers.postgres_translations import TRANSLATIONS
from ledger_db.answers.secret import Secret
from ledger_db.answers.tls import TLS
from ledger_db.rotation import failures, postgres_login
from ledger_db.rotation.postgres import PostgresSingleRotator
from ledger_db.rotation.postgres_login import RoleIsFull, session
from ledger_db.rotation.protocol import Deadline, ServerProblem, Tools
from ledger_db.sandbox import Sandbox
from tests.support.endpoint import HOST
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres_front import OldPostgres, RefusingPostgres
from tests.support.replica import Pair
from tests.support.rotations import OWNER, Rotations, new_token, own_secret

BOTH = ["postgres-single", "postgres-alternating"]

# What an administrator sets for people who only read, or to keep an application from harm.
SETTINGS = {
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "role": OWNER,
    "search_path": "nobody_has_this",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "password_encryption": "md5",
    "session_replication_role": "replica",
    "DateStyle": "German",
    # The hook of PostgreSQL's own: it asks a verifier only whether it is that of the role's name.
    "session_preload_libraries": "passwordcheck",
}
# Over before a second message arrives.
CLOCKS = ["statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout", "lock_timeout"]


def new_password_set(rotations: Rotations) -> bool:
    """Do the first two steps, and say whether AWSPENDING logs in."""
    token = new_token()
    for step in ("createSecret", "setSecret"):
        rotations.step(step, token)
    return rotations.logs_in("AWSPENDING")


def failing(rotations: Rotations, expected: type[failures.StepFailed]) -> str:
    """Run into it, and return what a person reads."""
    token = new_token()
    rotations.step("createSecret", token)
    with pytest.raises(expected) as failed:
        rotations.step("setSecret", token)
    assert rotations.logs_in()
    return str(failed.value)


@contextmanager
def administrator(box: Sandbox, **fields: Any) -> Iterator[str]:
    """Make a secret for the sandbox's administrator with other *fields*, and return its name."""
    with closing(box.client()) as client:
        value = json.loads(client.get_secret_value(SecretId=box.admin_secret_id)["SecretString"])
        name = f"test/{uuid.uuid4().hex}"
        client.create_secret(Name=name, SecretString=json.dumps({**value, **fields}))
        yield name


@pytest.mark.parametrize(("setting", "value"), SETTINGS.items())
def test_what_a_role_has_set_is_no_obstacle(environment: Sandbox, setting: str, value: str) -> None:
    """It changes its own password whatever its defaults are, and is repaired as well."""
    with own_secret(environment, "postgres-single", masterarn=None) as rotations:
        rotations.execute(f"ALTER ROLE {rotations.value()['username']} SET {setting} = '{value}'")
        rotations.run()

        assert rotations.logs_in()
        rotations.put(lambda given: {**given, "password": "typed-by-somebody-0"})
        assert rotations.repair() == "restored"
        assert rotations.logs_in()


@pytest.mark.parametrize("setting", CLOCKS)
def test_no_clock_of_a_role_ends_the_change(environment: Sandbox, setting: str) -> None:
    """A millisecond for an application is not one for its rotation."""
    with own_secret(environment, "postgres-single", masterarn=None) as rotations:
        if not rotations.execute("SELECT 1 FROM pg_settings WHERE name = %s", setting):
            pytest.skip(f"this PostgreSQL has no {setting}")
        rotations.execute(f"ALTER ROLE {rotations.value()['username']} SET {setting} = '1ms'")

        assert new_password_set(rotations)


@pytest.mark.parametrize("strategy", BOTH)
def test_a_database_for_reading_is_no_obstacle(environment: Sandbox, strategy: str) -> None:
    """Its default holds for the administrator too, and for a dry run."""
    name = f"quiet_{uuid.uuid4().hex[:8]}"
    with closing(environment.postgres.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {name} OWNER {OWNER}")
        cursor.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with own_secret(environment, strategy, dbname=name) as rotations:
            rotations.run()

            assert rotations.logs_in()
            assert not rotations.runner().examine(rotations.secret_id, Deadline.after(20.0)).drift
        cursor.execute(f"DROP DATABASE {name}")


def test_nothing_that_is_set_outlasts_the_transaction(environment: Sandbox) -> None:
    """A pooler hands the session on to an application, which wants its own path and role."""
    with own_secret(environment, "postgres-single", masterarn=None) as rotations:
        secret = Secret("s", "v", rotations.value())
        with session(secret, TLS(), Deadline.after(10.0), writes=True) as cursor:
            cursor.execute("COMMIT")
            cursor.execute("SELECT current_setting('search_path'), current_user::text")
            found = cursor.fetchone()

    assert found == ('"$user", public', OWNER)


def test_a_standby_is_called_one(both: Pair) -> None:
    """It is not the role's fault, and no right would help."""
    both.execute("CREATE ROLE at_standby LOGIN PASSWORD 'first'")
    both.execute("SELECT pg_current_wal_lsn()")
    values = {"host": HOST, "username": "at_standby", "password": "first", "dbname": "postgres"}
    secret = Secret("app/db", "v", {**values, "port": both.standby.port})
    rotator = PostgresSingleRotator(Tools(read_secret=_nobody, client=_nobody))
    _wait_for_login(rotator, secret)

    with pytest.raises(ServerProblem, match="is a standby, which takes no writes") as failed:
        rotator.apply(secret, secret, Deadline.after(20.0))
    both.execute("DROP ROLE at_standby")
    assert failed.value.is_untouched


@pytest.mark.parametrize("strategy", BOTH)
def test_a_server_that_keeps_md5_takes_verifiers(own_box: Sandbox, strategy: str) -> None:
    """Where passwords are hashed as they were before SCRAM, the next one is better and works."""
    with closing(own_box.postgres.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("ALTER SYSTEM SET password_encryption = 'md5'")
        cursor.execute("SHOW hba_file")
        (file,) = cursor.fetchone()
        cursor.execute(f"COPY (SELECT 'host all all all md5') TO '{file}'")
        cursor.execute("SELECT pg_reload_conf()")
    with own_secret(own_box, strategy) as rotations:
        first = rotations.value()["username"]
        rotations.execute(f"ALTER ROLE {first} PASSWORD '{rotations.value()['password']}'")
        stored = "SELECT left(rolpassword, 3) FROM pg_authid WHERE rolname = %s"
        assert rotations.execute(stored, first) == [("md5",)]
        rotations.run()

        assert rotations.logs_in()
        assert rotations.execute(stored, rotations.value()["username"]) == [("SCR",)]


def test_a_server_before_scram_is_refused(environment: Sandbox) -> None:
    """It would take the verifier for the password, and nobody could log in any more."""
    with (
        OldPostgres(environment.postgres.host, environment.postgres.port) as front,
        own_secret(environment, "postgres-single", masterarn=None, port=front.port) as rotations,
    ):
        message = failing(rotations, failures.ServerOdd)

    assert "it is older than PostgreSQL 10" in message
    assert "; nothing was written to the server; " in message


def test_a_hook_that_wants_to_see_passwords_is_told(environment: Sandbox) -> None:
    """Its own sentence, what it was sent, and what lets it take that."""
    host, port = environment.postgres.host, environment.postgres.port
    with (
        RefusingPostgres(host, port, sqlstate="22023", sentence="password is not plain") as front,
        own_secret(environment, "postgres-single", masterarn=None, port=front.port) as rotations,
    ):
        message = failing(rotations, failures.ServerOdd)

    assert "does not take the new password of role test_" in message
    assert "(SQLSTATE 22023: password is not plain); nothing was written to the server" in message
    assert "SCRAM verifier" in message


@pytest.mark.parametrize("named", [True, False])
def test_a_role_that_may_not_change_its_own_password(environment: Sandbox, *, named: bool) -> None:
    """As on RDS with rds.restrict_password_commands: the administrator does it, or is asked for."""
    host, port = environment.postgres.host, environment.postgres.port
    refusal = {"sqlstate": "42501", "sentence": "must be a member of rds_password to alter passwords"}
    with ExitStack() as stack:
        front = stack.enter_context(RefusingPostgres(host, port, **refusal))
        admin = stack.enter_context(administrator(environment, hosts=[f"{host}:{front.port}"]))
        fields = {"masterarn": admin if named else None, "port": front.port}
        rotations = stack.enter_context(own_secret(environment, "postgres-single", **fields))
        if not named:
            message = failing(rotations, failures.ActionForbidden)
            assert "(must be a member of rds_password to alter passwords); nothing was written" in message
            assert "name an administrator's secret in 'masterarn'" in message
            return
        rotations.run()

        assert rotations.logs_in()
        rotations.put(lambda given: {**given, "password": "typed-by-somebody-0"})
        assert rotations.repair() == "restored"
        assert rotations.logs_in()
        assert front.refused == 2


@pytest.mark.parametrize("strategy", BOTH)
def test_a_pool_that_uses_up_its_role_is_no_obstacle(environment: Sandbox, strategy: str) -> None:
    """The password is known to be right, and the administrator needs no login of the role."""
    with own_secret(environment, strategy) as rotations:
        value = rotations.value()
        rotations.execute(f"ALTER ROLE {value['username']} CONNECTION LIMIT 1")
        with closing(_login(rotations, value)):
            rotations.run()

        assert rotations.logs_in()


def test_a_pool_that_uses_up_its_role_is_told(environment: Sandbox) -> None:
    """With nobody to go round it, the message says what is in the way and what would help."""
    with own_secret(environment, "postgres-single", masterarn=None) as rotations:
        value = rotations.value()
        rotations.execute(f"ALTER ROLE {value['username']} CONNECTION LIMIT 1")
        application = _login(rotations, value)
        token = new_token()
        rotations.step("createSecret", token)
        with closing(application):
            looked = rotations.runner().examine(rotations.secret_id, Deadline.after(20.0))
            with pytest.raises(failures.ConnectionsExhausted) as failed:
                rotations.step("setSecret", token)

        assert not looked.probes["AWSCURRENT"].ok

        assert "the role has as many connections as it may have; nothing was written" in str(failed.value)
        assert "'masterarn'" in str(failed.value)
        assert rotations.logs_in()


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize("strategy", BOTH)
def test_a_pooler_may_stand_before_the_server(environment: Sandbox, strategy: str, mode: str) -> None:
    """Where the administrator's secret says so; who gets the session next finds nothing set in it."""
    with ExitStack() as stack:
        pooler = stack.enter_context(pgbouncer(environment, mode, default_pool_size=1))
        admin = stack.enter_context(administrator(environment, hosts=[f"127.0.0.1:{pooler.port}"]))
        fields = {"masterarn": admin, "port": pooler.port}
        rotations = stack.enter_context(own_secret(environment, strategy, **fields))
        rotations.run()
        value = rotations.value()
        login = {"user": value["username"], "password": value["password"]}
        connection = stack.enter_context(
            closing(psycopg2.connect(host="127.0.0.1", port=pooler.port, dbname=value["dbname"], **login))
        )
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('search_path'), current_setting('lock_timeout')")

            assert cursor.fetchone() == ('"$user", public', "0")


@pytest.mark.parametrize("strategy", BOTH)
def test_a_rotation_goes_past_a_proxy_of_rds(environment: Sandbox, strategy: str) -> None:
    """Services go on to name it; all that a rotation does is done at the server behind it, a repair too."""
    proxy = "pool.proxy-abc.us-east-1.rds.amazonaws.com"
    with (
        administrator(environment, hosts=[f"{proxy}:5432"]) as admin,
        own_secret(environment, strategy, masterarn=admin, host=proxy, port=5432) as rotations,
    ):
        rotations.run()

        assert rotations.logs_in()
        assert rotations.value()["host"] == proxy
        rotations.put(lambda given: {**given, "password": "typed-by-somebody-0"})
        assert rotations.repair() == "restored"
        assert rotations.logs_in()


@pytest.mark.parametrize("sentence", TRANSLATIONS['too many connections for role "%s"'])
def test_a_role_that_is_full_is_one_in_every_language(sentence: str) -> None:
    """libpq gives no SQLSTATE for a login that failed."""
    error = psycopg2.OperationalError(f"FATAL:  {sentence % 'app'}")
    secret = Secret("app/db", "v", {"host": "db.example", "username": "app", "masterarn": "m"})

    assert isinstance(postgres_login._failed_login(error, secret, TLS(), but=None), RoleIsFull)


def _login(rotations: Rotations, value: dict[str, Any]) -> Any:
    return rotations.box.postgres.connect(user=value["username"], password=value["password"])


def _nobody(name: str) -> Any:
    raise AssertionError(f"{name} was asked for")


def _wait_for_login(rotator: PostgresSingleRotator, secret: Secret) -> None:
    deadline = Deadline.after(20.0)
    while not rotator.probe(secret, deadline).ok:
        deadline.wait_seconds(0.1, what="the standby to know the role", at_least=0.1)
