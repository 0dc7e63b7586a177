"""Does rotation work on a real PostgreSQL: both strategies, drift, rollback, and who may be sent where?"""

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg2
import pytest

from ledger_db.rotation import failures, scram
from ledger_db.rotation.failures import StepFailed
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.runner import Findings
from ledger_db.rotation.steps import STEPS, Outcome
from ledger_db.sandbox import Sandbox
from tests.support.events import event_of, fields_of
from tests.support.rotations import OWNER, Rotations, new_client, new_token, own_secret
from tests.support.waiting import eventually

STRATEGIES = ["postgres-single", "postgres-alternating", "postgres-alternating-clone"]


@pytest.fixture
def single(environment: Sandbox) -> Iterator[Rotations]:
    """A secret whose one role changes its own password; nobody else could."""
    with own_secret(environment, "postgres-single", masterarn=None) as rotations:
        yield rotations


def examine(rotations: Rotations) -> Findings:
    """Do a dry run."""
    return rotations.runner().examine(rotations.secret_id, Deadline.after(20.0))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rotations_follow_each_other(environment: Sandbox, strategy: str) -> None:
    """Three in a row: AWSCURRENT logs in after each, and a version is of one user with one password."""
    with own_secret(environment, strategy) as rotations:
        for _ in range(3):
            before = rotations.value()
            version = rotations.run()

            assert rotations.labels()["AWSCURRENT"] == version
            assert rotations.logs_in()
            assert rotations.value()["password"] != before["password"]
            changed = {key for key in before if before[key] != rotations.value()[key]}
            assert changed <= {"username", "password"}


def test_the_old_user_of_a_pair_stays_good(pair: Rotations) -> None:
    """AWSCURRENT and AWSPREVIOUS both log in after an alternating rotation."""
    pair.run()

    assert pair.logs_in("AWSCURRENT")
    assert pair.logs_in("AWSPREVIOUS")


def test_current_logs_in_between_all_steps_of_a_pair(pair: Rotations) -> None:
    """There is no window in which only AWSPENDING is good."""
    token = new_token()
    for step in STEPS:
        pair.step(step, token)

        assert pair.logs_in()


@pytest.mark.parametrize("name", ["Ünï cödé", 'with "quotes"', "semi;colon--", "UPPER"])
def test_role_names_are_quoted(environment: Sandbox, name: str) -> None:
    """A role may be called anything."""
    user = f"{name} {uuid.uuid4().hex[:8]}"
    password = uuid.uuid4().hex
    with own_secret(environment, "postgres-single", username=user, password=password) as rotations:
        quoted = '"' + user.replace('"', '""') + '"'
        rotations.execute(f"CREATE ROLE {quoted} LOGIN PASSWORD '{password}'")

        rotations.run()

        assert rotations.logs_in()
        rotations.execute(f"DROP ROLE {quoted}")


def test_a_name_of_64_bytes_is_refused(environment: Sandbox) -> None:
    """PostgreSQL would cut it off, silently: 32 letters of two bytes each."""
    with (
        own_secret(environment, "postgres-single", username="ü" * 32) as rotations,
        pytest.raises(failures.SecretUnusable, match="more than 63 bytes"),
    ):
        rotations.step("createSecret", new_token())


def test_what_one_role_makes_the_other_can_use(pair: Rotations) -> None:
    """Everything belongs to the common owner, through any number of rotations."""
    table = f"made_{uuid.uuid4().hex[:8]}"
    pair.execute_as("AWSCURRENT", f"CREATE TABLE {table} AS SELECT 1 AS one")

    pair.run()
    assert pair.execute_as("AWSCURRENT", f"SELECT one FROM {table}") == [(1,)]
    pair.execute_as("AWSCURRENT", f"ALTER TABLE {table} ADD COLUMN two int")
    pair.run()
    pair.execute_as("AWSCURRENT", f"DROP TABLE {table}")


DRIFTS = [
    ("ALTER ROLE {a} SET search_path TO 'my schema', public, \"$user\"", "search_path"),
    ("ALTER ROLE {a} SET statement_timeout TO '17s'", "statement_timeout"),
    ("ALTER ROLE {a} IN DATABASE ledger SET work_mem TO '9MB'", "work_mem in database ledger"),
    ("ALTER ROLE {a} SET app.key TO 'quo''te'", "app.key"),
    ("ALTER ROLE {b} SET lock_timeout TO '3s'", "lock_timeout"),
    ("ALTER ROLE {a} CONNECTION LIMIT 17", "CONNECTION LIMIT -1, not 17"),
    ("ALTER ROLE {b} CONNECTION LIMIT 0", "CONNECTION LIMIT 0, not -1"),
    ("ALTER ROLE {b} VALID UNTIL '2001-01-01'", "VALID UNTIL"),
    ("ALTER ROLE {b} NOLOGIN", "LOGIN"),
    ("ALTER ROLE {b} NOINHERIT", "INHERIT"),
    ("GRANT pg_read_all_stats TO {a}", "no member of pg_read_all_stats"),
    ("REVOKE ledger_owner FROM {b}", "no member of ledger_owner"),
]


