"""Is every shape of a secret understood, and every other one refused politely?"""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ledger_db.answers.secret import Server
from ledger_db.credentials.from_secret import Address, credentials_from
from ledger_db.errors import CredentialsInvalid

CANARY = "S3cret!"
FULL: dict[str, Any] = {
    "engine": "postgres",
    "host": "db.example",
    "port": 5433,
    "username": "app",
    "password": CANARY,
    "dbname": "ledger",
}


def read(values: object, server: Server = "PostgreSQL", **address: Any) -> Any:
    """Read a secret that says *values*."""
    text = values if isinstance(values, str | bytes) else json.dumps(values)
    answer = {"SecretBinary" if isinstance(text, bytes) else "SecretString": text, "VersionId": "v1"}
    return credentials_from(answer, server, secret_id="s/1", address=Address(**address))


def test_the_shape_that_aws_documents() -> None:
    """Every field is taken from the secret."""
    found = read(FULL)

    assert (found.username, found.password, found.version) == ("app", CANARY, "v1")
    assert (found.host, found.port, found.database) == ("db.example", 5433, "ledger")


def test_an_rds_managed_secret_takes_its_address_from_the_settings() -> None:
    """A secret of user name and password alone is enough once the settings know the host."""
    found = read({"username": "app", "password": CANARY}, host="db.example", port=6000, database="ledger")

    assert (found.host, found.port, found.database) == ("db.example", 6000, "ledger")


def test_the_settings_go_before_the_secret() -> None:
    """A host that was set by hand (a tunnel, a proxy) is used whatever the secret says."""
    assert read(FULL, host="127.0.0.1").host == "127.0.0.1"


@pytest.mark.parametrize("port", [5433, "5433", " 5433 "])
def test_a_port_is_a_number_or_a_text(port: object) -> None:
    """AWS's console writes numbers, its templates write texts."""
    assert read({**FULL, "port": port}).port == 5433


def test_what_may_be_missing_has_the_usual_value() -> None:
    """Without port and dbname, 5432 and postgres are meant; an instance's name is no database's name."""
    found = read({"username": "a", "password": "b", "host": "h", "dbInstanceIdentifier": "prod-1"})

    assert (found.port, found.database) == (5432, "postgres")


@pytest.mark.parametrize("engine", ["postgres", "aurora-postgresql", "Postgres"])
def test_engines_of_postgresql(engine: str) -> None:
    """Both names that AWS gives PostgreSQL are known."""
    assert read({**FULL, "engine": engine}).username == "app"


@pytest.mark.parametrize("engine", ["redis", "valkey"])
def test_a_redis_secret(engine: str) -> None:
    """Redis and Valkey secrets are read alike; without a user name it is the user "default"."""
    found = read({"engine": engine, "host": "r", "password": CANARY}, "Redis")

    assert (found.username, found.port, found.database) == ("default", 6379, "0")


def test_a_redis_database_may_be_a_number() -> None:
    """A database number is one, however it is written."""
    assert read({"host": "r", "password": "p", "database": 3}, "Redis").database == "3"


def test_secret_binary() -> None:
    """A secret stored as bytes is read as UTF-8."""
    assert read(json.dumps(FULL).encode()).username == "app"


@given(st.text(st.characters(exclude_characters="\x00", codec="utf-8"), min_size=1))
def test_a_password_may_hold_any_character(password: str) -> None:
    """No character is lost, quoted or changed on its way out of the secret."""
    assert read({**FULL, "password": password}).password == password


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"username": None}, "username", "non-empty text"),
        ({"username": ""}, "username", "non-empty text"),
        ({"password": None}, "password", "non-empty text"),
        ({"password": 12345}, "password", "non-empty text"),
        ({"password": f"{CANARY}\x00"}, "password", "NUL"),
        ({"host": None}, "host", "LEDGER_DB_DATABASE_HOST"),
        ({"host": "db\x00"}, "host", "NUL"),
        ({"username": "a\x00"}, "username", "NUL"),
        ({"dbname": "l\x00"}, "dbname", "NUL"),
        ({"port": "9" * 5000}, "port", "1 to 65535"),
        ({"port": "5_432"}, "port", "1 to 65535"),
        ({"host": 5}, "host", "name or address"),
        ({"port": "fifty"}, "port", "1 to 65535"),
        ({"port": 0}, "port", "1 to 65535"),
        ({"port": True}, "port", "1 to 65535"),
        ({"port": "-1"}, "port", "1 to 65535"),
        ({"dbname": ["x"]}, "dbname", "non-empty text"),
        ({"engine": "mysql"}, "engine", "aurora-postgresql"),
        ({"engine": 5}, "engine", "postgres"),
    ],
)
def test_a_malformed_field_is_named_and_never_shown(
    change: dict[str, Any], field: str, expected: str
) -> None:
    """The message says which field, what was expected and in which secret; no value is in it."""
    with pytest.raises(CredentialsInvalid) as caught:
        read({**FULL, **change})

    assert f"'{field}'" in str(caught.value)
    assert expected in str(caught.value)
    assert "'s/1'" in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        CANARY,
        f'{{"password": "{CANARY}"',
        f'["{CANARY}"]',
        "",
        b"\xff\xfe" + b"x",
        f'{{"password": "{CANARY}", "port": {"9" * 5000}}}',
        f'{{"password": "{CANARY}", "deep": {"[" * 100_000}',
    ],
)
def test_what_is_no_json_object_does_not_leak_either(text: str | bytes) -> None:
    """Neither the message nor any error behind it holds on to the text of the secret."""
    with pytest.raises(CredentialsInvalid, match="expected a JSON object") as caught:
        read(text)

    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "empty"),
        ("hunter2", "no JSON"),
        ('"hunter2"', "one text"),
        (json.dumps(json.dumps(FULL)), "JSON in quotes"),
        ("[1]", "a list"),
        (b"\xff\xff", "UTF-8"),
        ('{"deep": ' + "[" * 100_000, "nested too deeply"),
        ('{"port": ' + "9" * 5000 + "}", "thousands of digits"),
    ],
)
def test_the_likely_mistake_is_named(text: str | bytes, mistake: str) -> None:
    """Whoever has to mend the secret does not have to guess what is wrong with it."""
    with pytest.raises(CredentialsInvalid, match=f"'s/1': it .*{mistake}; expected a JSON object"):
        read(text)


