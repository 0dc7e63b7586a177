"""Do credentials keep to themselves?"""

import traceback

from ledger_db import Credentials, Password

CANARY = "c4nary-in-the-mine"


def credentials(version: str = "v1", password: str = CANARY) -> Credentials:
    """Return credentials that should not show."""
    return Credentials("app", Password(password), version, "db.example", 5432, "ledger")


def test_a_password_is_a_text_like_any_other() -> None:
    """Drivers get exactly what the secret holds."""
    assert credentials().password == CANARY
    assert str(credentials().password) == CANARY


def test_no_representation_shows_the_password() -> None:
    """A log line that holds the whole value does not hold the password."""
    assert CANARY not in f"{credentials()!r} {credentials()} {[credentials().password]}"


def test_a_traceback_with_local_variables_does_not_show_the_password() -> None:
    """Tools that print every frame's locals print a mask."""

    def log_in(password: Password) -> None:
        raise ConnectionError(f"no route for {len(password)}")

    try:
        log_in(credentials().password)
    except ConnectionError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())

    assert "password = '***'" in shown
    assert CANARY not in shown


def test_a_plain_string_is_masked_too() -> None:
    """A source of the user's own need not know about masks."""
    given = Credentials("app", CANARY, "v1", "h", 1, "d")  # type: ignore[arg-type] # what a user would do

    assert CANARY not in repr(given)


def test_the_stamp_is_the_version_unless_said_otherwise() -> None:
    """Secrets are stamped by version; tokens share a stamp."""
    assert credentials("v7").stamp == "v7"
