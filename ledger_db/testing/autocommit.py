"""
What becomes of a statement under AUTOCOMMIT where there is one transaction for a whole test?

It is stored at once, as in production: no ROLLBACK of its connection takes it back.  One that fails takes
back itself, and leaves the transaction around it usable.  Inside of another transaction of the test it could
only share that one's fate, which in production it would not: so a write is refused there.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ledger_db.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import Dialect

AUTOCOMMIT = "AUTOCOMMIT"
_READS = re.compile(
    r"\s*(select|show|values|table|explain|with(?!.*\b(insert|update|delete|merge)\b))\b",
    re.IGNORECASE | re.DOTALL,
)


def level_of_all(dialect: "Dialect") -> str | None:
    """Return what ``create_engine(isolation_level=...)`` gave to each connection."""
    # Private, and a test says when it moves: it is written nowhere else.
    return dialect._on_connect_isolation_level  # noqa: SLF001 - as said above


def has_autocommit(connection: "Connection", dialect: "Dialect") -> bool:
    """
    Whether *connection* commits each statement.

    Args:
        connection: In a transaction or not.

        dialect: Of the real engine.
    """
    options = connection.get_execution_options()
    return options.get("isolation_level", level_of_all(dialect)) == AUTOCOMMIT


def refuse_inside_another(statement: str) -> None:
    """Raise ConfigurationError for a write, while another transaction of the test is open."""
    if not _READS.match(statement):
        raise ConfigurationError(
            "a statement under AUTOCOMMIT, and another transaction of this test is open: it would be undone "
            "with that one, and in production it is not; let that one end before, or use ledger_db_manager, "
            "which has connections and really commits"
        )


def leave_isolation(dialect: "Dialect", connection: Any) -> Callable[[], None]:
    """
    Let nobody change the isolation of *connection*, whose transaction lasts for the whole test.

    Args:
        dialect: Of the real engine, which goes on to serve other connections.

        connection: As the driver gives it, or SQLAlchemy's adapter.

    Returns:
        What makes all as it was.
    """
    before = {name: getattr(dialect, name) for name in ISOLATION if hasattr(dialect, name)}

    def others_only(change: Callable[..., None]) -> Callable[..., None]:
        return lambda one, *value: None if one is connection else change(one, *value)

    vars(dialect).update({name: others_only(change) for name, change in before.items()})
    return lambda: vars(dialect).update(before)


ISOLATION = ("set_isolation_level", "reset_isolation_level", "set_readonly", "set_deferrable")
"""The methods of a dialect that change what a connection's transactions are."""
