"""
How does the rotator log in to PostgreSQL, and what does it mean if that fails?

libpq gives no SQLSTATE for a failed connect, so its text has to be read.  A text that nobody has seen is
``UNKNOWN``, and after that nothing is written: a wrong guess here would change a password for no reason.
"""

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg2

from ledger_db.redaction import describe
from ledger_db.rotation.protocol import TLS, Deadline, Probe, Secret, ServerProblem, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - it is a class

PORT: Final = 5432

_CONNECT_SECONDS: Final = 5.0
# libpq rounds everything below up to this.
_LEAST_CONNECT_SECONDS: Final = 2.0
_STATEMENT_SECONDS: Final = 10.0

# The first that matches counts: a refused TLS handshake is also a connection that was closed.
_TEXTS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), verdict, what)
    for pattern, verdict, what in (
        (r"could not translate host name", Verdict.NO_ADDRESS, "DNS knows no such host"),
        (
            r"server does not support SSL",
            Verdict.NO_TLS,
            "the server has no TLS, and without it no login is tried",
        ),
        (
            r"does not match host name",
            Verdict.WRONG_CERTIFICATE,
            "the server's certificate is for another host name",
        ),
        (
            r"certificate verify failed|self.signed certificate|certificate has expired",
            Verdict.WRONG_CERTIFICATE,
            "the server's certificate is not trusted",
        ),
        (
            r"root certificate file|root certificate",
            Verdict.WRONG_CERTIFICATE,
            "the file with the CA certificates cannot be read",
        ),
        (r"no pg_hba\.conf entry|pg_hba\.conf rejects", Verdict.FORBIDDEN, "pg_hba.conf does not let it in"),
        (r"permission denied for database", Verdict.FORBIDDEN, "the user may not connect to the database"),
        (r"is not permitted to log in", Verdict.FORBIDDEN, "the role is NOLOGIN"),
        (
            r"authentication failed|role \".*\" does not exist|no password supplied",
            Verdict.REFUSED,
            "the server refused the password, or knows no such user",
        ),
        (r"database \".*\" does not exist", Verdict.NO_DATABASE, "the database does not exist"),
        (
            r"too many clients|too many connections|connection slots are reserved",
            Verdict.TOO_MANY_CONNECTIONS,
            "no connection is free",
        ),
        (r"Connection refused", Verdict.CLOSED_PORT, "nobody listens on that port"),
        (
            r"timeout expired|timed out|No route to host|Network is unreachable|Host is down",
            Verdict.NO_ANSWER,
            "no answer at all",
        ),
        (
            r"starting up|shutting down|in recovery mode|not (yet )?accepting connections",
            Verdict.NOT_READY,
            "the server is starting or stopping",
        ),
        (
            r"terminating connection|server closed the connection|Connection reset|SSL SYSCALL|Broken pipe",
            Verdict.NOT_READY,
            "the server broke the connection off",
        ),
    )
)

# Of statements, where there is a code.  A two-letter key stands for its whole class.
_CODES: Final = {
    "42501": (Verdict.FORBIDDEN, "the server does not permit it (insufficient privilege)"),
    "25006": (Verdict.FORBIDDEN, "it is a read-only replica; the secret has to name the writer"),
    "42704": (Verdict.FAILED_CHECK, "there is no such role"),
    "57014": (Verdict.NOT_READY, "a statement took too long"),
    "55P03": (Verdict.NOT_READY, "a lock was not free in time"),
    "57": (Verdict.NOT_READY, "the server is starting or stopping"),
    "53": (Verdict.TOO_MANY_CONNECTIONS, "the server is out of resources"),
    "08": (Verdict.NOT_READY, "the connection broke"),
}


def probe(secret: Secret, tls: TLS, deadline: Deadline) -> Probe:
    """Log in as *secret* says, and out again; raises nothing for what the server does."""
    try:
        with session(secret, tls, deadline):
            return Probe(Verdict.OK)
    except ServerProblem as problem:
        return problem.probe


