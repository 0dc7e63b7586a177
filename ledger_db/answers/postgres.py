"""
What PostgreSQL says, and the poolers in front of it, to a login and to a statement of a rotation.

The first text that is found counts.  Texts go before codes: 28000 is both "role is not permitted to log in"
and "no pg_hba.conf entry", and a pooler says all of its own with 08P01.  libpq gives no SQLSTATE for a failed
connect at all, whichever driver is above it; asyncpg always gives one.

The server's messages are in its own ``lc_messages``, which no client chooses before it is logged in.  A
translation means what its English sentence means.  What is unknown fails safe, in a retry that is not made;
failing unsafe floods a server, or changes a password for no reason.
"""

import re
from functools import cache
from typing import Final

from ledger_db.answers.reason import Finding, Reason, Text, text

_WRONG_PASSWORD: Final = Finding(Reason.REFUSED, "the server refused the password, or knows no such user")
_NO_PLACE: Final = Finding(Reason.TOO_MANY_CONNECTIONS, "no connection is free")
NO_PLACE_FOR_ROLE: Final = Finding(
    Reason.TOO_MANY_CONNECTIONS, "the role has as many connections as it may have"
)
"""Told after the password, which was accepted."""
_STARTING: Final = Finding(Reason.NOT_READY, "the server is starting or stopping")

NOT_WITHOUT_TLS: Final = Finding(Reason.FORBIDDEN, "nobody is let in without TLS")

# %s, and where a language has another order: %2$s.
_DIRECTIVE: Final = re.compile(r"%(?:\d+\$)?[sd]")

# What only a pooler says, and before any server has heard of it: at a login, or in the middle of the work.
POOLER_TEXTS: Final[tuple[Text, ...]] = (
    # The server has refused somebody's login, a while ago, which is no answer to this one's password.
    text(
        r"server_login_retry|server login has been failing|cannot connect to server|query_wait_timeout"
        r"|client_login_timeout|pause failed|all backend nodes are down"
        r"|(pooler|pgbouncer|FATAL:\s+server|^server)( is)? shutting down",
        Finding(Reason.NOT_READY, "the pooler has no server at the moment"),
    ),
    # Before the tokens that are refused for themselves.
    text(r"IAM authentication failed because of too many", _NO_PLACE),
    # Before the demand for TLS: libpq's "prefer" asks once more without, and shows both answers.
    text(
        r"(no credentials|password that was provided) for the role|IAM authentication failed"
        r"|no such user|tenant or user not found|FATAL:?\s+auth failed|^auth failed",
        _WRONG_PASSWORD,
    ),
    text(
        r"Timed.out waiting to acquire database connection|\(max_\w+\)|resources exhaustion"
        r"|client connections to the proxy|max client(s| connections) reached"
        r"|not accepting any more new connections",
        _NO_PLACE,
    ),
    text(
        r"requires TLS connections|only with SSL connections|connection is insecure"
        r"|SSL connection is required|(SSL|TLS connection|TLS client certificate) required",
        NOT_WITHOUT_TLS,
    ),
    text(
        r"RDS( Proxy)? supports only|RDS Proxy currently does|unsupported (options )?startup parameter"
        r"|old V2 protocol|no authentication method is found|server login failed: "
        r"|user ?name (is missing|too long)",
        Finding(
            Reason.UNSUPPORTED, "the proxy or the pooler does not take this kind of login, or an option of it"
        ),
    ),
    text(r"no such database: ", Finding(Reason.NO_DATABASE, "the pooler knows no such database")),
    text(
        r"database \".*\" is disabled|database does not allow connections|login rejected"
        r"|bouncer config error|unexpected response from login query",
        Finding(Reason.FORBIDDEN, "the pooler is configured to let it in nowhere"),
    ),
)

