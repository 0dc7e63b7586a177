"""
Which variables with our prefix does nobody read, and which one was meant?

An argument that is misspelt is refused.  A variable cannot be, as the environment is not ours alone; but the
default that is taken in its place is not to be taken without a word.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from ledger_db.event_log import EventLog

log: EventLog = EventLog(__name__)

PREFIX: Final = "LEDGER_DB_"

OTHERS: Final = (
    # Of the sandbox.
    *("PG_BIN", "REDIS_BIN"),
    # Of the rotation function and the command that does the same.
    *("ROTATION_SECRETS", "ROTATION_STRATEGY"),
    *("ROTATION_SSLMODE", "ROTATION_SSLROOTCERT"),
    *("ANNOUNCEMENTS_SECRET_ID", "ANNOUNCEMENTS_TOPIC_ARN"),
    # Of LocalStack, and of this project's own tests.
    *("LOCALSTACK", "LOCALSTACK_CODE", "LOCALSTACK_SEED"),
    *("CONTRACT_TARGETS", "ROOT"),
)
"""What is read, and is none of the settings; without the prefix."""


def tell_unknown(environment: Mapping[str, str], settings: Iterable[str]) -> None:
    """
    Tell each variable in *environment* that has our prefix and is read by nobody.

    Args:
        environment: Names and values; the values are told to nobody.

        settings: The names of all settings, in small letters and without the prefix.
    """
    known = {*OTHERS, *(name.upper() for name in settings)}
    for variable, value in environment.items():
        name = variable.upper().removeprefix(PREFIX)
        if not value or name in known or not variable.upper().startswith(PREFIX):
            continue
        # Without what all of them have in common, which would make any two alike.
        nearest = next((f"{PREFIX}{near}" for near in get_close_matches(name, sorted(known), n=1)), None)
        meant = "there is none like it" if nearest is None else f"was {nearest} meant?"
        cause = f"nobody reads {variable}; {meant}"
        log.warning("settings.unknown", variable=variable, nearest=nearest, cause=cause)
