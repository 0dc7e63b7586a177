"""Is a connection protected by where it goes?"""

import ssl

import pytest

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
