"""What did the product tell in the log?"""

import logging
from typing import Any

from ledger_db.event_log import PREFIX


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of an event under the names that the product gave them."""
    return {
        name.removeprefix(PREFIX): value for name, value in vars(record).items() if name.startswith(PREFIX)
    }


def event_of(record: logging.LogRecord) -> str | None:
    """Return the name of an event; None of what is none."""
    return fields_of(record).get("event")
