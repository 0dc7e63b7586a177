"""Which differences between the roles of a pair are mended, which stop a rotation, and what says so?"""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from ledger_db.rotation import failures
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.steps import STEPS
from ledger_db.sandbox import Sandbox
from tests.support.events import event_of, fields_of
from tests.support.rotations import OWNER, Rotations, new_token, own_secret


class Difference(NamedTuple):
    """
    One difference, and what is to come of it.

    Attributes:
        made: The statement that makes it; {a} is the role in use, {b} the other one, {s} a schema with a
            table t, a sequence n, a function f, a procedure p and a type e.

        words: What a dry run says of it.
    """

    made: str
    words: str


_RESET = "ALTER ROLE {a} RESET ROLE; ALTER ROLE {b} RESET ROLE; "

MENDED = [
    Difference("GRANT SELECT ON {s}.t TO {a}", "{b} may not SELECT on TABLE {s}.t"),
    Difference("GRANT INSERT ON {s}.t TO {a} WITH GRANT OPTION", "INSERT on TABLE {s}.t, with grant option"),
    Difference("GRANT UPDATE (x) ON {s}.t TO {a}", "{b} may not UPDATE (x) on TABLE {s}.t"),
    Difference("GRANT USAGE ON SEQUENCE {s}.n TO {a}", "{b} may not USAGE on SEQUENCE {s}.n"),
    Difference("GRANT EXECUTE ON FUNCTION {s}.f TO {a}", "{b} may not EXECUTE on ROUTINE {s}.f(integer)"),
    Difference("GRANT EXECUTE ON PROCEDURE {s}.p TO {a}", "{b} may not EXECUTE on ROUTINE {s}.p()"),
    Difference("GRANT USAGE ON TYPE {s}.e TO {a}", "{b} may not USAGE on TYPE {s}.e"),
    Difference("GRANT USAGE ON SCHEMA {s} TO {a}", "{b} may not USAGE on SCHEMA {s}"),
    Difference("GRANT CREATE ON DATABASE postgres TO {a}", "{b} may not CREATE on DATABASE postgres"),
    Difference("GRANT SET ON PARAMETER log_statement TO {a}", "{b} may not SET on PARAMETER log_statement"),
    Difference("ALTER DEFAULT PRIVILEGES IN SCHEMA {s} GRANT SELECT ON TABLES TO {a}", "SELECT on TABLES"),
    Difference("ALTER ROLE {a} CREATEDB", "{b} has not CREATEDB"),
    Difference("ALTER ROLE {a} BYPASSRLS", "{b} has not BYPASSRLS"),
    Difference("ALTER ROLE {b} BYPASSRLS", "{b} has not NOBYPASSRLS"),
    Difference("GRANT pg_monitor TO {a} WITH ADMIN OPTION", "{b} is no member of pg_monitor"),
    Difference(
        "GRANT pg_monitor TO {a}, {b}; GRANT pg_monitor TO {a} WITH ADMIN OPTION",
        "{b} is a member of pg_monitor with other options",
    ),
]
REFUSED = [
    Difference("ALTER TABLE {s}.t OWNER TO {a}", "{a} owns table {s}.t, and {b} is no member of it"),
    Difference("ALTER FUNCTION {s}.f OWNER TO {a}", "{a} owns function {s}.f(integer)"),
    Difference("ALTER SCHEMA {s} OWNER TO {a}", "{a} owns schema {s}"),
    Difference("CREATE POLICY o ON {s}.t TO {a} USING (true)", "policy o on table {s}.t is for {a} and not"),
    Difference(
        "CREATE POLICY o ON {s}.t AS RESTRICTIVE TO {b} USING (false)",
        "policy o on table {s}.t is for {b} and not for {a}",
    ),
    Difference(_RESET + "CREATE SCHEMA {a}", 'leads to schema {a}, by "$user"'),
    Difference("ALTER ROLE {a} SUPERUSER", "{b} has not SUPERUSER"),
    Difference("ALTER ROLE {a} CREATEROLE", "{b} has not CREATEROLE"),
    Difference("ALTER ROLE {a} REPLICATION", "{b} has not REPLICATION"),
    Difference(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {a} IN SCHEMA {s} GRANT SELECT ON TABLES TO pg_monitor",
        "the default privileges of {a} are not those of {b}",
    ),
    Difference(
        "CREATE FOREIGN DATA WRAPPER {s}; CREATE SERVER {s} FOREIGN DATA WRAPPER {s};"
        " CREATE USER MAPPING FOR {a} SERVER {s}",
        "{a} has a user mapping on server {s}, and {b} has none",
    ),
]
KEPT = [
    Difference("GRANT DELETE ON {s}.t TO {b}", "{a} may not DELETE on TABLE {s}.t"),
    Difference("GRANT pg_monitor TO {b}", "{b} is a member of pg_monitor, and the role in use is not"),
    Difference("ALTER TABLE {s}.t OWNER TO {b}", "{b} owns table {s}.t, and {a} is no member of it"),
    Difference("ALTER ROLE {b} CREATEROLE", "{b} has not NOCREATEROLE"),
    Difference(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {b} GRANT SELECT ON TABLES TO pg_monitor",
        "the default privileges of {a} are not those of {b}",
    ),
]
NONE = [
    "GRANT SELECT ON {s}.t TO {owner}, {a}",
    "GRANT SELECT ON {s}.t TO PUBLIC, {a}",
    "CREATE POLICY o ON {s}.t TO {owner}, {a} USING (true)",
    "ALTER TABLE {s}.t OWNER TO {owner}",
    "GRANT UPDATE ON {s}.t TO {b}; GRANT UPDATE (x) ON {s}.t TO {b}; GRANT UPDATE ON {s}.t TO {a}",
    "ALTER TABLE {s}.t OWNER TO {owner}; GRANT UPDATE (x) ON {s}.t TO {a}",
    "GRANT pg_monitor TO {owner}; GRANT pg_monitor TO {a}",
    _RESET + "CREATE SCHEMA {a}; CREATE SCHEMA {b}",
    (
        "ALTER DEFAULT PRIVILEGES FOR ROLE {a} GRANT SELECT ON TABLES TO {b};"
        " ALTER DEFAULT PRIVILEGES FOR ROLE {b} GRANT SELECT ON TABLES TO {a}"
    ),
]


