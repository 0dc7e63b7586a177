"""Which of PostgreSQL's parameters can be set for a whole service, and which did the server refuse?"""

import re
from collections.abc import Container, Mapping
from typing import Final

from ledger_db.errors import ConfigurationError

TIMEOUTS: Final = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
"""Parameters that a service sets in seconds, as it does all others of its times."""

# An extension's has the extension's name in front.
_PARAMETER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")

# A dash in a name means what an underscore does; white space in a value stands behind a backslash.
_ON_COMMAND_LINE: Final = re.compile(r"(?<!\S)(?:-c\s*|--)([A-Za-z_][\w.-]*)=((?:\\.|[^\s\\])*)", re.DOTALL)
# Each language has its own, some of them with a space inside.
_QUOTE: Final = r"[^\w\s.,:;/()=-]"


class SettingRefused(ConfigurationError):
    """The server has refused a setting, and with it the login; other credentials would change nothing."""


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


def on_command_line(options: str) -> dict[str, str]:
    """Return the settings in *options*, which libpq hands to the server as a command line."""
    told = _ON_COMMAND_LINE.findall(options)
    return {
        name.lower().replace("-", "_"): re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        for name, value in told
    }


def refused_of(settings: Mapping[str, str], said: str, *, but: Container[str]) -> str | None:
    """
    Return the name of that one of *settings* which the server refuses; None if it is not about any.

    Libpq tells no SQLSTATE of a failed connect, and the server's sentence is in any language.  It quotes the
    parameter's name; that of a role which is not there, or may not be set, quotes only the value.

    Args:
        settings: What the login has told the server.

        said: The error.

        but: Who logs in, and where to: a sentence that quotes these is about the login.
    """
    for words in (settings.keys(), settings.values()):
        for name, word in zip(settings, words, strict=True):
            if word and word not in but and _quotes(said, word):
                return name
    return None


def what_to_mend(name: str) -> str:
    """Return what to do about the setting *name*, which the server has refused."""
    own = f"{name.upper()}_SECONDS" if name in TIMEOUTS else "SERVER_SETTINGS"
    return (
        f"mend or leave out {name} in LEDGER_DB_{own} or connect_args, or let the server allow it: "
        "CREATE ROLE, GRANT of the role, GRANT SET ON PARAMETER"
    )


def _quotes(said: str, word: str) -> bool:
    return re.search(rf"{_QUOTE}\s*{re.escape(word)}\s*{_QUOTE}", said, re.IGNORECASE) is not None
