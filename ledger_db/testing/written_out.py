"""
What becomes of a COMMIT or a ROLLBACK that does not come from SQLAlchemy, in a test?

It would end the one transaction that the whole test is in: what was written would stay, or what the test has
prepared would go.  So it is refused where it can be seen: written out, or asked of a raw connection.  Where a
driver's own connection was asked, nobody hears it; then the end of the test says so.
"""

import re
from typing import Final, NoReturn

from sqlalchemy.pool.base import _ConnectionFairy

from ledger_db.errors import ConfigurationError

MARK: Final = "ledger_db_test"
"""The savepoint that is there for as long as the transaction of the test is."""

_ENDS: Final = re.compile(
    r"(?:\s+|;|--[^\n]*\n|/\*.*?\*/)*"
    # A script that begins by itself ends by itself.
    r"(?:COMMIT|END|ABORT|ROLLBACK(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b)|BEGIN|(?:START|PREPARE)\s+TRANSACTION)\b",
    re.IGNORECASE | re.DOTALL,
)
_INSTEAD: Final = "use ledger_db_manager, which really commits, or commit() and rollback() of SQLAlchemy"


def refuse_written_out(statement: str) -> None:
    """Raise ConfigurationError for a *statement* that begins or ends a transaction by itself."""
    if _ENDS.match(statement):
        raise ConfigurationError(
            "a transaction is begun or ended in SQL that is written out: it would end the one that the whole "
            f"test is in, whose writes would stay or be gone; {_INSTEAD}"
        )


def ended_past() -> ConfigurationError:
    """Return what to raise at the end of a test whose transaction was over before."""
    return ConfigurationError(
        "the transaction of this test was ended past its engine, by a driver's own connection: what was "
        f"committed there stays; clean up, and {_INSTEAD}"
    )


class Lent(_ConnectionFairy):
    """A raw connection that cannot end the transaction of the test."""

    __slots__ = ()

    def commit(self) -> NoReturn:
        """Refuse."""
        raise ConfigurationError(f"a raw connection would commit the whole test; {_INSTEAD}")

    def rollback(self) -> NoReturn:
        """Refuse."""
        raise ConfigurationError(f"a raw connection would roll the whole test back; {_INSTEAD}")