class World(NamedTuple):
    """A pair, and a schema with something of each kind."""

    pair: Rotations
    schema: str

    def named(self, words: str) -> str:
        """Put the names into *words*."""
        first, second = self.pair.value()["users"]
        return words.format(a=first, b=second, s=self.schema, owner=OWNER)

    def drift(self) -> tuple[str, ...]:
        """Do a dry run."""
        return self.pair.runner().examine(self.pair.secret_id, Deadline.after(20.0)).drift


@pytest.fixture
def world(environment: Sandbox) -> Iterator[World]:
    """Two roles that are alike."""
    with own_secret(environment, "postgres-alternating") as pair:
        first, second = pair.value()["users"]
        schema = f"s_{first}"
        pair.execute(
            f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.t (x int); CREATE SEQUENCE {schema}.n;"
            f" CREATE FUNCTION {schema}.f(x int) RETURNS int LANGUAGE sql AS 'SELECT 1';"
            f" CREATE PROCEDURE {schema}.p() LANGUAGE sql AS 'SELECT 1';"
            f" CREATE TYPE {schema}.e AS ENUM ('e');"
            f" REVOKE ALL ON FUNCTION {schema}.f FROM PUBLIC; REVOKE ALL ON PROCEDURE {schema}.p FROM PUBLIC;"
            f" REVOKE ALL ON TYPE {schema}.e FROM PUBLIC"
        )
        yield World(pair, schema)
        pair.execute(f"DROP SERVER IF EXISTS {schema} CASCADE; DROP FOREIGN DATA WRAPPER IF EXISTS {schema}")
        pair.execute(f"REVOKE pg_monitor FROM {OWNER}; DROP SCHEMA IF EXISTS {schema} CASCADE")
        # One by one: together it looks twice for default privileges that name both.
        pair.execute(f"DROP OWNED BY {first} CASCADE")
        pair.execute(f"DROP OWNED BY {second} CASCADE")


