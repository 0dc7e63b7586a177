"""How is each driver told to protect a connection to PostgreSQL, and what is said where TLS is in the way?"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from ledger_db.answers.login_errors import find
from ledger_db.answers.reason import Verdict
from ledger_db.answers.tls import TLS, VERIFYING, SslMode
from ledger_db.answers.tls_trouble import Protection, advice
from ledger_db.errors import ConfigurationError, LedgerDBError, ServerUnreachable
from ledger_db.redaction import describe

_Bundle: TypeAlias = tuple[tuple[str | int, ...], ...]

_AUTHORITIES: Final = "LEDGER_DB_DATABASE_SSLROOTCERT"
_OWN: Final = "LEDGER_DB_DATABASE_SSLCERT and LEDGER_DB_DATABASE_SSLKEY"


class Options(Protocol):
    """The options that matter here."""

    @property
    def sslmode(self) -> SslMode | None:
        """As libpq's; None for the default."""
        ...

    @property
    def sslrootcert(self) -> str | None:
        """File with the certificates of the authorities to trust; None for the system's."""
        ...

    @property
    def sslcert(self) -> str | None:
        """File with the client's own certificate; None if it has none."""
        ...

    @property
    def sslkey(self) -> str | None:
        """File with the key of that."""
        ...


def protection_of(options: Options, host: str) -> Protection:
    """Return how PostgreSQL at *host* is spoken to, in the words of the settings."""
    return Protection(
        host=host,
        ca_file=options.sslrootcert,
        ca_setting="LEDGER_DB_DATABASE_SSLROOTCERT",
        tls="LEDGER_DB_DATABASE_SSLMODE=verify-full",
        no_tls="LEDGER_DB_DATABASE_SSLMODE=disable",
        any_name="LEDGER_DB_DATABASE_SSLMODE=verify-ca",
        insists=_tls(options).mode_for(host) not in {"disable", "allow", "prefer"},
    )


def libpq_security(options: Options, host: str) -> dict[str, Any]:
    """Return psycopg's arguments for a login at *host*."""
    own = {"sslcert": options.sslcert, "sslkey": options.sslkey} if options.sslcert else {}
    return {**_tls(options).for_libpq(host), **own}


def asyncpg_security(options: Options, host: str) -> dict[str, Any]:
    """
    Return asyncpg's arguments for a login at *host*.

    Raises:
        ConfigurationError: The certificates cannot be read.
    """
    mode = _tls(options).mode_for(host)
    # As text, asyncpg would look for the certificates in the home folder only.  With a context it insists on
    # TLS; a certificate of one's own is not shown to a server without.
    if mode in VERIFYING or (options.sslcert and mode != "disable"):
        return {"ssl": _context(mode, options)}
    return {"ssl": mode}


def check_authorities(ca_file: str | None, setting: str) -> None:
    """Read *ca_file* once; ConfigurationError if that fails: not every driver says which file it was."""
    with _reading(ca_file, setting):
        ssl.create_default_context(cafile=ca_file)


@contextmanager
def tls_explained(where: str, protection: Protection) -> Iterator[None]:
    """
    Say of a failure of TLS in the block by which setting it can be mended.

    Raises:
        ConfigurationError: Only a person can mend it.

        ServerUnreachable: It may pass by itself as well.
    """
    try:
        yield
    except LedgerDBError:
        raise
    except Exception as error:
        finding = find(error)
        what_to_do = advice(finding, protection)
        if what_to_do is None:
            raise
        passes = finding.reason.verdict is Verdict.TRANSIENT
        kind = ServerUnreachable if passes else ConfigurationError
        raise kind(f"{where} cannot be used: {describe(error)} ({finding.words}); {what_to_do}") from error


def _tls(options: Options) -> TLS:
    return TLS(mode=options.sslmode, ca_file=options.sslrootcert)


def _context(mode: SslMode, options: Options) -> ssl.SSLContext:
    with _reading(options.sslrootcert, _AUTHORITIES):
        bundle = _bundle(options.sslrootcert)
    with _reading(options.sslcert, _OWN):
        own = tuple((place, *_state(place)) for place in (options.sslcert, options.sslkey) if place)
    return _made(mode, options.sslrootcert, bundle, own)


@contextmanager
def _reading(ca_file: str | None, setting: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"the certificates in {ca_file!r} cannot be read ({describe(error)}); set {setting} to a PEM file"
        ) from error


# Reading some 140 authorities takes 40 ms, in which an event loop stands still: once, and not at each login.
# Two bundles in both modes, each before and after a change; what is older goes.
@lru_cache(maxsize=8)
def _made(mode: SslMode, sslrootcert: str | None, bundle: _Bundle, own: _Bundle) -> ssl.SSLContext:
    with _reading(sslrootcert, _AUTHORITIES):
        context = ssl.create_default_context(cafile=sslrootcert)
    context.check_hostname = mode == "verify-full"
    if mode not in VERIFYING:
        context.verify_mode = ssl.CERT_NONE
    if own:
        certificate, key = str(own[0][0]), str(own[-1][0])
        with _reading(certificate, _OWN):
            # A key that wants a passphrase would else be asked for on a terminal that nobody looks at.
            context.load_cert_chain(certificate, key, password="")
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
