"""When does a login prove that an application works: if a password is asked for, and as the application?"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from ledger_db.answers.secret import Secret
from ledger_db.answers.tls import TLS
from ledger_db.rotation import failures, postgres_login, redis_login
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.steps import STEPS
from ledger_db.sandbox import Sandbox
from tests.support.rotations import OWNER, Rotations, new_token, own_secret
from tests.support.waiting import eventually

STRATEGIES = ["postgres-single", "postgres-alternating", "postgres-alternating-clone"]
TIDY = f"REASSIGN OWNED BY CURRENT_USER TO {OWNER}"


@contextmanager
def trusting(rotations: Rotations) -> Iterator[None]:
    """Have the server let the roles of a secret in from here, whatever their password is."""
    file = Path(rotations.execute("SHOW hba_file")[0][0])
    rules = file.read_text()
    users = rotations.value()["users"]

    def lets_in() -> bool:
        try:
            rotations.box.postgres.connect(user=users[0], password="none of it").close()
        except psycopg2.OperationalError:
            return False
        return True

    def set_rules(text: str) -> None:
        # In place: the file keeps its owner, who is not always whoever runs this.
        with file.open("r+") as handle:
            handle.write(text)
            handle.truncate()
        rotations.execute("SELECT pg_reload_conf()")

    names = [*users, f"{users[0]}_clone"]
    set_rules("".join(f"host all {name} 127.0.0.1/32 trust\n" for name in names) + rules)
    try:
        eventually(lets_in, what="the rule")
        yield
    finally:
        set_rules(rules)
        eventually(lambda: not lets_in(), what="the rules of before")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("done", range(4))
def test_where_no_password_is_asked_for_no_step_is_done(
    environment: Sandbox, strategy: str, done: int
) -> None:
    """A login would succeed with anything, so it proves nothing: refused by name, and nothing moves."""
    with own_secret(environment, strategy) as rotations:
        if strategy != "postgres-single":
            rotations.run()  # both have a password
        before, token = rotations.labels()["AWSCURRENT"], new_token()
        for step in STEPS[:done]:
            rotations.step(step, token)
        with trusting(rotations):
            if done == 0:
                rotations.step("createSecret", token)  # which logs in nowhere
                done = 1
            with pytest.raises(failures.NoPasswordAsked, match="this address for no password") as refused:
                rotations.step(STEPS[done], token)
            with pytest.raises(failures.NoPasswordAsked):
                rotations.repair()
            probes = rotations.runner().examine(rotations.secret_id, Deadline.after(20.0)).probes

            assert "in pg_hba.conf scram-sha-256 instead of trust" in str(refused.value)
            assert "AWSCURRENT is unchanged" in str(refused.value)
            assert probes["AWSCURRENT"].outcome == "no_password"
            assert rotations.labels()["AWSCURRENT"] == before
        # And from where it is asked for, it goes on.
        rotations.run(token)
        assert rotations.logs_in()


def test_an_older_libpq_finds_out_by_a_password_that_is_wrong(
    environment: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver need not be able to insist on a password; that costs a second login."""
    monkeypatch.setattr(postgres_login, "_LIBPQ_INSISTS", False)
    with own_secret(environment, "postgres-single") as rotations:
        rotations.run()
        token = new_token()
        rotations.step("createSecret", token)
        with trusting(rotations), pytest.raises(failures.NoPasswordAsked, match="this address for no"):
            rotations.step("setSecret", token)
        rotations.run(token)
        assert rotations.logs_in()


