"""How is each driver told to protect a connection to PostgreSQL?"""

import ssl
from typing import Any, Protocol

from ledger_db.answers.tls import TLS, VERIFYING, SslMode
from ledger_db.errors import ConfigurationError
from ledger_db.redaction import describe


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


def libpq_security(options: Options, host: str) -> dict[str, Any]:
    """Return psycopg's arguments for a login at *host*."""
    return _tls(options).for_libpq(host)


def asyncpg_security(options: Options, host: str) -> dict[str, Any]:
    """
    Return asyncpg's arguments for a login at *host*.

    Raises:
        ConfigurationError: The certificates cannot be read.
    """
    mode = _tls(options).mode_for(host)
    # As text, asyncpg would look for the certificates in the home folder only.
    return {"ssl": _context(mode, options.sslrootcert) if mode in VERIFYING else mode}


def _tls(options: Options) -> TLS:
    return TLS(mode=options.sslmode, ca_file=options.sslrootcert)


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