def test_a_byte_order_mark_is_no_part_of_a_secret() -> None:
    """An editor of Windows puts it in front; as text it is read as it is in SecretBinary."""
    assert read(f"\ufeff{json.dumps(FULL)}").username == "app"
    assert read(f"\ufeff{json.dumps(FULL)}".encode()).username == "app"


@pytest.mark.parametrize(
    ("server", "right", "wrong"),
    [
        ("PostgreSQL", "username", "user"),
        ("PostgreSQL", "username", "Username"),
        ("PostgreSQL", "username", "DB_USER"),
        ("PostgreSQL", "password", "PASSWORD"),
        ("PostgreSQL", "password", "pwd"),
        ("PostgreSQL", "host", "endpoint"),
        ("PostgreSQL", "host", "Host"),
        ("PostgreSQL", "port", "Port"),
        ("PostgreSQL", "dbname", "dbName"),
        ("PostgreSQL", "dbname", "DBName"),
        ("PostgreSQL", "dbname", "databaseName"),
        ("PostgreSQL", "dbname", "Database"),
        ("PostgreSQL", "dbname", "db"),
        ("PostgreSQL", "engine", "Engine"),
        ("Redis", "username", "user"),
        ("Redis", "password", "auth_token"),
        ("Redis", "password", "authToken"),
        ("Redis", "port", "PORT"),
        ("Redis", "dbname", "db"),
    ],
)
def test_a_field_of_another_name_is_not_passed_over(server: Server, right: str, wrong: str) -> None:
    """What was meant is named with what it should be called, instead of a default taken without a word."""
    full = FULL if server == "PostgreSQL" else {**FULL, "engine": "redis", "dbname": "1"}
    renamed = {wrong if name == right else name: value for name, value in full.items()}

    with pytest.raises(CredentialsInvalid, match=f"'s/1'.*{wrong!r}.* rename that to ") as caught:
        read(renamed, server)

    assert f"{right!r}" in str(caught.value) or right == "dbname"
    assert CANARY not in str(caught.value)


def test_a_field_of_another_name_is_nobodys_business_where_the_right_one_is_there() -> None:
    """AWS adds fields as it likes, and what the settings say needs no field at all."""
    both = {**FULL, "user": "x", "Password": "y", "endpoint": "z", "db": 1}
    bare = {"username": "a", "password": "b", "dbName": "x", "endpoint": "y", "Port": 1}

    assert read(both).username == "app"
    assert read(bare, host="h", port=1, database="d").database == "d"


@pytest.mark.parametrize("server", ["PostgreSQL", "Redis"])
@pytest.mark.parametrize("field", ["username", "dbname"])
def test_white_space_around_a_field_is_a_mistake(server: Server, field: str) -> None:
    """It is seen in no console, and the server would speak of a user or database that looks right."""
    for odd in (f" {FULL[field]}", f"{FULL[field]}\n"):
        with pytest.raises(CredentialsInvalid, match=f"'{field}'"):
            read({**FULL, "engine": None, field: odd}, server)


@pytest.mark.parametrize("field", ["username", "password", "host", "dbname"])
def test_half_a_character_is_refused_by_field(field: str) -> None:
    """No driver can send it, and the error of one that tries holds the whole connection string."""
    with pytest.raises(CredentialsInvalid, match=f"'{field}'") as caught:
        read({**FULL, field: f"{CANARY}\ud800"})

    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None


def test_whether_the_database_was_named_is_known() -> None:
    """By the secret or by the settings; where neither says which, the usual one is taken."""
    bare = {"username": "a", "password": "b", "host": "h", "dbClusterIdentifier": "prod"}

    assert read(FULL).names_database
    assert read(bare, database="ledger").names_database
    assert not read(bare).names_database


@pytest.mark.parametrize("database", [-1, "-1", "one", "", True])
def test_a_redis_database_is_a_number_from_zero(database: object) -> None:
    """Whether it is written as number or as text."""
    with pytest.raises(CredentialsInvalid, match="'database'"):
        read({"host": "r", "password": "p", "database": database}, "Redis")