@contextmanager
def session(secret: Secret, tls: TLS, deadline: Deadline) -> "Iterator[Cursor]":
    """
    Log in, in one transaction: committed at the end of the block, rolled back if it fails.

    Raises:
        ServerProblem: With what came of the login, or of a statement in the block.

        OutOfTime: There was no time to begin.
    """
    connection = _connect(secret, tls, deadline)
    try:
        with connection, connection.cursor() as cursor:
            _prepare(cursor, deadline)
            yield cursor
    except psycopg2.Error as error:
        raise ServerProblem(_judge_statement(error, where=_where(secret))) from error
    finally:
        connection.close()


def _connect(secret: Secret, tls: TLS, deadline: Deadline) -> Any:
    where = _where(secret)
    wait = deadline.wait_seconds(
        _CONNECT_SECONDS, what=f"a login to {where}", at_least=_LEAST_CONNECT_SECONDS
    )
    mode = tls.mode_for(secret.host)
    # "system" instead of nothing: libpq would look for a file in a home directory that a Lambda has not got.
    trust = tls.ca_file or ("system" if mode == "verify-full" else None)
    try:
        return psycopg2.connect(
            host=secret.host,
            port=secret.port(default=PORT),
            user=secret.username,
            password=secret.password,
            dbname=database_of(secret),
            connect_timeout=max(int(_LEAST_CONNECT_SECONDS), int(wait)),
            sslmode=mode,
            gssencmode="disable",
            application_name="ledger_db.rotation",
            # A host that goes silent in the middle must not hold a statement beyond the deadline.
            tcp_user_timeout=int(1000 * deadline.remaining_seconds),
            **({} if trust is None else {"sslrootcert": trust}),
        )
    except psycopg2.OperationalError as error:
        probe = _judge_login(error, where=where)
    # Out here, so that the error is neither cause nor context: the frames of psycopg2 hold the connection
    # string with the password, and there are tools that report the local variables of every frame.
    raise ServerProblem(probe)


def _prepare(cursor: "Cursor", deadline: Deadline) -> None:
    milliseconds = int(1000 * deadline.wait_seconds(_STATEMENT_SECONDS, what="a statement"))
    # An application's role may be SET ROLE to its owner by default, and is then not allowed to change its own
    # password.  The search path: whoever owns a schema of this database could put a function of their own
    # where an administrator's statement finds it first.
    cursor.execute(
        "SELECT pg_catalog.set_config('search_path', 'pg_catalog', false),"
        " pg_catalog.set_config('role', 'none', false),"
        " pg_catalog.set_config('statement_timeout', %s, false),"
        " pg_catalog.set_config('lock_timeout', %s, false)",
        (str(milliseconds), str(milliseconds)),
    )


def database_of(secret: Secret) -> str:
    """Return the database to connect to: ``postgres``, as with AWS, where a secret names none."""
    return secret.text("dbname", default=secret.text("database", default="postgres"))


def _where(secret: Secret) -> str:
    return (
        f"PostgreSQL at {secret.host}:{secret.port(default=PORT)}, "
        f"database {database_of(secret)}, as {secret.username}"
    )


def _judge_login(error: psycopg2.OperationalError, *, where: str) -> Probe:
    text = str(error)
    for pattern, verdict, what in _TEXTS:
        if pattern.search(text):
            return Probe(verdict, f"{where}: {what}")
    return Probe(Verdict.UNKNOWN, f"{where}: the login failed in an unknown way ({describe(error)})")


def _judge_statement(error: psycopg2.Error, *, where: str) -> Probe:
    code = error.pgcode or ""
    if "concurrently updated" in str(error):
        # Two calls of one step at the same time: the other one's change is as good as this one's.
        return Probe(Verdict.NOT_READY, f"{where}: somebody else changed the role at the same moment")
    found = _CODES.get(code) or _CODES.get(code[:2])
    if found is not None:
        return Probe(found[0], f"{where}: {found[1]}")
    if not code:
        return Probe(Verdict.NOT_READY, f"{where}: the connection broke")
    # No text: that of a syntax error has the statement in it.
    return Probe(Verdict.UNKNOWN, f"{where}: the server answered with SQLSTATE {code}")