TEXTS: Final[tuple[Text, ...]] = (
    *POOLER_TEXTS,
    # Not among those: what was under way at a server may have been done.
    text(
        r"server conn crashed|admin forced disconnect|database removed|suspend_timeout|client_idle_timeout"
        r"|(query|idle transaction|transaction)[ _]timeout$",
        Finding(Reason.NOT_READY, "the pooler ended the connection"),
    ),
    text(
        r"server does not support SSL|rejected SSL upgrade|SSL is not supported",
        Finding(Reason.NO_TLS, "the server has no TLS, and without it no login is tried"),
    ),
    # What libpq makes of it, if it was told to insist on a password.
    text(
        r"authentication method requirement .* failed: server did not complete authentication",
        Finding(Reason.NO_PASSWORD, "the server asks this address for no password"),
    ),
    text(
        r"(peer|ident|certificate) authentication failed|authentication method requirement .* failed",
        Finding(Reason.FORBIDDEN, "pg_hba.conf asks this address for something else than a password"),
    ),
    text(
        r"(password|SASL|PAM|LDAP|RADIUS|GSSAPI|BSD|SSPI|OAuth bearer) authentication failed",
        _WRONG_PASSWORD,
    ),
    # In every language.  After the password: libpq's "prefer" asks again without TLS, and shows both answers.
    text(r"pg_hba\.conf.*(no encryption|SSL off)", NOT_WITHOUT_TLS),
    text(r"pg_hba\.conf", Finding(Reason.FORBIDDEN, "pg_hba.conf does not let it in")),
    text(r"role \".*\" is not permitted to log in", Finding(Reason.NO_LOGIN, "the role is NOLOGIN")),
    text(r"role \".*\" does not exist|no password supplied", _WRONG_PASSWORD),
    text(r"database \".*\" does not exist", Finding(Reason.NO_DATABASE, "the database does not exist")),
    text(
        r"permission denied for database",
        Finding(Reason.FORBIDDEN, "the user may not connect to the database"),
    ),
    text(
        r"the database system is (starting up|shutting down|in recovery mode)"
        r"|the database system is not (yet )?accepting connections"
        r"|terminating connection (due to administrator command|because of crash)",
        _STARTING,
    ),
    text(r"canceling authentication due to timeout", Finding(Reason.NOT_READY, "the login took too long")),
    text(
        r"database \".*\" is not currently accepting connections",
        Finding(Reason.FORBIDDEN, "the database takes no connections"),
    ),
    # What libpq and asyncpg make of it; the server itself does not refuse.
    text(
        r"server is in hot standby mode|session is read-only|None of the hosts match the target attribute",
        Finding(Reason.NOT_PRIMARY, "it is a standby, which takes no writes"),
    ),
    text(r"too many connections for role", NO_PLACE_FOR_ROLE),
    text(r"too many clients already|too many connections for|connection slots are reserved", _NO_PLACE),
    text(
        r"invalid connection option|invalid (sslmode|target_session_attrs)"
        r"|authentication method .* not supported",
        Finding(Reason.UNSUPPORTED, "client and server have no way to authenticate in common"),
    ),
)


def find_of_a_pooler(error: BaseException) -> Finding | None:
    """Return what *error*, a driver's, means if only a pooler says so, of what no server has heard of."""
    said = str(error)
    return next((row.finding for row in POOLER_TEXTS if row.pattern.search(said)), None)


@cache
def translated_texts() -> tuple[Text, ...]:
    """Return what TEXTS says, for every language that PostgreSQL speaks."""
    # Here, not above: few programs ever meet a server that speaks something else than English.
    from ledger_db.answers.postgres_translations import TRANSLATIONS  # noqa: PLC0415

    patterns: dict[Finding, list[str]] = {}
    for sentence, translations in TRANSLATIONS.items():
        finding = next(row.finding for row in TEXTS if row.pattern.search(sentence))
        patterns.setdefault(finding, []).extend(map(_pattern_of, translations))
    # One for each finding: a hundred would take ten times as long to be tried.
    return tuple(Text("|".join(each), finding) for finding, each in patterns.items())


def _pattern_of(format_of_c: str) -> str:
    # Catalogues differ in where they break lines, and in the spaces beside quotation marks.
    words = (r"\s*".join(map(re.escape, piece.split(" "))) for piece in _DIRECTIVE.split(format_of_c))
    return ".*".join(words)


