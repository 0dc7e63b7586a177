"""
Which error means what.

One question, asked of an error from any of the drivers: was the login refused (look for newer credentials),
will trying again help, or must a person mend something?  The table is the whole answer.  asyncpg gives an
SQLSTATE; libpq gives none for a failed connect, so its text has to be read.
"""

import errno
import re
import ssl
from collections.abc import Iterator
from enum import Enum
from typing import Final


class Verdict(Enum):
    """What an error of a connection attempt asks for."""

    REFUSED = "refused"
    """The server rejects this login; another version of the secret may be accepted."""

    TRANSIENT = "transient"
    """Trying the same again may work."""

    PERMANENT = "permanent"
    """Only a person can mend it; also the verdict on what nobody has ever seen."""


_REFUSED, _TRANSIENT, _PERMANENT = Verdict.REFUSED, Verdict.TRANSIENT, Verdict.PERMANENT

# Text goes before codes: 28000 is both "role is not permitted to log in" and "no pg_hba.conf entry".
# The server's messages are in its own lc_messages; a translated one is unknown here, hence PERMANENT at
# startup and left alone in a login.  Failing safe costs a retry, failing unsafe floods a server.
MESSAGES: Final[tuple[tuple[str, Verdict], ...]] = (
    (r"no pg_hba\.conf entry|pg_hba\.conf rejects", _PERMANENT),
    (r"certificate verify failed|certificate has expired|self.signed certificate", _PERMANENT),
    (r"root certificate file .* does not exist|could not read root certificate", _PERMANENT),
    (r"server certificate for .* does not match host name|Hostname mismatch", _PERMANENT),
    (r"server does not support SSL|rejected SSL upgrade|SSL is not supported", _PERMANENT),
    (r"invalid connection option|invalid sslmode|authentication method .* not supported", _PERMANENT),
    (r"(password|SASL|PAM|LDAP|RADIUS|GSSAPI|IAM) authentication failed", _REFUSED),
    (r"(no credentials|password that was provided) for the role", _REFUSED),  # RDS Proxy
    (r"role \".*\" is not permitted to log in", _REFUSED),
    (r"role \".*\" does not exist", _REFUSED),
    (r"no password supplied", _REFUSED),
    (r"database \".*\" does not exist|permission denied for database", _PERMANENT),
    (r"the database system is (starting up|shutting down|in recovery mode)", _TRANSIENT),
    (r"the database system is not (yet )?accepting connections", _TRANSIENT),
    (r"too many clients already|too many connections for|connection slots are reserved", _TRANSIENT),
    (r"Connection refused|Connection reset by peer|Connection timed out|Broken pipe", _TRANSIENT),
    (r"timeout expired|No route to host|Network is unreachable|Host is down", _TRANSIENT),
    (r"server closed the connection unexpectedly|SSL SYSCALL error|closed in the middle", _TRANSIENT),
    (r"could not translate host name|failed to resolve host|Temporary failure in name", _TRANSIENT),
    (r"unexpected connection_lost|connection is lost|consuming input failed", _TRANSIENT),
    # Redis and Valkey
    (r"WRONGPASS|invalid username-password pair|invalid password|user is disabled", _REFUSED),
    (r"NOAUTH|HELLO must be called with the client already authenticated", _REFUSED),
    (r"Authentication required|AUTH .*called without any password configured", _REFUSED),
    (r"LOADING|BUSY |MASTERDOWN|CLUSTERDOWN|TRYAGAIN|max number of clients reached", _TRANSIENT),
    (r"Connection closed by server|Error while reading from|Timeout (connecting|reading)", _TRANSIENT),
    (r"NOPERM|DENIED Redis is running in protected mode|invalid DB index|DB index is out", _PERMANENT),
)

# PostgreSQL's documentation, appendix A.  A two-letter key stands for its whole class.
SQLSTATES: Final[dict[str, Verdict]] = {
    "28P01": _REFUSED,  # invalid_password
    "28000": _REFUSED,  # invalid_authorization_specification; RDS Proxy and PAM use it too
    "57P01": _TRANSIENT,  # admin_shutdown
    "57P02": _TRANSIENT,  # crash_shutdown
    "57P03": _TRANSIENT,  # cannot_connect_now
    "57P05": _TRANSIENT,  # idle_session_timeout
    "55006": _TRANSIENT,  # object_in_use: the database is being cloned
    "53": _TRANSIENT,  # insufficient_resources, too_many_connections among them
    "08004": _PERMANENT,  # sqlserver_rejected_establishment_of_sqlconnection
    "08P01": _PERMANENT,  # protocol_violation
    "08": _TRANSIENT,  # connection_exception
    "3D000": _PERMANENT,  # invalid_catalog_name
    "42501": _PERMANENT,  # insufficient_privilege: CONNECT was revoked
    "0A000": _PERMANENT,  # feature_not_supported
    "22023": _PERMANENT,  # invalid_parameter_value
}

_TRANSIENT_ERRNOS: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ETIMEDOUT,
    }
)
# A resolver that lags behind (containers that start together) is transient; startup bounds it anyway.
# TimeoutError and ConnectionError are OSErrors, but raised by hand they carry no errno.
_TRANSIENT_NAMES: Final = frozenset(
    {"gaierror", "ConnectionTimeout", "IncompleteReadError", "BusyLoadingError"}
)

_PATTERNS: Final = tuple((re.compile(pattern, re.IGNORECASE), verdict) for pattern, verdict in MESSAGES)


def judge(error: BaseException) -> Verdict:
    """Return what *error*, raised while connecting, asks for; its causes are looked at too."""
    for link in _chain(error):
        verdict = _judge_one(link)
        if verdict is not None:
            return verdict
    return Verdict.PERMANENT


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of *error* or of what caused it; None where the driver gives none."""
    for link in _chain(error):
        code = own_sqlstate(link)
        if code is not None:
            return code
    return None


def _judge_one(error: BaseException) -> Verdict | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Verdict.PERMANENT
    text = str(error)
    for pattern, verdict in _PATTERNS:
        if pattern.search(text):
            return verdict
    code = own_sqlstate(error)
    if code is not None:
        return SQLSTATES.get(code) or SQLSTATES.get(code[:2])
    transient = (
        isinstance(error, TimeoutError | ConnectionError | EOFError)
        or type(error).__name__ in _TRANSIENT_NAMES
        or (isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS)
    )
    return Verdict.TRANSIENT if transient else None


def own_sqlstate(error: object) -> str | None:
    """Return the SQLSTATE that a driver has given to this very *error*; None if it is none of a driver's."""
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code if isinstance(code, str) else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield *error*, the driver error that SQLAlchemy wrapped, and their causes, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop(0)
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        # __context__ only where it was not set aside by "from None".
        context = None if link.__suppress_context__ else link.__context__
        waiting += [getattr(link, "orig", None), link.__cause__, context]