@pytest.mark.parametrize(("statement", "words"), DRIFTS)
def test_drift_is_found_and_mended(pair: Rotations, statement: str, words: str) -> None:
    """What somebody gave to one role by hand, the other has when its turn comes."""
    first, second = pair.value()["users"]
    pair.execute(statement.format(a=first, b=second))

    found = examine(pair).drift
    assert len(found) == 1
    assert words in found[0]

    pair.run()
    assert examine(pair).drift == ()
    assert pair.execute_as("AWSCURRENT", "SELECT current_user") == [(OWNER,)]


def test_a_search_path_keeps_its_elements(pair: Rotations) -> None:
    """A list is copied element by element, names with spaces and commas included."""
    first, _ = pair.value()["users"]
    pair.execute(f"""ALTER ROLE {first} SET search_path TO 'a b', public, "c,""d", "$user" """)
    before = pair.execute_as("AWSCURRENT", "SHOW search_path")

    pair.run()

    assert pair.execute_as("AWSCURRENT", "SHOW search_path") == before
    assert before[0][0].startswith('"a b", public')


def test_rights_that_are_too_many_are_told_and_kept(
    pair: Rotations, caplog: pytest.LogCaptureFixture
) -> None:
    """Taking a membership away is nothing for a rotation at night."""
    _, second = pair.value()["users"]
    pair.execute(f"GRANT pg_monitor TO {second}")

    pair.run()

    (record,) = [record for record in caplog.records if event_of(record) == "role.drift_left"]
    assert fields_of(record)["drift"] == [f"{second} is a member of pg_monitor, and the role in use is not"]


def test_the_value_of_a_setting_is_never_told(pair: Rotations, caplog: pytest.LogCaptureFixture) -> None:
    """A setting of one's own may be a secret."""
    first, _ = pair.value()["users"]
    pair.execute(f"ALTER ROLE {first} SET app.key TO 'hunter2'")

    told = repr(examine(pair))
    pair.run()

    assert "app.key" in told
    assert "hunter2" not in told + "".join(repr(record.__dict__) for record in caplog.records)


def test_a_missing_role_of_a_pair_is_named(pair: Rotations) -> None:
    """The pair is provisioned beforehand; nothing is made behind anybody's back."""
    _, second = pair.value()["users"]
    pair.execute(f"DROP ROLE {second}")
    token = new_token()
    pair.step("createSecret", token)

    with pytest.raises(failures.CheckFailed, match=f"role {second} does not exist"):
        pair.step("setSecret", token)


@pytest.mark.parametrize("users", [None, [], ["only one"], ["x", "y"], "text", [1, 2]])
def test_a_pair_that_is_none_is_refused(environment: Sandbox, users: object) -> None:
    """The message says what to add, or which strategy to choose instead."""
    with (
        own_secret(environment, "postgres-alternating", users=users) as rotations,
        pytest.raises(failures.SecretUnusable, match=r"'users' .*has to list two roles.*postgres-single"),
    ):
        rotations.step("createSecret", new_token())


def test_a_pair_without_an_administrator_is_refused(environment: Sandbox) -> None:
    """One role cannot set the other's password."""
    with (
        own_secret(environment, "postgres-alternating", masterarn=None) as rotations,
        pytest.raises(failures.SecretUnusable, match=r"'masterarn' .*is missing"),
    ):
        rotations.step("createSecret", new_token())


def pending_with(rotations: Rotations, **changes: Any) -> str:
    """Put an AWSPENDING of one's own, as an attacker would who may write the secret."""
    token = new_token()
    _, second = rotations.value()["users"]
    value = {**rotations.value(), "username": second, "password": "chosen by the attacker", **changes}
    rotations.client.put_secret_value(
        SecretId=rotations.secret_id,
        ClientRequestToken=token,
        SecretString=json.dumps(value),
        VersionStages=["AWSPENDING"],
    )
    return token


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"host": "evil.example"}, "host"),
        ({"port": 1}, "port"),
        ({"username": "postgres"}, "username"),
        ({"masterarn": "trust-ledger/redis"}, "masterarn"),
        ({"users": ["postgres", "x"]}, "users"),
    ],
)
def test_a_pending_version_cannot_lead_elsewhere(
    pair: Rotations, changes: dict[str, Any], field: str
) -> None:
    """Not to another server, another user or another administrator; and no login is tried."""
    token = pending_with(pair, **changes)

    with pytest.raises(failures.SecretUnusable, match=f"'{field}' in AWSPENDING"):
        pair.step("setSecret", token)


