"""Do generated passwords survive wherever people put them, and does PostgreSQL get the right verifier?"""

import base64
import json
import shlex
import string
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given, strategies as st
from psycopg2.extensions import make_dsn, parse_dsn

from ledger_db.rotation.passwords import PUNCTUATION, new_password
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
