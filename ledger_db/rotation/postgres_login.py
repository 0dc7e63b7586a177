"""
How does the rotator log in to PostgreSQL, and what does it mean if that fails?

After what nobody has seen nothing is written: a wrong guess would change a password for no reason.
"""

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, libpq_version

from ledger_db.answers.login_errors import find
from ledger_db.answers.postgres import NO_PLACE_FOR_ROLE
from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret
from ledger_db.answers.tls import TLS
from ledger_db.answers.tls_trouble import told
from ledger_db.redaction import describe, forget_frames
from ledger_db.rotation.passwords import new_password
from ledger_db.rotation.postgres_refusals import is_rolled_back, judged
from ledger_db.rotation.protocol import Deadline, Probe, ServerProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - it is a class

_CONNECT_SECONDS: Final = 5.0
# libpq rounds everything below up to this.
_LEAST_CONNECT_SECONDS: Final = 2.0
_STATEMENT_SECONDS: Final = 10.0
_CHECK_SECONDS: Final = 5.0
# A missing right, a write in a transaction that reads only, the end of its time.
_PLAIN: Final = frozenset({"42501", "25006", "57014"})
# Everything in which a password goes to the server or is proven to it; LDAP, PAM and RADIUS are "password".
_WITH_PASSWORD: Final = "password,md5,scram-sha-256"  # noqa: S105 - no password
# As libpq counts: the first version that knows SCRAM, and that knows a time for whole transactions.
_OLDEST_VERSION: Final = 10_00_00
_TRANSACTION_TIMEOUT: Final = 17_00_00
# One that somebody built psycopg2 with may be older, and costs a second login.
_LIBPQ_INSISTS: Final = libpq_version() >= 16_00_00


class RoleIsFull(ServerProblem):
    """
    The password is right, and the role has as many connections as it may have.

    PostgreSQL says so after the password was accepted, never before.
    """


def probe(secret: Secret, tls: TLS, deadline: Deadline) -> Probe:
    """Log in as *secret* says, and out again; raises nothing for what the server does."""
    try:
        with session(secret, tls, deadline):
            return Probe()
    except ServerProblem as problem:
        # The password works.  An application's own pool must not end a rotation that somebody else can make.
        if isinstance(problem, RoleIsFull) and secret.administrator_field is not None:
            return Probe(what=problem.probe.what)
        return problem.probe


@contextmanager
def session(
    secret: Secret,
    tls: TLS,
    deadline: Deadline,
    *,
    proven: bool = True,
    writes: bool = False,
    as_application: bool = False,
) -> "Iterator[Cursor]":
    """
    Log in, in one transaction: committed at the end of the block, rolled back if it fails.

    Args:
        secret: As whom, and where.

        tls: How.

        deadline: For all of it.

        proven: Whether to be let in without a password is a failure.  An administrator may be.

        writes: Whether something is to be changed, which a standby is asked for in vain.

        as_application: Whether to be what an application is after its login, with all that is set for the
            role; in a transaction that reads only.

    Raises:
        ServerProblem: With what came of the login, or of a statement in the block.

        OutOfTime: There was no time to begin.
    """
    if proven and not _LIBPQ_INSISTS:
        _insist_on_password(secret, tls, deadline)
    connection = _connect(secret, tls, deadline, proven=proven and _LIBPQ_INSISTS)
    try:
        # Begin and end are said here: together with all that is set, in one message.
        connection.autocommit = True
        with connection.cursor() as cursor:
            if as_application:
                milliseconds = _milliseconds(_CHECK_SECONDS, deadline)
                cursor.execute(f"BEGIN READ ONLY; SET LOCAL statement_timeout = {milliseconds}")
            else:
                _begin(cursor, deadline, where=_where(secret), writes=writes)
            yield cursor
            if connection.info.transaction_status != TRANSACTION_STATUS_IDLE:
                cursor.execute("COMMIT")
    except psycopg2.Error as error:
        probe = judged(error, where=_where(secret))
        raise ServerProblem(probe, is_untouched=is_rolled_back(error)) from error
    finally:
        # What is not committed by now is rolled back.
        connection.close()


def try_check(cursor: "Cursor", secret: Secret, statement: str) -> None:
    """
    Do what an application does first: *statement*, with a few seconds for it, undone in any case.

    Raises:
        ServerProblem: The server refuses it.
    """
    # From inside a block: a COMMIT in the text would end the transaction that reads only, and everything
    # after a ';' would have a clock of its own, which a SET before it stops.
    block = sql.SQL("BEGIN EXECUTE {}; END").format(sql.Literal(statement)).as_string(cursor)
    try:
        cursor.execute(sql.SQL("DO {}").format(sql.Literal(block)))
    except psycopg2.Error as error:
        # By how grave it is, not by its code: the statement may raise whichever its author likes.
        if error.diag.severity_nonlocalized != "ERROR":
            raise
        what = f"{_where(secret)}: the statement in the secret's field 'check' failed with {_said(error)}"
        raise ServerProblem(Probe(Reason.FAILED_CHECK, what, cause=error)) from error
    cursor.execute("ROLLBACK")


