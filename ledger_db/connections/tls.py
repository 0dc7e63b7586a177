"""
How is a connection to PostgreSQL protected, and is the server who it says it is?

Decided by the host that a login goes to: no plaintext beyond this machine unless it is asked for by name.
"""

import ssl
from typing import Any, Literal, Protocol

from ledger_db.errors import ConfigurationError
from ledger_db.redaction import describe

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_VERIFYING = frozenset({"verify-ca", "verify-full"})


class Options(Protocol):
    """The two options that matter here."""

    @property
    def sslmode(self) -> SslMode | None:
        """As libpq's; None for the default."""
        ...

    @property
    def sslrootcert(self) -> str | None:
        """File with the certificates of the authorities to trust; None for the system's."""
        ...


def sslmode_for(options: Options, host: str) -> SslMode:
    """Return what applies to *host*: ``verify-full``, on this machine ``prefer``, unless *options* say."""
    is_here = host in _LOOPBACK or host.startswith("/")
    return options.sslmode or ("prefer" if is_here else "verify-full")


def libpq_security(options: Options, host: str) -> dict[str, Any]:
    """Return psycopg's arguments for a login at *host*."""
    mode = sslmode_for(options, host)
    if options.sslrootcert:
        return {"sslmode": mode, "sslrootcert": options.sslrootcert}
    if mode in _VERIFYING:
        # psycopg2 may bring a libpq that does not know "system"; OpenSSL's own file is what Python uses too.
        authorities = ssl.get_default_verify_paths().cafile
        return {"sslmode": mode, "sslrootcert": authorities or "system"}
    return {"sslmode": mode}


def asyncpg_security(options: Options, host: str) -> dict[str, Any]:
    """
    Return asyncpg's arguments for a login at *host*.

    Raises:
        ConfigurationError: The certificates cannot be read.
    """
    mode = sslmode_for(options, host)
    # As text, asyncpg would look for the certificates in the home folder only.
    return {"ssl": _context(mode, options.sslrootcert) if mode in _VERIFYING else mode}


def _context(mode: SslMode, sslrootcert: str | None) -> ssl.SSLContext:
    # Made anew at each login, a millisecond beside its ten: the file may have been renewed.
    try:
        context = ssl.create_default_context(cafile=sslrootcert)
    except OSError as error:
        raise ConfigurationError(
            f"the certificates in {sslrootcert!r} cannot be read ({describe(error)}); set "
            "LEDGER_DB_DATABASE_SSLROOTCERT to a PEM file"
        ) from error
    context.check_hostname = mode == "verify-full"
    return context
