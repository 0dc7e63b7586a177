"""
TLS is in the way of a login: what does a person change?

The drivers say what went wrong, in words of OpenSSL, and not by which setting that is decided, nor which file
was looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ledger_db.answers.login_errors import (
    BROKEN,
    CLIENT_UNKNOWN,
    EXPIRED,
    NO_ANSWER,
    NO_AUTHORITIES,
    NO_COMMON_TLS,
    NO_TLS,
    NOT_TRUSTED,
    WRONG_NAME,
)
from ledger_db.answers.postgres import NOT_WITHOUT_TLS
from ledger_db.answers.reason import Finding
from ledger_db.answers.redis import HUNG_UP

RDS_BUNDLE: Final = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
"""Where AWS has the authorities of all its regions; no system brings them."""

_RDS: Final = (".rds.amazonaws.com", ".rds.amazonaws.com.cn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """
    How one server is spoken to, and what the settings are called that say so.

    Attributes:
        host: Of the server.

        ca_file: Whom to trust; None for the system's certificates.

        ca_setting: Names that file.

        tls: The setting with the value that asks for TLS.

        no_tls: The setting with the value that does without.

        any_name: The setting with the value that leaves the name unchecked; None if there is none.

        insists: Whether nothing but TLS is spoken now.
    """

    host: str
    ca_file: str | None
    ca_setting: str
    tls: str
    no_tls: str
    any_name: str | None = None
    insists: bool


def trusted(ca_file: str | None, host: str) -> str:
    """Say who is trusted now, and where the authorities of *host* are to be had, if that is known."""
    now = "the system's certificates" if ca_file is None else repr(ca_file)
    is_of_rds = host.lower().rstrip(".").endswith(_RDS)
    return f"{now}; those of RDS are in {RDS_BUNDLE}" if is_of_rds else now


def told(finding: Finding, ca_file: str | None, host: str) -> str:
    """Return the words of *finding*, and whom it was that was trusted, where they are about that."""
    about = f", by {trusted(ca_file, host)}" if finding in {NOT_TRUSTED, NO_AUTHORITIES} else ""
    return f"{finding.words}{about}"


def advice(finding: Finding, by: Protection) -> str | None:
    """Return what to change after *finding*, where a server is spoken to as *by* says; None if not TLS."""
    sentence = (_OF_ALL | (_OF_TLS if by.insists else _IN_CLEAR)).get(finding)
    return None if sentence is None else sentence(by)


def _instead(by: Protection) -> str:
    return f"instead of {trusted(by.ca_file, by.host)}"


def _any_name(by: Protection) -> str:
    return f", or set {by.any_name}" if by.any_name else ""


_Sentence = Callable[[Protection], str]
_OF_ALL: Final[dict[Finding, _Sentence]] = {
    NOT_TRUSTED: lambda by: (
        f"let {by.ca_setting} name the file with the authority of its certificate, {_instead(by)}"
    ),
    NO_AUTHORITIES: lambda by: f"let {by.ca_setting} name a PEM file that can be read, {_instead(by)}",
    WRONG_NAME: lambda by: (
        f"let the host be a name in the certificate{_any_name(by)}; it is not a matter of {by.ca_setting}"
    ),
    EXPIRED: lambda by: f"renew the server's certificate; it is not a matter of {by.ca_setting}",
    CLIENT_UNKNOWN: lambda by: (
        f"let the server ask for none, as there is no setting for one; {by.ca_setting} is about the server's"
    ),
    NO_TLS: lambda by: f"turn TLS on at the server; {by.no_tls} would speak in clear",
    NO_COMMON_TLS: lambda by: f"turn TLS 1.2 or newer on at the server; {by.no_tls} would speak in clear",
    NOT_WITHOUT_TLS: lambda by: f"set {by.tls}",
}
_OF_TLS: Final[dict[Finding, _Sentence]] = {
    NO_ANSWER: lambda by: (
        f"check address and network, and that it speaks TLS; {by.no_tls} would speak in clear"
    ),
}
_IN_CLEAR: Final[dict[Finding, _Sentence]] = dict.fromkeys(
    (HUNG_UP, BROKEN), lambda by: f"check that it runs, or set {by.tls} if it insists on TLS"
)
