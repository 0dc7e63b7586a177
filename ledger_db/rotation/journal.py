"""
What does the rotation function write down?

One JSON object a line.  A field gets in only if it is named here: what nobody thought of cannot leak.
Metrics are such lines too (CloudWatch's embedded metric format), so that they cost no API call.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from ledger_db.event_log import PREFIX

FIELDS: Final = frozenset(
    {
        "action",
        "attempt",
        "drift",
        "duration_ms",
        "error",
        "holder",
        "outcome",
        "problem",
        "remaining_ms",
        "role",
        "secret",
        "stage",
        "step",
        "strategy",
        "version",
    }
)
"""What may be in a line, besides time, level, logger and event."""

NAMESPACE: Final = "ledger_db/rotation"
_UNITS: Final = {"StepDuration": "Milliseconds", "Outcome": "Count", "CredentialGapMs": "Milliseconds"}


class JSONLines(logging.Formatter):
    """Formats a record as one line of JSON: the constant event name, and the fields of the allow-list."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; arguments, tracebacks and unknown fields are left out."""
        given = vars(record)
        line: dict[str, Any] = {
            "at": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            # Not getMessage(): its arguments are a way around the allow-list.
            "event": given.get(f"{PREFIX}event", type(record.msg).__name__),
        }
        line |= {name: given[PREFIX + name] for name in sorted(FIELDS) if PREFIX + name in given}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        # A line feed in a value would begin a line of its own making; JSON has none.
        return json.dumps(line, default=lambda value: type(value).__name__)


def write_to_standard_output() -> None:
    """Send what ledger_db logs to standard output, as Lambda wants it.  Idempotent; for programs only."""
    root = logging.getLogger("ledger_db")
    if any(isinstance(handler.formatter, JSONLines) for handler in root.handlers):
        return
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JSONLines())
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # Lambda's own handler would print each line once more, in its own form.
    root.propagate = False


def metrics_line(
    figures: Mapping[str, float], *, dimensions: Mapping[str, str], at: float | None = None
) -> str:
    """
    Return a line that CloudWatch reads as metrics.

    Args:
        figures: StepDuration, Outcome or CredentialGapMs.

        dimensions: What they are of: step, strategy, outcome.

        at: POSIX seconds; now if None.
    """
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [sorted(dimensions)],
        "Metrics": [{"Name": name, "Unit": _UNITS[name]} for name in figures],
    }
    when = round((time.time() if at is None else at) * 1000)
    return json.dumps(
        {"_aws": {"Timestamp": when, "CloudWatchMetrics": [directive]}, **dimensions, **figures}
    )