@pytest.fixture
def checked(environment: Sandbox) -> Iterator[Callable[[Any], Rotations]]:
    """A secret whose application does something first."""
    with own_secret(environment, "postgres-alternating") as rotations:

        def with_check(statement: Any) -> Rotations:
            rotations.put(lambda value: {**value, "check": statement})
            return rotations

        yield with_check


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        # As an application is after its login: by ALTER ROLE ... SET role.
        f"SELECT 1 / (current_user = '{OWNER}')::int",
        "SELECT 1 / (current_setting('transaction_read_only') = 'on')::int",
        "SELECT 1 / (current_setting('statement_timeout') = '5s')::int",
        "SELECT '100%' LIKE '%'",
    ],
)
def test_the_statement_of_the_secret_is_tried_as_the_application(
    checked: Callable[[Any], Rotations], statement: str
) -> None:
    """With the role's own settings, in a transaction that reads only, within five seconds."""
    rotations = checked(statement)

    rotations.run()

    assert rotations.value()["check"] == statement


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("SELECT canary FROM missing", "42P01"),
        ("SELECT canary FROM", "42601"),
        ("CREATE TABLE canary ()", r"25006 \(cannot execute CREATE TABLE in a read-only transaction\)"),
        ("SELECT 1/0", "22012"),
        ("SELECT 'canary' FROM pg_authid", r"42501 \(permission denied for table pg_authid\)"),
        ("DO $$ BEGIN RAISE 'canary' USING ERRCODE = '42501'; END $$", "42501;"),
        ("DO $$ BEGIN RAISE 'canary' USING ERRCODE = '57P01'; END $$", "57P01;"),
        # Nothing gets out of the transaction that reads only, or has more time than the whole.
        ("COMMIT; CREATE TABLE canary ()", "0A000"),
        ("ROLLBACK", "0A000"),
        ("SET TRANSACTION READ WRITE", "25001"),
        ("SET LOCAL statement_timeout = 0; SELECT pg_sleep(60)", "57014"),
        ("COPY pg_class TO STDOUT", "0A000"),
        ("SELECT 1; SELECT 1/0", "22012"),
        ("$$; END; DO $$ SELECT 'canary", "42601"),
    ],
)
def test_a_statement_that_fails_is_a_failed_test(
    checked: Callable[[Any], Rotations], statement: str, sqlstate: str
) -> None:
    """AWSCURRENT stays; the message has the SQLSTATE, and not the statement, in which anything may be."""
    rotations, token = checked(statement), new_token()
    before = rotations.labels()["AWSCURRENT"]
    (told,) = rotations.runner().examine(rotations.secret_id, Deadline.after(20.0)).drift
    for step in STEPS[:2]:
        rotations.step(step, token)

    with pytest.raises(failures.CheckFailed, match=rf"'check' failed with SQLSTATE {sqlstate}") as failed:
        rotations.step("testSecret", token)

    assert "canary" not in str(failed.value)
    assert "field 'check' failed with SQLSTATE" in told
    assert told.endswith(": a rotation is refused")
    assert rotations.labels()["AWSCURRENT"] == before
    assert rotations.logs_in()


@pytest.mark.parametrize(
    "statement", ["", " ", 1, ["SELECT 1"], {"sql": "SELECT 1"}, True, "SELECT '\0'", "SELECT '\ud800'"]
)
def test_a_check_that_is_no_statement_is_refused(
    checked: Callable[[Any], Rotations], statement: object
) -> None:
    """Before there is a new version."""
    with pytest.raises(failures.SecretUnusable, match=r"'check' .*(a statement of SQL|NUL|whole characters)"):
        checked(statement).step("createSecret", new_token())


def test_a_check_is_given_five_seconds(checked: Callable[[Any], Rotations]) -> None:
    """A statement that hangs is a failed test, and does not use up the function's time."""
    rotations, token = checked("SELECT pg_sleep(60)"), new_token()
    for step in STEPS[:2]:
        rotations.step(step, token)
    began = time.monotonic()

    with pytest.raises(failures.CheckFailed, match="SQLSTATE 57014"):
        rotations.step("testSecret", token)
    assert time.monotonic() - began < 30


def test_a_redis_user_without_a_password_is_refused(environment: Sandbox) -> None:
    """With nopass any password logs in: no step counts it, and a dry run says so."""
    secret_id = environment.redis_secret_id
    with closing(environment.client()) as client:
        rotations = Rotations(environment, client, "redis-acl", secret_id)
        rotations.repair()
        admin: Any = environment.redis.connect()
        user, token = rotations.value()["username"], new_token()
        before = rotations.labels()["AWSCURRENT"]
        rotations.step("createSecret", token)
        known = admin.acl_getuser(user)["passwords"]
        admin.execute_command("ACL", "SETUSER", user, "nopass")
        try:
            with pytest.raises(failures.NoPasswordAsked, match="asks this user for no password"):
                rotations.step("setSecret", token)
            probes = rotations.runner().examine(secret_id, Deadline.after(20.0)).probes
        finally:
            hashes = [f"#{each}" for each in known]
            admin.execute_command("ACL", "SETUSER", user, "resetpass", *hashes)
            admin.close()

        assert probes["AWSCURRENT"].outcome == "no_password"
        assert rotations.labels()["AWSCURRENT"] == before
        rotations.run(token)


def test_a_redis_where_everybody_is_the_default_user_is_refused(environment: Sandbox) -> None:
    """It says that it has no password, in words that are no answer about the one that was sent."""
    server = environment.redis
    fields = {"engine": "redis", "host": server.host, "port": server.port, "password": "any"}
    secret = Secret("s", "v", {**fields, "username": "default"})
    admin: Any = server.connect()
    admin.execute_command("ACL", "SETUSER", "default", "on", "nopass", "+@all")
    try:
        probe = redis_login.probe(secret, redis_login.nodes_of(secret), TLS(), Deadline.after(20.0))
    finally:
        admin.execute_command("ACL", "SETUSER", "default", "reset")
        admin.close()

    assert probe.outcome == "no_password"
