"""
What does the error of a failed login mean?

One question, asked of an error from any driver, in a service as in a rotation.  What the server said goes
before what happened on the way to it: where a name has two addresses, one of which is closed, the answer of
the other one counts.
"""

import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from ledger_db.answers import postgres, redis
from ledger_db.answers.postgres import by_sqlstate, own_sqlstate
from ledger_db.answers.reason import UNKNOWN, Finding, Reason, Text, Verdict, text
from ledger_db.answers.server_settings import SettingRefused

_NO_ADDRESS: Final = Finding(Reason.NO_ADDRESS, "DNS knows no such host")
_CLOSED_PORT: Final = Finding(Reason.CLOSED_PORT, "nobody listens on that port")
NO_ANSWER: Final = Finding(Reason.NO_ANSWER, "no answer at all")
BROKEN: Final = Finding(Reason.NOT_READY, "the server broke the connection off")
NOT_TRUSTED: Final = Finding(Reason.WRONG_CERTIFICATE, "the server's certificate is not trusted")
WRONG_NAME: Final = Finding(Reason.WRONG_CERTIFICATE, "the server's certificate is for another host name")
EXPIRED: Final = Finding(Reason.WRONG_CERTIFICATE, "the server's certificate has expired")
NO_AUTHORITIES: Final = Finding(Reason.WRONG_CERTIFICATE, "the file with the CA certificates cannot be read")
CLIENT_UNKNOWN: Final = Finding(Reason.UNSUPPORTED, "the server asks for a certificate of the client")
NO_TLS: Final = Finding(Reason.NO_TLS, "the server has no TLS, and without it no login is tried")
NO_COMMON_TLS: Final = Finding(Reason.NO_TLS, "no TLS could be agreed on")
_SETTING: Final = Finding(Reason.UNSUPPORTED, "the server refuses a server setting")

# TLS first: a handshake that was refused is also a connection that was closed.
_ON_THE_WAY: Final[tuple[Text, ...]] = (
    text(
        r"does not match host name|Hostname mismatch|IP address mismatch|certificate is not valid for",
        WRONG_NAME,
    ),
    text(r"certificate has expired", EXPIRED),
    text(r"certificate.verify.failed|self.signed certificate", NOT_TRUSTED),
    text(r"root certificate|NO_CERTIFICATE_OR_CRL_FOUND|no certificate or crl found", NO_AUTHORITIES),
    text(r"certificate.required|valid client certificate", CLIENT_UNKNOWN),
    text(r"wrong.version.number|RECORD_LAYER", NO_TLS),
    text(r"could not translate host name|failed to resolve host|Temporary failure in name", _NO_ADDRESS),
    text(r"Connection refused", _CLOSED_PORT),
    text(
        r"timeout expired|timed out|Timeout (connecting|reading)|No route to host|Network is unreachable"
        r"|Host is down",
        NO_ANSWER,
    ),
    text(
        r"server closed the connection|terminating connection|Connection reset by peer|Broken pipe"
        r"|SSL SYSCALL error|closed in the middle|unexpected connection_lost|connection is lost"
        r"|consuming input failed|Error while reading from",
        BROKEN,
    ),
)

# Where there is neither a known text nor a code.  The first that fits counts.
_KINDS: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Finding], ...]] = (
    (ssl.SSLCertVerificationError, NOT_TRUSTED),
    (ssl.SSLError, NO_COMMON_TLS),
    (socket.gaierror, _NO_ADDRESS),
    (ConnectionRefusedError, _CLOSED_PORT),
    # asyncio's IncompleteReadError is an EOFError.
    ((ConnectionError, EOFError), BROKEN),
    (TimeoutError, NO_ANSWER),
)
# Of classes that may not be installed: psycopg's, redis-py's.
_NAMES: Final = {
    "ConnectionTimeout": NO_ANSWER,
    "BusyLoadingError": Finding(Reason.NOT_READY, "it is loading"),
}
# Every other OSError (a file that is not there, a missing right) is nothing that a server did.
_UNREACHABLE: Final = frozenset(
    {errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ETIMEDOUT}
)


def find(error: BaseException, *, but: BaseException | None = None) -> Finding:
    """
    Return what *error*, raised while connecting or logging in, means; its causes are looked at too.

    Args:
        error: What the driver raised, or who wrapped that.

        but: What was being handled already when the driver was called (`sys.exception`): Python makes it a
            context of *error*, and it says nothing about this login.
    """
    for link in _chain(error, but):
        finding = _find_in(link)
        if finding is not None:
            return finding
    return UNKNOWN


def judge(error: BaseException, *, but: BaseException | None = None) -> Verdict:
    """Return what *error* asks for; as `find`."""
    return find(error, but=but).reason.verdict


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of *error* or of what caused it; None where the driver gives none."""
    return next((code for link in _chain(error, None) if (code := own_sqlstate(link)) is not None), None)


def _find_in(error: BaseException) -> Finding | None:
    if isinstance(error, SettingRefused):
        # Before its cause: of a role that is not there the server has the same words for a login.
        return _SETTING
    said = str(error)
    for row in _rows_for(error):
        if row.pattern.search(said):
            return row.finding
    code = own_sqlstate(error)
    if code is not None:
        return by_sqlstate(code)
    for kind, finding in _KINDS:
        if isinstance(error, kind):
            return finding
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return NO_ANSWER
    return _NAMES.get(type(error).__name__)


def _rows_for(error: BaseException) -> Iterator[Text]:
    # By who raised it: a database of PostgreSQL may be called "BUSY BEES".
    if type(error).__module__.partition(".")[0] == "redis":
        yield from redis.TEXTS
    else:
        yield from postgres.TEXTS
        yield from postgres.translated_texts()
    yield from _ON_THE_WAY


def _chain(error: BaseException, but: BaseException | None) -> Iterator[BaseException]:
    """Yield *error*, the driver error that SQLAlchemy wrapped, and their causes, once, as far as *but*."""
    seen = {id(but)}
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
