"""Which of PostgreSQL's parameters can be set for a whole service, and what does the server read then?"""

import re
from collections.abc import Container, Mapping
from typing import Final

TIMEOUTS: Final = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
"""Parameters that a service sets in seconds, as it does all others of its times."""

# An extension's has the extension's name in front.
_PARAMETER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


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
