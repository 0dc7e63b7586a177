"""
How does the rotator log in to PostgreSQL, and what does it mean if that fails?

After what nobody has seen nothing is written: a wrong guess would change a password for no reason.
"""

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg2

from ledger_db.answers.login_errors import find
from ledger_db.answers.postgres import by_sqlstate
from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret
from ledger_db.answers.tls import TLS
from ledger_db.answers.tls_trouble import told
from ledger_db.redaction import describe, forget_frames
from ledger_db.rotation.protocol import Deadline, Probe, ServerProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - it is a class

_CONNECT_SECONDS: Final = 5.0
# libpq rounds everything below up to this.
_LEAST_CONNECT_SECONDS: Final = 2.0
_STATEMENT_SECONDS: Final = 10.0
_CHECK_SECONDS: Final = 5.0
# Everything in which a password goes to the server or is proven to it; LDAP, PAM and RADIUS are "password".
_WITH_PASSWORD: Final = "password,md5,scram-sha-256"  # noqa: S105 - no password


# An application's role may be SET ROLE to its owner by default, and is then not allowed to change its own
# password.  The search path: whoever owns a schema of this database could put a function of their own where
# an administrator's statement finds it first.
_PREPARED: Final = (
    "SELECT pg_catalog.set_config('search_path', 'pg_catalog', false),"
    " pg_catalog.set_config('role', 'none', false),"
    " pg_catalog.set_config('statement_timeout', %s, false),"
    " pg_catalog.set_config('lock_timeout', %s, false)"
)
_READ_ONLY: Final = (
    "SELECT pg_catalog.set_config('transaction_read_only', 'on', true),"
    " pg_catalog.set_config('statement_timeout', %s, true)"
)


def probe(secret: Secret, tls: TLS, deadline: Deadline) -> Probe:
    """Log in as *secret* says, and out again; raises nothing for what the server does."""
    try:
        with session(secret, tls, deadline):
            return Probe()
    except ServerProblem as problem:
        return problem.probe


@contextmanager
def session(
    secret: Secret, tls: TLS, deadline: Deadline, *, proven: bool = True, as_application: bool = False
) -> "Iterator[Cursor]":
    """
    Log in, in one transaction: committed at the end of the block, rolled back if it fails.

    Args:
        secret: As whom, and where.

        tls: How.

        deadline: For all of it.

        proven: Whether to be let in without a password is a failure.  An administrator may be.

        as_application: Whether to be what an application is after its login, with all that is set for the
            role; in a transaction that reads only.

    Raises:
        ServerProblem: With what came of the login, or of a statement in the block.

        OutOfTime: There was no time to begin.
    """
    connection = _connect(secret, tls, deadline, proven=proven)
    try:
        with connection, connection.cursor() as cursor:
            if as_application:
                cursor.execute(_READ_ONLY, (_milliseconds(_CHECK_SECONDS, deadline),))
            else:
                cursor.execute(_PREPARED, (_milliseconds(_STATEMENT_SECONDS, deadline),) * 2)
            yield cursor
    except psycopg2.Error as error:
        raise ServerProblem(_judge_statement(error, where=_where(secret))) from error
    finally:
        connection.close()


def try_check(cursor: "Cursor", secret: Secret, statement: str) -> None:
    """
    Do what an application does first: *statement*, with a few seconds for it, undone in any case.

    Raises:
        ServerProblem: The server refuses it.
    """
    try:
        cursor.execute(statement)
    except psycopg2.Error as error:
        code = error.pgcode or ""
        if not code or code.startswith(("08", "57P")):
            raise
        # No text: it has the statement in it.
        what = f"{_where(secret)}: the statement in the secret's field 'check' failed with SQLSTATE {code}"
        raise ServerProblem(Probe(Reason.FAILED_CHECK, what, cause=error)) from error
    cursor.connection.rollback()


def _connect(secret: Secret, tls: TLS, deadline: Deadline, *, proven: bool) -> Any:
    wait = deadline.wait_seconds(
        _CONNECT_SECONDS, what=f"a login to {_where(secret)}", at_least=_LEAST_CONNECT_SECONDS
    )
    handled_already = sys.exception()
    try:
        return psycopg2.connect(
            host=secret.host,
            # A PGHOSTADDR of the environment would go before it.
            hostaddr="",
            port=secret.port("PostgreSQL"),
            user=secret.username,
            password=secret.password,
            dbname=secret.database("PostgreSQL"),
            connect_timeout=max(int(_LEAST_CONNECT_SECONDS), int(wait)),
            gssencmode="disable",
            # Else "trust" in pg_hba.conf would prove a password that no other address is let in with.
            **({"require_auth": _WITH_PASSWORD} if proven else {}),
            application_name="ledger_db.rotation",
            # A host that goes silent in the middle must not hold a statement beyond the deadline.
            tcp_user_timeout=int(1000 * deadline.remaining_seconds),
            **tls.for_libpq(secret.host),
        )
    except BaseException as error:
        # They hold the connection string with the password.
        forget_frames(error, but=handled_already)
        if not isinstance(error, psycopg2.OperationalError):
            raise
        probe = _judge_login(error, secret, tls, but=handled_already)
    raise ServerProblem(probe)


def _milliseconds(at_most: float, deadline: Deadline) -> str:
    return str(int(1000 * deadline.wait_seconds(at_most, what="a statement")))


def _where(secret: Secret) -> str:
    return (
        f"PostgreSQL at {secret.host}:{secret.port('PostgreSQL')}, "
        f"database {secret.database('PostgreSQL')}, as {secret.username}"
    )


def _judge_login(
    error: psycopg2.OperationalError, secret: Secret, tls: TLS, *, but: BaseException | None
) -> Probe:
    finding = find(error, but=but)
    words = told(finding, tls.ca_file, secret.host) or (
        f"the login failed in an unknown way ({describe(error)})"
    )
    return Probe(finding.reason, f"{_where(secret)}: {words}", cause=error)


def _judge_statement(error: psycopg2.Error, *, where: str) -> Probe:
    code = error.pgcode or ""
    if "concurrently updated" in str(error):
        # Two calls of one step at the same time: the other one's change is as good as this one's.
        return Probe(Reason.NOT_READY, f"{where}: somebody else changed the role at the same moment")
    if not code or code.startswith("08"):
        return Probe(Reason.NOT_READY, f"{where}: the connection broke")
    finding = by_sqlstate(code)
    # A refusal is about a login, and only after that may anything be written: a pooler may say so later.
    if finding is not None and finding.reason is not Reason.REFUSED:
        return Probe(finding.reason, f"{where}: {finding.words}")
    # No text: that of a syntax error has the statement in it.
    return Probe(Reason.UNKNOWN, f"{where}: the server answered with SQLSTATE {code}")
