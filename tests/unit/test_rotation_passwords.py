"""Do generated passwords survive wherever people put them, and does PostgreSQL get the right verifier?"""

import base64
import json
import shlex
import string
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given, strategies as st
from psycopg2.extensions import make_dsn, parse_dsn

from ledger_db.errors import ConfigurationError
from ledger_db.rotation.passwords import PUNCTUATION, PasswordRules, new_password
from ledger_db.rotation.scram import prepared, verifier

PASSWORDS = 10_000


def test_a_password_survives_every_place() -> None:
    """A URL, a connection string, JSON and a shell take it as it is, ten thousand times."""
    for _ in range(PASSWORDS):
        password = new_password()

        assert quote(password, safe="") == password == unquote(password)
        assert urlsplit(f"postgresql://user:{password}@host:5432/name").password == password
        assert parse_dsn(f"host=h user=u password={password} dbname=d")["password"] == password
        assert make_dsn(password=password) == f"password={password}"
        assert json.dumps(password) == f'"{password}"'
        assert shlex.quote(password) == password
        assert password.isascii()


def test_a_password_has_every_kind_of_character() -> None:
    """Rules that ask for upper case, lower case, a digit and a sign are met; it begins with a letter."""
    for _ in range(PASSWORDS // 10):
        password = new_password()

        assert len(password) == 32
        assert password[0] in string.ascii_letters
        for kind in (string.ascii_uppercase, string.ascii_lowercase, string.digits, PUNCTUATION):
            assert set(kind) & set(password)


def test_passwords_do_not_repeat() -> None:
    """Nobody guesses one from another."""
    assert len({new_password() for _ in range(PASSWORDS)}) == PASSWORDS


@given(st.integers(16, 128), st.sampled_from(["", "-._", "!&#$^<>-"]))
def test_a_server_may_ask_for_other_signs(length: int, punctuation: str) -> None:
    """Length and signs are what was asked for."""
    password = new_password(length, punctuation=punctuation)

    assert len(password) == length
    assert set(password) <= set(string.ascii_letters + string.digits + punctuation)


def test_a_password_that_is_too_short_is_not_made() -> None:
    """Sixteen characters are the least."""
    with pytest.raises(ValueError, match="16 is the least"):
        new_password(15)


@pytest.mark.parametrize("required", ["true", "false"])
@pytest.mark.parametrize(
    ("variables", "alphabet"),
    [
        ({}, string.ascii_letters + string.digits + PUNCTUATION),
        ({"EXCLUDE_CHARACTERS": ":/@\"'\\"}, string.ascii_letters + string.digits + PUNCTUATION),
        ({"EXCLUDE_CHARACTERS": "0Oo1lI-"}, None),
        ({"EXCLUDE_PUNCTUATION": "True"}, string.ascii_letters + string.digits),
        ({"EXCLUDE_NUMBERS": "1", "EXCLUDE_PUNCTUATION": "y"}, string.ascii_letters),
        ({"EXCLUDE_UPPERCASE": "yes"}, string.ascii_lowercase + string.digits + PUNCTUATION),
        ({"EXCLUDE_LOWERCASE": "true", "EXCLUDE_UPPERCASE": "true"}, string.digits + PUNCTUATION),
        (
            {"EXCLUDE_NUMBERS": "no", "PASSWORD_LENGTH": ""},
            string.ascii_letters + string.digits + PUNCTUATION,
        ),
        ({"PASSWORD_LENGTH": "16"}, string.ascii_letters + string.digits + PUNCTUATION),
        ({"PASSWORD_LENGTH": "128"}, string.ascii_letters + string.digits + PUNCTUATION),
    ],
)
def test_the_variables_of_aws_choose(variables: dict[str, str], alphabet: str | None, required: str) -> None:
    """By AWS's names and in AWS's words, always within what survives every place."""
    rules = PasswordRules.from_environment({**variables, "REQUIRE_EACH_INCLUDED_TYPE": required})
    excluded = set(variables.get("EXCLUDE_CHARACTERS", ""))
    allowed = set(alphabet or string.ascii_letters + string.digits + PUNCTUATION) - excluded
    drawn = [new_password(rules=rules) for _ in range(300)]

    assert set().union(*drawn) == allowed
    assert {len(password) for password in drawn} == {int(variables.get("PASSWORD_LENGTH") or 32)}
    assert not {password[0] for password in drawn} & set(PUNCTUATION)
    if required == "true":
        kinds = (string.ascii_uppercase, string.ascii_lowercase, string.digits, PUNCTUATION)
        assert all(set(kind) & set(each) for each in drawn for kind in kinds if set(kind) & allowed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("PASSWORD_LENGTH", value)
            for value in ("15", "129", "-32", "thirty", "3.2", "1_6", "\u0663\u0662", "0")
        ),
        *((f"EXCLUDE_{kind}", "maybe") for kind in ("NUMBERS", "PUNCTUATION", "UPPERCASE", "LOWERCASE")),
        ("REQUIRE_EACH_INCLUDED_TYPE", "2"),
        ("EXCLUDE_", string.ascii_letters + string.digits),
        ("EXCLUDE_", string.ascii_letters + "023456789"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    """Also exclusions that leave too little; never silently what AWS's function would make of it."""
    variable = "EXCLUDE_CHARACTERS" if name == "EXCLUDE_" else name
    with pytest.raises(ConfigurationError, match=name):
        PasswordRules.from_environment({variable: value})


def test_the_verifier_is_that_of_the_standard() -> None:
    """RFC 7677, section 3: its salt, its iterations, its stored and server keys."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")

    assert verifier("pencil", iterations=4096, salt=salt) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_a_verifier_needs_no_quoting() -> None:
    """It has letters, digits and six signs that mean nothing in SQL."""
    assert set(verifier(new_password())) <= set(string.ascii_letters + string.digits + "+/=$:-")


def test_two_verifiers_of_a_password_differ() -> None:
    """Each has its own salt: equal passwords cannot be told from their verifiers."""
    assert verifier("a password") != verifier("a password")


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("n3w Pass!§é", "n3w Pass!§é"),
        # Refused by RFC 4013: PostgreSQL takes such a password as it is.
        ("\u0627\u0031", "\u0627\u0031"),
        ("x\u0007é", "x\u0007é"),
        ("\u00ad", "\u00ad"),
    ],
)
def test_passwords_of_people_are_treated_as_libpq_does(password: str, expected: str) -> None:
    """The examples of RFC 4013, and what that RFC refuses."""
    assert prepared(password) == expected.encode()
