"""How is each driver told to protect a connection to PostgreSQL?"""

import ssl
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ledger_db.answers.tls import TLS, VERIFYING, SslMode
from ledger_db.errors import ConfigurationError
from ledger_db.redaction import describe

_Bundle: TypeAlias = tuple[tuple[str | int, ...], ...]


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
    try:
        return _made(mode, sslrootcert, _bundle(sslrootcert))
    except OSError as error:
        raise ConfigurationError(
            f"the certificates in {sslrootcert!r} cannot be read ({describe(error)}); set "
            "LEDGER_DB_DATABASE_SSLROOTCERT to a PEM file"
        ) from error


# Reading some 140 authorities takes 40 ms, in which an event loop stands still: once, and not at each login.
# Two bundles in both modes, each before and after a change; what is older goes.
@lru_cache(maxsize=8)
def _made(mode: SslMode, sslrootcert: str | None, bundle: _Bundle) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=sslrootcert)
    context.check_hostname = mode == "verify-full"
    return context


def _bundle(sslrootcert: str | None) -> _Bundle:
    """
    Return what changes when the authorities do; where they are is part of it, as the system's may move.

    It is looked at before they are read: of a file that changes meanwhile, the next login takes the new text.
    """
    paths = ssl.get_default_verify_paths()
    places = (sslrootcert,) if sslrootcert else (paths.cafile, paths.capath)
    return tuple((place, *_state(place)) for place in places if place)


def _state(place: str) -> tuple[int, ...]:
    # Followed to its end: a mounted secret changes by its links.
    found = Path(place).stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev
