"""
How does the service write its log?

One JSON object a line on standard error: the event, the fields that were given with it, and the request that
it belongs to.  Nothing here looks into requests or answers, so nothing of theirs can get into a log.
"""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The name of the request that the code runs for; None outside of one."""

# What every record has: the rest was given with ``extra``.
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# Each start of theirs is worth several lines to them.
_CHATTY = ("alembic", "botocore")
_UVICORN = ("uvicorn", "uvicorn.access", "uvicorn.error")


class JSONLines(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            # Several workers write one log.
            "process": record.process,
            "event": vars(record).get("ledger_db_event") or record.getMessage(),
            "request_id": request_id.get(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _PLAIN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in line.items() if value is not None}, default=str)


def configure_logging(level: str) -> None:
    """
    Log as JSON from *level* on, unless this process has configured logging in its own way already.

    uvicorn's own lines go the same way: half a log in another format is no structured log.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines())
    root.addHandler(handler)
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _UVICORN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