@pytest.mark.parametrize("one", MENDED, ids=lambda one: one.made)
def test_what_can_be_granted_is_granted(world: World, one: Difference) -> None:
    """The application may as one role what it may as the other; a dry run says that it is going to."""
    world.pair.execute(world.named(one.made))

    (told,) = world.drift()
    assert world.named(one.words) in told
    assert told.endswith(": a rotation mends that")
    # Which changed nothing.
    assert world.drift() == (told,)

    world.pair.run()
    assert world.drift() == ()


@pytest.mark.parametrize("one", REFUSED, ids=lambda one: one.made)
def test_what_cannot_be_made_equal_stops_the_rotation(world: World, one: Difference) -> None:
    """Before AWSCURRENT moves and before anything is written; a dry run says it as well."""
    world.pair.execute(world.named(one.made))
    token = new_token()

    (told,) = world.drift()
    assert world.named(one.words) in told
    assert told.endswith(": a rotation is refused")

    world.pair.step("createSecret", token)
    with pytest.raises(failures.CheckFailed) as refused:
        world.pair.step("setSecret", token)
    assert world.named(one.words) in str(refused.value)
    assert "nothing was written to the server; AWSCURRENT is unchanged" in str(refused.value)
    assert world.pair.logs_in("AWSCURRENT")
    assert not world.pair.logs_in("AWSPENDING")
    assert world.pair.repair() == "abandoned"


@pytest.mark.parametrize("one", KEPT, ids=lambda one: one.made)
def test_what_the_other_role_has_more_is_told_and_kept(
    world: World, one: Difference, caplog: pytest.LogCaptureFixture
) -> None:
    """To take something away is nothing for a rotation at night."""
    world.pair.execute(world.named(one.made))

    (told,) = world.drift()
    assert told == f"{world.named(one.words)}: it stays so"

    world.pair.run()
    (record,) = [record for record in caplog.records if event_of(record) == "role.drift_left"]
    assert fields_of(record)["drift"] == [world.named(one.words)]


@pytest.mark.parametrize("statement", NONE)
def test_what_both_have_in_one_way_or_another_is_equal(world: World, statement: str) -> None:
    """A right counts, and not by whom or through what it was given."""
    world.pair.execute(world.named(statement))

    assert world.drift() == ()


def test_a_long_list_of_differences_is_cut(world: World) -> None:
    """A log line has an end; the dry run has all of them."""
    for number in range(25):
        world.pair.execute(
            world.named(f"CREATE TABLE {{s}}.t{number} (); ALTER TABLE {{s}}.t{number} OWNER TO {{a}}")
        )
    token = new_token()
    world.pair.step("createSecret", token)

    with pytest.raises(failures.CheckFailed, match="; and 15 more; nothing was written"):
        world.pair.step("setSecret", token)
    assert len(world.drift()) == 25


def test_another_database_is_told_as_not_looked_into(world: World) -> None:
    """What is there cannot be seen from here: a number is, and is a warning."""
    first, _ = world.pair.value()["users"]
    connection = world.pair.box.postgres.connect()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {world.schema}")
    with (
        world.pair.box.postgres.connect(dbname=world.schema) as there,
        there.cursor() as cursor,
    ):
        cursor.execute(f"CREATE TABLE owned (); ALTER TABLE owned OWNER TO {first}")
    there.close()

    (told,) = world.drift()
    assert told.startswith(f"{world.schema} is a database that this did not look into")
    assert told.endswith(": it stays so")

    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {world.schema}")
    connection.close()


