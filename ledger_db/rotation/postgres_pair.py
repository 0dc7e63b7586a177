"""
May the other role of a pair take the place of the one in use?

What differs is made equal as far as the administrator may; what stays and is grave stops the rotation while
nothing depends on the other role.  A dry run does the same and undoes it, so that it says what would happen
and not what might.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg2
from psycopg2 import sql

from ledger_db.answers.reason import Reason
from ledger_db.rotation import postgres_rights, postgres_roles
from ledger_db.rotation.postgres_rights import Difference
from ledger_db.rotation.protocol import Probe, ServerProblem

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - it is a class

_MOST_TOLD: Final = 10
_MOST_FAILED: Final = 50
_BEGIN: Final = sql.SQL("SAVEPOINT difference")
_END: Final = sql.SQL("RELEASE SAVEPOINT difference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned:
    """
    What came of making the roles equal, in sentences.

    Attributes:
        mended: What was not equal before.

        grave: What is not, and an application may fail of.

        kept: What is not, and does no harm.
    """

    mended: tuple[str, ...]
    grave: tuple[str, ...]
    kept: tuple[str, ...]

    def refuse(self, *, model: str, other: str) -> None:
        """
        Stop if an application that works as *model* may fail as *other*.

        Raises:
            ServerProblem: Names what differs.
        """
        if self.grave:
            told = "; ".join(shortened(self.grave))
            raise ServerProblem(
                Probe(Reason.FAILED_CHECK, f"{other} could not take the place of {model}: {told}"),
                next_move=(
                    "make them equal as an owner or a superuser (REASSIGN OWNED BY one of them TO a role "
                    "that both are members of) until 'ledger-db rotate SECRET --dry-run' is content, then "
                    "rotate again"
                ),
                is_untouched=True,
            )


def shortened(sentences: tuple[str, ...]) -> list[str]:
    """Return the first of *sentences* and how many there are besides: a line of a log has an end."""
    more = len(sentences) - _MOST_TOLD
    return [*sentences[:_MOST_TOLD], *([f"and {more} more"] if more > 0 else [])]


def align(cursor: "Cursor", *, model: str, other: str) -> Aligned:
    """
    Make *other* like *model*, as far as the administrator may.

    Args:
        cursor: The administrator's, in a transaction: nothing stays unless that is committed.

        model: The role in use.

        other: The one that is to follow; it exists.
    """
    found = _compare(cursor, model=model, other=other)
    statements = [one.statement for one in found if one.statement is not None]
    _try(cursor, statements)
    # Looked at again: a GRANT by who has no right to it is a warning, not an error.
    left = _compare(cursor, model=model, other=other) if statements else found
    still = {one.words for one in left}
    return Aligned(
        mended=tuple(one.words for one in found if one.words not in still),
        grave=tuple(one.words for one in left if one.is_grave),
        kept=tuple(one.words for one in left if not one.is_grave),
    )


def _compare(cursor: "Cursor", *, model: str, other: str) -> list[Difference]:
    return [
        *postgres_roles.differences(cursor, model=model, other=other),
        *postgres_rights.differences(cursor, model=model, other=other),
    ]


def _try(cursor: "Cursor", statements: Sequence[sql.Composable]) -> None:
    """Do those of *statements* that the server lets the administrator do."""
    # Many in one message: there may be one for each of ten thousand tables.  What this administrator may not
    # do, or this server does not know, is found by halves, and must not undo the rest.
    waiting, failed = [statements] if statements else [], 0
    # With that many the rotation is refused anyway.
    while waiting and failed < _MOST_FAILED:
        some = waiting.pop()
        try:
            cursor.execute(sql.SQL("; ").join((_BEGIN, *some, _END)))
        except (psycopg2.ProgrammingError, psycopg2.DataError, psycopg2.NotSupportedError):
            cursor.execute("ROLLBACK TO SAVEPOINT difference; RELEASE SAVEPOINT difference")
            failed, half = failed + 1, len(some) // 2
            waiting += [some[half:], some[:half]] if half else []