def _said(error: psycopg2.Error) -> str:
    """Return the SQLSTATE, and the sentence where it has the names of things that are there, and no more."""
    # Others repeat a piece of the statement, or a value; RAISE says whatever its author likes.
    is_plain = error.pgcode in _PLAIN and error.diag.source_function != "exec_stmt_raise"
    return f"SQLSTATE {error.pgcode}" + (f" ({error.diag.message_primary})" if is_plain else "")


def _insist_on_password(secret: Secret, tls: TLS, deadline: Deadline) -> None:
    """
    Prove the login that comes next, by one with another password that has to be refused.

    Raises:
        ServerProblem: It is let in, or there is no clear answer.
    """
    another = Secret(secret.name, secret.version, {**secret.fields, "password": new_password()})
    try:
        _connect(another, tls, deadline, proven=False).close()
    except ServerProblem as problem:
        if problem.reason not in {Reason.REFUSED, Reason.NO_LOGIN}:
            raise
        return
    raise ServerProblem(
        Probe(Reason.NO_PASSWORD, f"{_where(secret)}: the server asks this address for no password")
    )


def _connect(secret: Secret, tls: TLS, deadline: Deadline, *, proven: bool) -> Any:
    wait = deadline.wait_seconds(
        _CONNECT_SECONDS, what=f"a login to {_where(secret)}", at_least=_LEAST_CONNECT_SECONDS
    )
    handled_already = sys.exception()
    try:
        connection = psycopg2.connect(
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
            # A role may have one set that psycopg2 does not know.
            client_encoding="UTF8",
            # A host that goes silent in the middle must not hold a statement beyond the deadline.
            tcp_user_timeout=int(1000 * deadline.remaining_seconds),
            **tls.for_libpq(secret.host),
        )
    except BaseException as error:
        # They hold the connection string with the password.
        forget_frames(error, but=handled_already)
        if not isinstance(error, psycopg2.OperationalError):
            raise
        problem = _failed_login(error, secret, tls, but=handled_already)
    else:
        if connection.server_version >= _OLDEST_VERSION:
            return connection
        connection.close()
        # It would take a verifier for the password itself.
        words = "it is older than PostgreSQL 10, which was the first to know the verifiers that are set here"
        problem = ServerProblem(Probe(Reason.UNSUPPORTED, f"{_where(secret)}: {words}"), is_untouched=True)
    raise problem


def _milliseconds(at_most: float, deadline: Deadline) -> int:
    # 0 is none at all, for PostgreSQL.
    return max(1, int(1000 * deadline.wait_seconds(at_most, what="a statement")))


def _begin(cursor: "Cursor", deadline: Deadline, *, where: str, writes: bool) -> None:
    milliseconds = _milliseconds(_STATEMENT_SECONDS, deadline)
    # One message: what a role or a database has set by default may be over before a second one arrives.
    # LOCAL: a pooler hands the session on to an application.
    statements = [
        # Serializable by default would be refused by a standby.
        f"BEGIN ISOLATION LEVEL READ COMMITTED{' READ WRITE' if writes else ''}",
        # First none, which ends the clocks that run already.
        "SET LOCAL statement_timeout = 0",
        "SET LOCAL transaction_timeout = 0"
        if cursor.connection.server_version >= _TRANSACTION_TIMEOUT
        else "",
        f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds}",
        f"SET LOCAL lock_timeout = {milliseconds}",
        # Whoever owns a schema of this database could put a function of their own where an administrator's
        # statement finds it first.
        "SET LOCAL search_path = pg_catalog",
        # An application's role may be SET ROLE to its owner by default, and is then not allowed to change its
        # own password.
        "SET LOCAL role = none",
        f"SET LOCAL statement_timeout = {milliseconds}",
    ]
    try:
        cursor.execute("; ".join(filter(None, statements)))
    except psycopg2.errors.FeatureNotSupported as error:
        what = f"{where}: it is a standby, which takes no writes"
        raise ServerProblem(
            Probe(Reason.FORBIDDEN, what, cause=error),
            next_move="name the writer in 'host' of the secret whose user that is",
            is_untouched=True,
        ) from error


def _where(secret: Secret) -> str:
    return (
        f"PostgreSQL at {secret.host}:{secret.port('PostgreSQL')}, "
        f"database {secret.database('PostgreSQL')}, as {secret.username}"
    )


def _failed_login(
    error: psycopg2.OperationalError, secret: Secret, tls: TLS, *, but: BaseException | None
) -> ServerProblem:
    finding = find(error, but=but)
    words = told(finding, tls.ca_file, secret.host) or (
        f"the login failed in an unknown way ({describe(error)})"
    )
    kind = RoleIsFull if finding == NO_PLACE_FOR_ROLE else ServerProblem
    return kind(Probe(finding.reason, f"{_where(secret)}: {words}", cause=error), is_untouched=True)