def test_ten_thousand_rights_are_granted_in_a_few_messages(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A pair with many tables has no longer rotation to fear, and no longer line in the log."""
    world.pair.execute(
        world.named(
            "DO $$ BEGIN FOR i IN 1..2000 LOOP EXECUTE format('CREATE TABLE {s}.m%s ()', i); END LOOP; END $$"
        )
    )
    world.pair.execute(world.named("GRANT SELECT ON ALL TABLES IN SCHEMA {s} TO {a}"))

    world.pair.run()

    assert world.drift() == ()
    (record,) = [record for record in caplog.records if event_of(record) == "role.drift_mended"]
    assert fields_of(record)["drift"][-1] == "and 1991 more"


@pytest.mark.parametrize("way", ["setSecret", "repair"])
def test_roles_that_came_apart_after_the_password_was_set_stop_it(world: World, way: str) -> None:
    """A rotation that stopped half way is ended later, and not with roles that differ by then."""
    token = new_token()
    before = world.pair.labels()["AWSCURRENT"]
    for step in STEPS[:2]:
        world.pair.step(step, token)
    world.pair.execute(world.named("ALTER TABLE {s}.t OWNER TO {a}"))

    with pytest.raises(failures.CheckFailed, match="owns table"):
        world.pair.repair() if way == "repair" else world.pair.step(way, token)
    assert world.pair.labels()["AWSCURRENT"] == before

    world.pair.execute(world.named("ALTER TABLE {s}.t OWNER TO {owner}; GRANT SELECT ON {s}.n TO {a}"))
    if way == "repair":
        assert world.pair.repair() == "finished"
    else:
        world.pair.run(token)
    assert world.drift() == ()


def test_a_clone_has_what_its_original_has(environment: Sandbox) -> None:
    """A pair as AWS's function made it: what the original owns and may is the clone's by membership."""
    with own_secret(environment, "postgres-alternating-clone", users=None) as pair:
        original = pair.value()["username"]
        clone = f"{original}_clone"
        pair.execute(f"ALTER ROLE {original} RESET ROLE; REVOKE {OWNER} FROM {original}")
        pair.execute(f"CREATE ROLE {clone} LOGIN; GRANT {original} TO {clone}")
        pair.execute(f"CREATE SCHEMA {original} AUTHORIZATION {original}; CREATE TABLE {original}.t ()")
        pair.execute(f"ALTER TABLE {original}.t OWNER TO {original}; CREATE TABLE {original}.u ()")
        pair.execute(f"GRANT SELECT ON {original}.u TO {original}")
        for version in ("the clone", "the original"):
            found = pair.runner().examine(pair.secret_id, Deadline.after(20.0)).drift
            assert [words for words in found if "search path" not in words] == [], version
            pair.execute(f"ALTER ROLE {original} SET search_path TO {original}")
            pair.run()

        # What the clone makes is its own, and its original would lose it.
        pair.run()
        pair.execute_as("AWSCURRENT", f"CREATE TABLE {original}.made ()")
        (told,) = pair.runner().examine(pair.secret_id, Deadline.after(20.0)).drift
        assert told.startswith(f"{clone} owns table {original}.made, and {original} is no member of it")
        with pytest.raises(failures.CheckFailed, match="REASSIGN OWNED BY"):
            pair.run()
        assert pair.logs_in("AWSCURRENT")
        pair.repair()
        pair.execute(f"REASSIGN OWNED BY {clone} TO {original}")
        pair.run()
        pair.execute_as("AWSCURRENT", f"DROP TABLE {original}.made")
        pair.execute(f"DROP OWNED BY {original}, {clone} CASCADE")


def test_what_the_administrator_may_not_grant_stops_the_rotation(environment: Sandbox, world: World) -> None:
    """PostgreSQL says of such a GRANT only that it warns."""
    first, second = world.pair.value()["users"]
    weak, password = f"weak_{world.schema}", new_token()
    world.pair.execute(f"CREATE ROLE {weak} LOGIN CREATEROLE PASSWORD '{password}'")
    world.pair.execute(f"GRANT {first}, {second} TO {weak} WITH ADMIN OPTION")
    world.pair.execute(f"GRANT USAGE ON SCHEMA {world.schema} TO {weak}, {first}")
    arn = world.pair.client.create_secret(
        Name=f"test/{weak}",
        SecretString=(
            f'{{"engine": "postgres", "host": "{environment.postgres.host}", "username": "{weak}",'
            f' "port": {environment.postgres.port}, "password": "{password}"}}'
        ),
    )["ARN"]
    world.pair.put(lambda value: {**value, "masterarn": arn})
    token = new_token()
    world.pair.step("createSecret", token)

    with pytest.raises(failures.CheckFailed, match="may not USAGE on SCHEMA"):
        world.pair.step("setSecret", token)

    world.pair.execute(f"DROP OWNED BY {weak}; DROP ROLE {weak}")
