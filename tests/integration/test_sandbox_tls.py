"""Are right certificates accepted by real clients, and wrong ones, wrong names and plaintext refused?"""

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import asyncpg
import psutil
import psycopg2
import psycopg2.errors
import psycopg2.extensions
import pytest
import redis
import trustme

from ledger_db.sandbox import Sandbox
from tests.support.waiting import eventually

# Debian builds PostgreSQL with OpenSSL; the wheels of PyPI mostly do not.
_SYSTEM = Path("/usr/lib/postgresql")
NATIVE = next((folder for folder in _SYSTEM.glob("*/bin") if (folder / "initdb").exists()), None)


@pytest.fixture(scope="module", params=["front", "native"])
def tls_box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox with TLS: through the front, and by a PostgreSQL that was built with it."""
    if request.param == "native" and NATIVE is None:
        pytest.skip("no PostgreSQL of the system in /usr/lib/postgresql")
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("LEDGER_DB_PG_BIN", raising=False)
        if request.param == "native":
            environment.setenv("LEDGER_DB_PG_BIN", str(NATIVE))
        with Sandbox(tls=True) as sandbox:
            yield sandbox


@pytest.fixture
def other_ca(tmp_path: Path) -> Path:
    """The certificate of an authority that the servers have nothing to do with."""
    file = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    return file


def native(box: Sandbox) -> bool:
    """Whether PostgreSQL itself speaks TLS."""
    connection = box.postgres.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW ssl")
            return bool(cursor.fetchone() == ("on",))
    finally:
        connection.close()


async def asyncpg_answer(box: Sandbox, security: ssl.SSLContext | Literal[False]) -> object:
    """Open a session with asyncpg and ask something."""
    connection = await asyncpg.connect(
        host=box.postgres.host,
        port=box.postgres.port,
        user=box.postgres.admin_user,
        password=box.postgres.admin_password,
        database=box.postgres.database,
        ssl=security,
    )
    try:
        return await connection.fetchval("SELECT 42")
    finally:
        await connection.close()


def test_both_kinds_are_tested(tls_box: Sandbox) -> None:
    """The embedded PostgreSQL has no TLS of its own, the system's has; both sandboxes speak it."""
    expected = os.environ.get("LEDGER_DB_PG_BIN") == str(NATIVE)

    assert native(tls_box) is expected


def test_psycopg2_verifies_everything(tls_box: Sandbox) -> None:
    """sslmode=verify-full, with the sandbox's authority, opens a session over TLS 1.3."""
    connection = tls_box.postgres.connect(sslmode="verify-full")
    protocol = connection.info.ssl_attribute("protocol")
    connection.close()

    assert protocol == "TLSv1.3"


async def test_asyncpg_verifies_everything(tls_box: Sandbox) -> None:
    """An asyncpg client with the sandbox's authority opens a session."""
    assert tls_box.tls is not None
    assert await asyncpg_answer(tls_box, tls_box.tls.client_context()) == 42


def test_redis_verifies_everything(tls_box: Sandbox) -> None:
    """A rediss client with the sandbox's authority opens a session, and checks the name."""
    client = tls_box.redis.connect(ssl_check_hostname=True, ssl_cert_reqs="required")
    answer = client.ping()
    client.close()

    assert answer is True


def test_psycopg2_refuses_a_wrong_authority(tls_box: Sandbox, other_ca: Path) -> None:
    """A server whose certificate comes from elsewhere gets no password."""
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        tls_box.postgres.connect(sslrootcert=str(other_ca))


async def test_asyncpg_refuses_a_wrong_authority(tls_box: Sandbox, other_ca: Path) -> None:
    """A server whose certificate comes from elsewhere gets no password."""
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncpg_answer(tls_box, ssl.create_default_context(cafile=other_ca))


def test_redis_refuses_a_wrong_authority(tls_box: Sandbox, other_ca: Path) -> None:
    """A server whose certificate comes from elsewhere gets no password."""
    client = tls_box.redis.connect(ssl_ca_certs=str(other_ca))
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        client.ping()
    client.close()


def test_psycopg2_refuses_a_wrong_name(tls_box: Sandbox) -> None:
    """A certificate for another name is refused, even from the right authority."""
    with pytest.raises(psycopg2.OperationalError, match="does not match host name"):
        tls_box.postgres.connect(host="ledger.example.org", hostaddr=tls_box.postgres.host)


