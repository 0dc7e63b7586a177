"""Is a connection protected by where it goes?"""

import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

from ledger_db import ConfigurationError
from ledger_db.answers.tls import TLS
from ledger_db.connections.engines import EngineOptions
from ledger_db.connections.tls import asyncpg_security, libpq_security


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", "prefer"),
        ("127.0.0.1", "prefer"),
        ("::1", "prefer"),
        ("/var/run/postgresql", "prefer"),
        ("10.0.0.5", "verify-full"),
        ("db.prod.example.com", "verify-full"),
    ],
)
def test_no_plaintext_beyond_this_machine(host: str, expected: str) -> None:
    """The server must prove who it is, except on the loopback address."""
    assert TLS().mode_for(host) == expected
    assert libpq_security(EngineOptions(), host)["sslmode"] == expected


def test_what_is_set_goes_before() -> None:
    """A mode that was asked for by name applies everywhere."""
    options = EngineOptions(sslmode="disable")

    assert libpq_security(options, "db.prod.example.com") == {"sslmode": "disable"}


def test_asyncpg_checks_the_name_where_libpq_does() -> None:
    """verify-full checks the name, verify-ca the authority only."""
    full = asyncpg_security(EngineOptions(), "db.prod.example.com")["ssl"]
    authority = asyncpg_security(EngineOptions(sslmode="verify-ca"), "db.prod.example.com")["ssl"]

    assert (full.check_hostname, full.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert (authority.check_hostname, authority.verify_mode) == (False, ssl.CERT_REQUIRED)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A file with one authority, apart from the system's."""
    trust = tmp_path / "bundle.pem"
    trustme.CA().cert_pem.write_to_path(str(trust))
    return trust


def context(**options: Any) -> ssl.SSLContext:
    """Return what asyncpg is given for a login at a remote host."""
    made = asyncpg_security(EngineOptions(**options), "db.prod.example.com")["ssl"]
    assert isinstance(made, ssl.SSLContext)
    return made


def subjects(context: ssl.SSLContext) -> set[str]:
    """Say whom *context* trusts."""
    return {str(authority["serialNumber"]) for authority in context.get_ca_certs()}


def test_authorities_are_read_once(bundle: Path) -> None:
    """A hundred authorities are 40 ms of an event loop, which must not stand still at each login."""
    full, authority = context(sslrootcert=str(bundle)), context(sslrootcert=str(bundle), sslmode="verify-ca")

    assert context(sslrootcert=str(bundle)) is full
    assert context(sslrootcert=str(bundle), sslmode="verify-ca") is authority
    assert (full.check_hostname, authority.check_hostname) == (True, False)


@pytest.mark.parametrize("how", ["written over", "replaced", "linked anew"])
def test_a_changed_bundle_is_taken_up(bundle: Path, tmp_path: Path, how: str) -> None:
    """Authorities that were renewed while the service runs count from the next login on."""
    place = tmp_path / "trusted.pem"
    place.symlink_to(bundle)
    before = context(sslrootcert=str(place))
    fresh = tmp_path / "fresh.pem"
    trustme.CA().cert_pem.write_to_path(str(fresh))
    match how:
        case "written over":
            bundle.write_bytes(fresh.read_bytes())
        case "replaced":
            fresh.replace(bundle)
        case _:
            place.unlink()
            place.symlink_to(fresh)
    after = context(sslrootcert=str(place))

    assert subjects(after)
    assert subjects(after).isdisjoint(subjects(before))
    assert context(sslrootcert=str(place)) is after


def test_the_systems_bundle_may_move(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSL_CERT_FILE and SSL_CERT_DIR are looked at for each login, as OpenSSL would."""
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    first = context()
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    second = context()
    folder = tmp_path / "authorities"
    folder.mkdir()
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    third = context()

    assert subjects(first).isdisjoint(subjects(second))
    assert third is not second
    assert context() is third


def test_threads_may_log_in_at_once(bundle: Path) -> None:
    """Each thread gets a context that trusts the bundle, and afterwards there is one."""
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: context(sslrootcert=str(bundle)), range(32)))

    assert all(subjects(each) == subjects(made[0]) for each in made)
    assert context(sslrootcert=str(bundle)) is context(sslrootcert=str(bundle))


def test_a_bundle_that_is_not_there_is_named_each_time(tmp_path: Path, bundle: Path) -> None:
    """What failed is not kept: the file may be mounted late."""
    place = tmp_path / "late.pem"
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"late\.pem.*LEDGER_DB_DATABASE_SSLROOTCERT"):
            context(sslrootcert=str(place))
    place.write_bytes(bundle.read_bytes())

    assert subjects(context(sslrootcert=str(place)))
