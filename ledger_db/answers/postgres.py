"""
What PostgreSQL says, and the poolers in front of it, to a login and to a statement of a rotation.

The first text that is found counts.  Texts go before codes: 28000 is both "role is not permitted to log in"
and "no pg_hba.conf entry".  libpq gives no SQLSTATE for a failed connect at all; asyncpg always gives one.

The server's messages are in its own ``lc_messages``: a translated one is unknown here.  That fails safe, in a
retry that is not made; failing unsafe floods a server, or changes a password for no reason.
"""

import re
from typing import Final

from ledger_db.answers.reason import Finding, Reason, Text, text

_WRONG_PASSWORD: Final = Finding(Reason.REFUSED, "the server refused the password, or knows no such user")
_NO_PLACE: Final = Finding(Reason.TOO_MANY_CONNECTIONS, "no connection is free")
NO_PLACE_FOR_ROLE: Final = Finding(
    Reason.TOO_MANY_CONNECTIONS, "the role has as many connections as it may have"
)
"""Told after the password, which was accepted."""
_STARTING: Final = Finding(Reason.NOT_READY, "the server is starting or stopping")

NOT_WITHOUT_TLS: Final = Finding(Reason.FORBIDDEN, "pg_hba.conf does not let it in without TLS")

TEXTS: Final[tuple[Text, ...]] = (
    text(r"(no pg_hba\.conf entry|pg_hba\.conf rejects).*(no encryption|SSL off)", NOT_WITHOUT_TLS),
    text(
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        Finding(Reason.FORBIDDEN, "pg_hba.conf does not let it in"),
    ),
    text(
        r"server does not support SSL|rejected SSL upgrade|SSL is not supported",
        Finding(Reason.NO_TLS, "the server has no TLS, and without it no login is tried"),
    ),
    text(
        r"(peer|ident|certificate) authentication failed",
        Finding(Reason.FORBIDDEN, "pg_hba.conf asks this address for something else than a password"),
    ),
    text(
        r"(password|SASL|PAM|LDAP|RADIUS|GSSAPI|IAM|BSD|SSPI|OAuth bearer) authentication failed",
        _WRONG_PASSWORD,
    ),
    # RDS Proxy.
    text(r"(no credentials|password that was provided) for the role", _WRONG_PASSWORD),
    text(r"role \".*\" is not permitted to log in", Finding(Reason.NO_LOGIN, "the role is NOLOGIN")),
    text(r"role \".*\" does not exist|no password supplied", _WRONG_PASSWORD),
    text(r"database \".*\" does not exist", Finding(Reason.NO_DATABASE, "the database does not exist")),
    text(
        r"permission denied for database",
        Finding(Reason.FORBIDDEN, "the user may not connect to the database"),
    ),
    text(
        r"the database system is (starting up|shutting down|in recovery mode)"
        r"|the database system is not (yet )?accepting connections",
        _STARTING,
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


def by_sqlstate(code: str) -> Finding | None:
    """Return what the SQLSTATE *code* means, else what its class does; None if neither is in the table."""
    return SQLSTATES.get(code) or SQLSTATES.get(code[:2])


def own_sqlstate(error: object) -> str | None:
    """Return the SQLSTATE that a driver has given to this very *error*; None if it is none of a driver's."""
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code if isinstance(code, str) else None