def test_redis_refuses_a_wrong_name(tls_box: Sandbox) -> None:
    """A certificate for another name is refused, even from the right authority."""
    assert tls_box.tls is not None
    context = tls_box.tls.client_context()
    with (
        socket.create_connection((tls_box.redis.host, tls_box.redis.port), timeout=10) as plain,
        pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
        context.wrap_socket(plain, server_hostname="ledger.example.org"),
    ):
        pass


def test_psycopg2_gets_no_plaintext(tls_box: Sandbox) -> None:
    """A client that does not ask for TLS is refused before it could send a password."""
    with pytest.raises(psycopg2.OperationalError, match=r"no pg_hba\.conf entry .* no encryption"):
        tls_box.postgres.connect(sslmode="disable")


async def test_asyncpg_gets_no_plaintext(tls_box: Sandbox) -> None:
    """A client that does not ask for TLS is refused before it could send a password."""
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="no encryption"):
        await asyncpg_answer(tls_box, False)


def test_redis_gets_no_plaintext(tls_box: Sandbox) -> None:
    """A client that does not speak TLS gets no answer."""
    client = tls_box.redis.connect(ssl=False, ssl_ca_certs=None)
    with pytest.raises(redis.ConnectionError):
        client.ping()
    client.close()


def test_a_query_can_be_cancelled(tls_box: Sandbox) -> None:
    """Cancelling, for which clients open a second connection, works as without TLS."""
    connection = tls_box.postgres.connect()
    impatient = threading.Timer(0.2, connection.cancel)
    impatient.start()
    with connection.cursor() as cursor, pytest.raises(psycopg2.errors.QueryCanceled):
        cursor.execute("SELECT pg_sleep(30)")
    impatient.join()
    connection.close()


def test_large_answers_arrive_whole(tls_box: Sandbox) -> None:
    """Megabytes in either direction pass unchanged."""
    text = "0123456789abcdef" * 250_000
    connection = tls_box.postgres.connect()
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s", (text,))
        row = cursor.fetchone()
    connection.close()

    assert row == (text,)


def test_an_open_session_is_cut_by_a_stop(tls_box: Sandbox) -> None:
    """A client that is connected when the server stops learns it at once, and does not hang."""
    connection = tls_box.postgres.connect()
    tls_box.postgres.stop()
    try:
        with connection.cursor() as cursor, pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 1")
    finally:
        connection.close()
        tls_box.postgres.start()


def test_rotations_and_restarts_work_over_tls(tls_box: Sandbox) -> None:
    """Everything that a sandbox does, it does over TLS as well."""
    tls_box.rotate_database("alternating-users")
    tls_box.rotate_redis()
    tls_box.postgres.stop()
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        tls_box.postgres.connect()
    tls_box.postgres.start()
    tls_box.redis.kill()
    tls_box.redis.start()
    tls_box.rotate_redis()
    tls_box.postgres.connect().close()

    assert tls_box.environment["LEDGER_DB_DATABASE_SSLMODE"] == "verify-full"
    assert (
        tls_box.environment["LEDGER_DB_DATABASE_SSLROOTCERT"]
        == tls_box.environment["LEDGER_DB_REDIS_TLS_CA_FILE"]
    )


async def test_connections_leave_nothing_behind(tls_box: Sandbox, other_ca: Path) -> None:
    """However connections end, the supervisor has as many open files afterwards as before."""
    assert tls_box.tls is not None
    assert tls_box._supervisor is not None
    supervisor = psutil.Process(tls_box._supervisor.process_id)
    context = tls_box.tls.client_context()
    await asyncpg_answer(tls_box, context)
    before = supervisor.num_fds()
    for _ in range(10):
        await asyncpg_answer(tls_box, context)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncpg_answer(tls_box, ssl.create_default_context(cafile=other_ca))
        for port in (tls_box.postgres.port, tls_box.redis.port):
            # Hangs up in the middle of the greeting.
            with socket.create_connection((tls_box.postgres.host, port)) as rude:
                rude.sendall(b"\0\0\0")
    await asyncio.to_thread(lambda: eventually(lambda: supervisor.num_fds() <= before, "files are closed"))
