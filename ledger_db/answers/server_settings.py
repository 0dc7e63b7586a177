"""
Which of PostgreSQL's parameters can be set for a whole service, and what does the server read then?

Most of what is wrong with them the server says in words that nothing else has.  Not so of a role.
"""

import re
from collections.abc import Container, Mapping
from typing import Final

from ledger_db.answers.login_errors import sqlstate_of
from ledger_db.errors import ConfigurationError
from ledger_db.redaction import describe

TIMEOUTS: Final = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
"""Parameters that a service sets in seconds, as it does all others of its times."""

# An extension's has the extension's name in front.
_PARAMETER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_NO_ROLE: Final = re.compile(r'role "(.*)" does not exist')
_INVALID_VALUE: Final = "22023"  # invalid_parameter_value


def why_not_set(settings: Mapping[str, str], *, own: Container[str]) -> str | None:
    """
    Return why *settings* cannot be set, in words that repeat no value; None if they can.

    Args:
        settings: By PostgreSQL's names.

        own: What has a setting of its own, by the names of those.
    """
    for name, value in settings.items():
        if not _PARAMETER.fullmatch(name) or "\x00" in value:
            return "names are those of PostgreSQL's parameters, and no value holds the character NUL"
        alone = f"{name.lower()}_seconds" if name.lower() in TIMEOUTS else name.lower()
        if alone in own:
            return f"{name} has a setting of its own; set LEDGER_DB_{alone.upper()}"
    return None


def in_milliseconds(limits: Mapping[str, float | None]) -> dict[str, str]:
    """Return those of *limits* that are set, in seconds, as PostgreSQL takes them; its 0 means "for ever"."""
    set_ones = ((name, seconds) for name, seconds in limits.items() if seconds is not None)
    return {name: f"{max(1, round(seconds * 1000))}ms" for name, seconds in set_ones}


def refuse_missing_role(error: BaseException, *, user: str) -> None:
    """
    Tell a login's *error* that is about a role to be set from one about who logs in, whose words it has.

    Args:
        error: A driver's.

        user: Who logs in.

    Raises:
        ConfigurationError: No other credentials would help.
    """
    missing = _NO_ROLE.search(str(error))
    # libpq gives no code, and asyncpg one in every language.
    if sqlstate_of(error) == _INVALID_VALUE or (missing is not None and missing[1] != user):
        raise ConfigurationError(
            f"PostgreSQL does not take a server setting ({describe(error)}); mend "
            "LEDGER_DB_SERVER_SETTINGS, or what the program gives to the driver"
        ) from error
