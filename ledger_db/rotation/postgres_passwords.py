"""
Who sets the password of a role in PostgreSQL?

The role itself where it logs in and may; else the administrator that the secret names.  Who repairs has the
same ways as who rotates.
"""

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psycopg2
from psycopg2 import sql

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.rotation import scram
from ledger_db.rotation.postgres_admin import admin_of, as_administrator, past_proxy
from ledger_db.rotation.postgres_checks import check_same, check_same_server
from ledger_db.rotation.postgres_login import RoleIsFull, probe, session
from ledger_db.rotation.postgres_refusals import not_taken
from ledger_db.rotation.protocol import Deadline, Probe, ServerProblem, Tools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - it is a class

_NO_HELP: Final = (
    "name an administrator's secret in 'masterarn', which makes the change then; or let the role change its "
    "own password (rds.restrict_password_commands)"
)


def set_password(cursor: "Cursor", secret: Secret) -> None:
    """
    Give the role of *secret* its password, as a verifier that was computed here.

    Raises:
        ServerProblem: The server does not take one.
    """
    try:
        cursor.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                sql.Identifier(secret.username), sql.Literal(scram.verifier(secret.password))
            )
        )
    except psycopg2.Error as error:
        problem = not_taken(error, secret)
        if problem is None:
            raise
        raise problem from error


@contextmanager
def administration(current: Secret, tools: Tools, deadline: Deadline) -> "Iterator[Cursor]":
    """Log in as the administrator of *current*, as `session` does."""
    admin = admin_of(current, tools)
    try:
        with session(admin, tools.tls, deadline, proven=False, writes=True) as cursor:
            yield cursor
    except ServerProblem as problem:
        if problem.reason is Reason.FAILED_CHECK:
            # Of the roles, whoever looks at them.
            raise
        raise as_administrator(problem, admin) from problem


def change(wanted: Secret, login: Secret, current: Secret, tools: Tools, deadline: Deadline) -> None:
    """Set *wanted* as *login*, which is of the same role, else as the administrator that *current* names."""
    try:
        with session(past_proxy(login, tools), tools.tls, deadline, writes=True) as cursor:
            set_password(cursor, wanted)
    except ServerProblem as problem:
        if not isinstance(problem, RoleIsFull) and problem.reason is not Reason.FORBIDDEN:
            raise
        if current.administrator_field is None:
            raise ServerProblem(problem.probe, next_move=_NO_HELP, is_untouched=True) from problem
        with administration(current, tools, deadline) as cursor:
            set_password(cursor, wanted)


def revert(wanted: Secret, helpers: tuple[Secret, ...], tools: Tools, deadline: Deadline) -> None:
    """Set *wanted* as whoever of *helpers* is the same role and logs in, else as the administrator."""
    # A version of before the database moved would have a password changed where the secret points no more.
    same_role = [helper for helper in helpers if _is_same_login(helper, wanted)]
    for helper in same_role:
        if probe(past_proxy(helper, tools), tools.tls, deadline).ok:
            change(wanted, helper, wanted, tools, deadline)
            return
    if wanted.administrator_field is None:
        raise ServerProblem(
            Probe(
                Reason.REFUSED,
                f"no version of the secret logs in as {wanted.username}, and it names no administrator",
            ),
            next_move="set the role's password to what AWSCURRENT holds, or name an administrator's secret "
            "in 'masterarn' and repair again",
        )
    with administration(wanted, tools, deadline) as cursor:
        set_password(cursor, wanted)


def _is_same_login(helper: Secret, wanted: Secret) -> bool:
    try:
        check_same_server(wanted, helper)
        check_same(wanted, helper, "username")
    except SecretProblem:
        return False
    return True