def test_an_administrator_acts_only_after_current_has_logged_in(pair: Rotations) -> None:
    """Who can write a secret but not log in cannot have a password set."""
    token = new_token()
    pair.step("createSecret", token)
    pair.execute(f"ALTER ROLE {pair.value()['username']} PASSWORD 'somebody changed it'")

    with pytest.raises(failures.PasswordRefused, match="neither AWSPENDING nor AWSCURRENT"):
        pair.step("setSecret", token)
    assert not pair.logs_in("AWSPENDING")


def test_an_administrator_of_another_server_is_refused(environment: Sandbox) -> None:
    """Its password goes to the server of its own secret only."""
    with own_secret(environment, "postgres-alternating") as rotations:
        admin = json.loads(
            rotations.client.get_secret_value(SecretId=environment.admin_secret_id)["SecretString"]
        )
        other = f"test/{uuid.uuid4().hex}"
        rotations.client.create_secret(
            Name=other, SecretString=json.dumps({**admin, "host": "other.example"})
        )
        rotations.put(lambda value: {**value, "masterarn": other})
        token = new_token()
        rotations.step("createSecret", token)

        with pytest.raises(failures.SecretUnusable, match="belongs to another server"):
            rotations.step("setSecret", token)


def test_an_application_is_not_its_own_administrator(pair: Rotations) -> None:
    """A secret that names itself as the administrator's gains nothing."""
    pair.put(lambda value: {**value, "masterarn": pair.secret_id})
    token = new_token()
    pair.step("createSecret", token)

    with pytest.raises(failures.SecretUnusable, match="a user of the application itself"):
        pair.step("setSecret", token)


def test_repair_restores_a_single_role_through_its_previous_password(single: Rotations) -> None:
    """The server was put back to an older password (a restored backup): AWSCURRENT is set again."""
    old = single.value()["password"]
    single.run()
    user = single.value()["username"]
    single.execute(f"ALTER ROLE {user} PASSWORD '{scram.verifier(old)}'")
    assert not single.logs_in()

    assert single.repair() == "restored"
    assert single.logs_in()


def test_repair_helps_a_role_that_may_not_change_its_password(environment: Sandbox) -> None:
    """It has every right that setSecret has: who logs in may not, and the administrator sets it."""
    with own_secret(environment, "postgres-single") as rotations:
        user = rotations.value()["username"]
        rotations.execute(f"ALTER ROLE {user} SET default_transaction_read_only TO on")
        rotations.put(lambda value: {**value, "password": "typed-by-hand-0"})
        assert rotations.logs_in("AWSPREVIOUS")

        assert rotations.repair() == "restored"
        assert rotations.logs_in()


def test_repair_finds_a_password_that_no_label_has(single: Rotations) -> None:
    """A rotation that died while another was begun may have left it on the server; AWS keeps the version."""
    token = new_token()
    single.step("createSecret", token)
    single.step("setSecret", token)
    single.client.update_secret_version_stage(
        SecretId=single.secret_id, VersionStage="AWSPENDING", RemoveFromVersionId=token
    )
    assert not single.logs_in()

    assert single.repair() == "restored"
    assert single.logs_in()


def test_repair_changes_nothing_on_a_server_of_before(environment: Sandbox) -> None:
    """A version for another host is no help, although it logs in there."""
    with own_secret(environment, "postgres-single", host="localhost", masterarn=None) as rotations:
        rotations.put(lambda value: {**value, "host": "127.0.0.1", "password": "typed-by-hand-0"})

        with pytest.raises(failures.PasswordRefused, match="no version of the secret logs in as"):
            rotations.repair()
        assert rotations.logs_in("AWSPREVIOUS")


@pytest.mark.parametrize("strategy", ["postgres-single", "postgres-alternating"])
def test_repair_restores_through_the_administrator(environment: Sandbox, strategy: str) -> None:
    """Nobody knows the password any more but the administrator can set it."""
    with own_secret(environment, strategy) as rotations:
        rotations.run()
        rotations.execute(f"ALTER ROLE {rotations.value()['username']} PASSWORD 'lost'")

        assert rotations.repair() == "restored"
        assert rotations.logs_in()


@pytest.mark.parametrize("strategy", ["postgres-single", "postgres-alternating"])
@pytest.mark.parametrize(
    ("done", "expected"),
    [(0, "nothing_to_do"), (1, "abandoned"), (2, "finished"), (3, "finished"), (4, "nothing_to_do")],
)
def test_repair_ends_what_stopped_after_any_step(
    environment: Sandbox, strategy: str, done: int, expected: str
) -> None:
    """Forward or back, and AWSCURRENT logs in."""
    with own_secret(environment, strategy) as rotations:
        token = new_token()
        for step in STEPS[:done]:
            rotations.step(step, token)

        assert rotations.repair() == expected
        assert rotations.logs_in()
        assert "AWSPENDING" not in rotations.labels()


