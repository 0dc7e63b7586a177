"""Does a server that knows its clients by certificates let us in, on every driver?"""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import text

from ledger_db import ConfigurationError, LedgerDBError, Settings
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.front import TLSFront, postgres_greeting
from tests.support.any_driver import client_of


@pytest.fixture(scope="module")
def demanding(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A server that lets nobody in without a certificate; what leads to it, and what it wants to see."""
    folder, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    mine = authority.issue_cert("ledger@example.com")
    files = {name: str(folder / name) for name in ("ca.pem", "mine.pem", "mine.key")}
    authority.cert_pem.write_to_path(files["ca.pem"])
    mine.cert_chain_pems[0].write_to_path(files["mine.pem"])
    mine.private_key_pem.write_to_path(files["mine.key"])
    Path(files["mine.key"]).chmod(0o600)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files["ca.pem"])
    context.verify_mode = ssl.CERT_REQUIRED
    # What is refused in TLS 1.3 is refused after the greeting, when a client has begun to talk.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    front = TLSFront(port, box.postgres.port, context=context, greeting=postgres_greeting)
    front.start()
    yield {
        "database_port": port,
        "database_sslrootcert": files["ca.pem"],
        "database_sslcert": files["mine.pem"],
        "database_sslkey": files["mine.key"],
    }
    front.stop()


@pytest.mark.parametrize("mode", ["verify-full", "require"])
def test_a_certificate_of_ones_own_opens_the_door(
    direct: Settings, demanding: dict[str, Any], driver: str, mode: str
) -> None:
    """Whether the server is checked or not, it sees who we are."""
    with client_of(driver, direct, **demanding, database_sslmode=mode) as client:
        assert client.session(lambda session: session.scalar(text("SELECT 1"))) == 1


def test_without_one_the_door_stays_shut(direct: Settings, demanding: dict[str, Any], driver: str) -> None:
    """It is the certificate that opens it."""
    without = {name: demanding[name] for name in ("database_port", "database_sslrootcert")}

    with (
        pytest.raises(LedgerDBError),
        client_of(driver, direct, **without, database_sslmode="verify-full", startup_timeout_seconds=1),
    ):
        pass


def test_a_certificate_that_cannot_be_read_is_named(direct: Settings, demanding: dict[str, Any]) -> None:
    """By its setting, where the driver would say nothing but what OpenSSL says."""
    demanding = {**demanding, "database_sslkey": demanding["database_sslrootcert"]}

    with (
        pytest.raises(ConfigurationError, match="LEDGER_DB_DATABASE_SSLCERT and LEDGER_DB_DATABASE_SSLKEY"),
        client_of("asyncpg", direct, **demanding),
    ):
        pass


def test_a_certificate_without_a_key_is_refused() -> None:
    """Before anything is connected."""
    with pytest.raises(ConfigurationError, match="belong together; set both, or neither"):
        Settings(database_sslcert="mine.pem")
