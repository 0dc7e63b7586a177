"""
How is an event told in the log, whatever the application has made of logging?

An event is a constant name, so that logs can be searched and counted by it, with fields of its own.  Their
names have a prefix: an application may add fields to every record, and logging raises where two are the same.
Whatever else raises in there, a factory of records, a filter, is the application's own, and no reason to end
a login, a read or a rotation.
"""

import logging
from contextlib import suppress
from typing import Any, Final

PREFIX: Final = "ledger_db_"


class EventLog:
    """
    Tells events to the logger of a module; never raises.

    Args:
        name: Of the logger.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, *, exc_info: Any = None, **fields: object) -> None:
        """Tell what somebody looks for who asked for more; see `log`."""
        self._tell(logging.DEBUG, event, exc_info, fields)

    def info(self, event: str, *, exc_info: Any = None, **fields: object) -> None:
        """Tell what is in good order; see `log`."""
        self._tell(logging.INFO, event, exc_info, fields)

    def warning(self, event: str, *, exc_info: Any = None, **fields: object) -> None:
        """Tell what may need somebody; see `log`."""
        self._tell(logging.WARNING, event, exc_info, fields)

    def error(self, event: str, *, exc_info: Any = None, **fields: object) -> None:
        """Tell what needs somebody; see `log`."""
        self._tell(logging.ERROR, event, exc_info, fields)

    def log(self, level: int, event: str, *, exc_info: Any = None, **fields: object) -> None:
        """
        Tell *event*.

        Args:
            level: As logging's.

            event: Its constant name.

            exc_info: As logging's: whose traceback is shown.

            fields: Of the record, each with the prefix; `cause` stands in the text too, where a person reads.
        """
        self._tell(level, event, exc_info, fields)

    def _tell(self, level: int, event: str, exc_info: Any, fields: dict[str, object]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        cause = fields.get("cause")
        with suppress(Exception):
            self._logger.log(
                level,
                f"{event}: %s" if cause else event,
                *([cause] if cause else []),
                exc_info=exc_info,
                extra={f"{PREFIX}event": event} | {PREFIX + name: value for name, value in fields.items()},
                stacklevel=3,
            )