def test_a_dry_run_changes_nothing(pair: Rotations) -> None:
    """It logs in with every version, says what it found, and leaves everything as it was."""
    pair.run()
    token = new_token()
    pair.step("createSecret", token)
    labels = pair.labels()

    findings = examine(pair)

    assert findings.strategy == "postgres-alternating"
    assert {label: probe.outcome for label, probe in findings.probes.items()} == {
        "AWSCURRENT": "ok",
        "AWSPREVIOUS": "ok",
        "AWSPENDING": "refused",
    }
    assert labels == pair.labels()


@pytest.mark.parametrize("strategy", ["postgres-single", "postgres-alternating"])
def test_passwords_of_people_can_be_rotated_away(environment: Sandbox, strategy: str) -> None:
    """A first password with any character in it is no obstacle."""
    password = "Pä$$ w'\"\\:@/%+#?ß\u00ad"
    with own_secret(environment, strategy, password=password) as rotations:
        first = rotations.value()["username"]
        rotations.execute(f"ALTER ROLE {first} PASSWORD %s", scram.verifier(password))
        assert rotations.logs_in()

        rotations.run()

        assert rotations.logs_in()


def test_the_verifier_is_what_the_server_would_make(single: Rotations) -> None:
    """A password that was set in clear and one that was set as a verifier log in alike."""
    user = single.value()["username"]
    for password in ("plain", "I\u00adX", "\u2168", "a\u00a0b", "\u0627\u0031"):
        for stored in (password, scram.verifier(password)):
            single.execute(f"ALTER ROLE {user} PASSWORD %s", stored)

            single.box.postgres.connect(user=user, password=password).close()
            with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
                single.box.postgres.connect(user=user, password="another")


def test_an_unknown_strategy_is_refused(pair: Rotations) -> None:
    """By the field of the secret that asks for it."""
    pair.put(lambda value: {**value, "strategy": "magic"})

    with pytest.raises(failures.SecretUnusable, match="'strategy'"):
        pair.run()


def test_a_secret_that_is_not_listed_is_refused(environment: Sandbox) -> None:
    """Whatever the event asks for."""
    with own_secret(environment, "postgres-single") as rotations:
        other = f"other/{uuid.uuid4().hex}"
        rotations.client.create_secret(Name=other, SecretString="{}")

        with pytest.raises(failures.SecretNotAllowed):
            Rotations(environment, rotations.client, "postgres-single", other).run()


def test_the_test_alone_works_on_a_real_server(pair: Rotations) -> None:
    """RotateImmediately=false: the current version is tested, nothing is changed."""
    assert pair.step("testSecret", new_token()) is Outcome.TESTED_CURRENT
    assert pair.labels().keys() == {"AWSCURRENT"}


@pytest.mark.parametrize("strategy", ["postgres-single", "postgres-alternating"])
def test_calls_at_the_same_time_do_no_harm(environment: Sandbox, strategy: str) -> None:
    """Four functions do the same rotation at once; whatever they get in each other's way, it ends well."""
    surprises: list[Exception] = []

    def rotate(rotations: Rotations, token: str) -> None:
        # A client of its own, as a process of its own would have.
        with closing(new_client(environment)) as client:
            try:
                rotations.run(token, runner=rotations.runner(client))
            except (failures.ServerNotReady, failures.NothingPending):
                pass
            except Exception as error:  # noqa: BLE001 - reported below, by the test's own thread
                surprises.append(error)

    with own_secret(environment, strategy) as made:
        # Whoever comes too late waits for an AWSPENDING that is gone.
        rotations = replace(made, visible_seconds=0.2)
        for _ in range(5):
            token = new_token()
            threads = [threading.Thread(target=rotate, args=(rotations, token)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rotations.run(token)

            assert rotations.labels().keys() == {"AWSCURRENT", "AWSPREVIOUS"}
            assert rotations.labels()["AWSCURRENT"] == token
            assert rotations.logs_in()
    assert surprises == []


def test_no_login_is_left_behind(pair: Rotations) -> None:
    """Every connection of a rotation is closed, those of failed steps too."""
    pair.run()
    with pytest.raises(StepFailed):
        pair.step("setSecret", new_token(), seconds=0.0)

    # A server process that has been told goodbye is still listed for a moment.
    sessions = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'ledger_db.rotation'"
    eventually(lambda: not pair.execute(sessions), "all sessions have ended")