# PostgreSQL's documentation, appendix A.  A two-letter key stands for its whole class.
SQLSTATES: Final[dict[str, Finding]] = {
    "28P01": _WRONG_PASSWORD,  # invalid_password
    "28000": _WRONG_PASSWORD,  # invalid_authorization_specification; RDS Proxy and PAM use it too
    "3D000": Finding(Reason.NO_DATABASE, "the database does not exist"),  # invalid_catalog_name
    "57P04": Finding(Reason.NO_DATABASE, "the database was dropped"),  # database_dropped
    "57P05": Finding(Reason.NOT_READY, "the server ended an idle session"),  # idle_session_timeout
    "57014": Finding(Reason.NOT_READY, "a statement took too long"),  # query_canceled
    "57": _STARTING,  # operator_intervention: admin_shutdown, crash_shutdown, cannot_connect_now
    "55006": Finding(Reason.NOT_READY, "somebody else is using the database, or copying it"),  # object_in_use
    "55P03": Finding(Reason.NOT_READY, "a lock was not free in time"),  # lock_not_available
    "53300": _NO_PLACE,  # too_many_connections
    "53": Finding(Reason.TOO_MANY_CONNECTIONS, "the server is out of resources"),  # insufficient_resources
    # sqlserver_rejected_establishment_of_sqlconnection
    "08004": Finding(Reason.FORBIDDEN, "the server rejected the connection"),
    "08P01": Finding(Reason.UNSUPPORTED, "the server broke the protocol"),  # protocol_violation
    "08": Finding(Reason.NOT_READY, "the connection broke"),  # connection_exception
    # insufficient_privilege: of a login, CONNECT was revoked
    "42501": Finding(Reason.FORBIDDEN, "the server does not permit it (insufficient privilege)"),
    # read_only_sql_transaction
    "25006": Finding(Reason.FORBIDDEN, "it is a read-only replica; the secret has to name the writer"),
    "42704": Finding(Reason.FAILED_CHECK, "there is no such role"),  # undefined_object
    "0A000": Finding(Reason.UNSUPPORTED, "the server cannot do that"),  # feature_not_supported
    "22023": Finding(Reason.UNSUPPORTED, "the server does not take that value"),  # invalid_parameter_value
}

# Of a statement.  Most of what a standby refuses is 25006; SERIALIZABLE and a few functions have other codes.
_READ_ONLY: Final = "25006"
_OF_A_STANDBY: Final = re.compile(r"hot standby|during recovery|recovery is in progress", re.IGNORECASE)


def takes_no_writes(error: BaseException) -> bool:
    """Whether *error*, a driver's, is a statement's that only a server that takes writes could have done."""
    code = own_sqlstate(error)
    return code == _READ_ONLY or (code is not None and _OF_A_STANDBY.search(str(error)) is not None)


# By the function of the server's that says so, which no language translates.
_OUTDATED: Final = {
    ("0A000", "RevalidateCachedQuery"),  # feature_not_supported: the cached plan's columns have changed
    ("26000", "FetchPreparedStatement"),  # invalid_sql_statement_name: somebody has deallocated it
    ("42704", "lookup_type_cache"),  # undefined_object: a type that was made anew has another OID
}
# What PostgreSQL thinks cannot happen it says in English only, and under one code for everything.
_INTERNAL_ERROR: Final = "XX000"
_HAS_GONE: Final = re.compile(r"cache lookup failed for|could not open relation with OID")


def is_outdated(error: BaseException) -> bool:
    """Whether *error*, a driver's, is of a statement that was prepared before the tables or types moved."""
    code = own_sqlstate(error)
    if code is None:
        # asyncpg's own, which has compared a row with what it knew of its type.
        return type(error).__name__ == "OutdatedSchemaCacheError"
    if code == _INTERNAL_ERROR:
        return _HAS_GONE.search(str(error)) is not None
    said_by = getattr(error, "server_source_function", None)  # asyncpg's name for it
    if said_by is None:
        said_by = getattr(getattr(error, "diag", None), "source_function", None)
    return (code, said_by) in _OUTDATED


def by_sqlstate(code: str) -> Finding | None:
    """Return what the SQLSTATE *code* means, else what its class does; None if neither is in the table."""
    return SQLSTATES.get(code) or SQLSTATES.get(code[:2])


def own_sqlstate(error: object) -> str | None:
    """Return the SQLSTATE that a driver has given to this very *error*; None if it is none of a driver's."""
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code if isinstance(code, str) else None
