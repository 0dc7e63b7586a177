"""Is the server who it says it is, and is that checked?"""

import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from sqlalchemy import text

from ledger_db import ConfigurationError, ConnectionManager, Settings
from ledger_db.sandbox import Sandbox


@pytest.fixture(scope="module")
def tls_box() -> Iterator[Sandbox]:
    """Servers that speak TLS only."""
    with Sandbox(tls=True) as sandbox:
        yield sandbox


@pytest.fixture
def tls(tls_box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The environment that leads to them."""
    for name, value in tls_box.environment.items():
        monkeypatch.setenv(name, value)
    return tls_box


@pytest.fixture
def other_authority(tmp_path: Path) -> str:
    """Certificates of somebody else."""
    path = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return str(path)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_the_right_authority_is_accepted(tls: Sandbox, driver: str) -> None:
    """verify-full and rediss work, with both libpq drivers, also in a rotation."""
    with ConnectionManager(Settings(database_driver=driver)) as db:
        tls.rotate_database()
        db.engine.pool.connect().invalidate()
        with db.session() as session:
            assert session.execute(text("SELECT 1")).scalar_one() == 1
        assert db.redis.ping()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_the_right_authority_is_accepted_on_an_event_loop(tls: Sandbox, driver: str) -> None:
    """verify-full and rediss work with the asynchronous drivers too."""
    async with ConnectionManager(Settings(async_database_driver=driver)) as db:
        async with db.async_session() as session:
            assert (await session.execute(text("SELECT 1"))).scalar_one() == 1
        assert await db.async_redis.ping()


def open_sync(settings: Settings) -> None:
    """Start and stop."""
    with ConnectionManager(settings):
        pass


async def async_open(settings: Settings) -> None:
    """Start and stop on a loop."""
    async with ConnectionManager(settings):
        pass


def test_a_wrong_authority_is_refused_at_once(tls: Sandbox, other_authority: str) -> None:
    """A certificate that nobody trusts will not be trusted later: no retry."""
    with pytest.raises(ConfigurationError, match=r"PostgreSQL .*certificate verify failed"):
        open_sync(Settings(database_sslrootcert=other_authority, redis_secret_id=None))
    with pytest.raises(ConfigurationError, match=r"Redis .*certificate verify failed"):
        open_sync(Settings(redis_tls_ca_file=other_authority, database_secret_id=None))


async def test_a_wrong_authority_is_refused_on_an_event_loop(tls: Sandbox, other_authority: str) -> None:
    """The same for asyncpg and the asynchronous Redis client."""
    with pytest.raises(ConfigurationError, match=r"PostgreSQL .*certificate verify failed"):
        await async_open(Settings(database_sslrootcert=other_authority, redis_secret_id=None))
    with pytest.raises(ConfigurationError, match=r"Redis .*certificate verify failed"):
        await async_open(Settings(redis_tls_ca_file=other_authority, database_secret_id=None))


WRONG_NAME = "127.0.0.2"  # its certificate is for localhost and 127.0.0.1


class _Forwarder(socketserver.ThreadingTCPServer):
    """Leads from another address of this machine to a port on the usual one."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int) -> None:
        self.port = port
        super().__init__((WRONG_NAME, 0), _Forwarding)


class _Forwarding(socketserver.BaseRequestHandler):
    server: _Forwarder

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port)) as backend:
            pairs = {self.request: backend, backend: self.request}
            while True:
                for readable in select.select(list(pairs), [], [], 30)[0]:
                    data = readable.recv(65536)
                    if not data:
                        return
                    pairs[readable].sendall(data)


@pytest.fixture
def wrong_name_port(tls: Sandbox) -> Iterator[int]:
    """A port at the wrong name."""
    try:
        forwarder = _Forwarder(tls.postgres.port)
    except OSError:
        pytest.skip("this system has one loopback address only")
    with forwarder:
        thread = threading.Thread(target=forwarder.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield forwarder.server_address[1]
        forwarder.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_wrong_name_is_refused(tls: Sandbox, kind: str, wrong_name_port: int) -> None:
    """A right certificate for another name is a wrong one."""
    settings = Settings(database_host=WRONG_NAME, database_port=wrong_name_port, redis_secret_id=None)
    with pytest.raises(ConfigurationError, match=r"does not match|doesn't match|not valid for|mismatch"):
        if kind == "sync":
            open_sync(settings)
        else:
            await async_open(settings)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_plaintext_is_refused(tls: Sandbox, kind: str) -> None:
    """A server that insists on TLS does not answer without."""
    settings = Settings(database_sslmode="disable", redis_secret_id=None, startup_timeout_seconds=5)
    with pytest.raises(Exception, match="PostgreSQL"):
        if kind == "sync":
            open_sync(settings)
        else:
            await async_open(settings)


def test_a_server_without_tls_is_refused_where_it_is_demanded(environment: Sandbox) -> None:
    """There is no fallback to plaintext."""
    with pytest.raises(ConfigurationError, match="SSL"):
        open_sync(Settings(database_sslmode="verify-full", redis_secret_id=None))


def test_certificates_that_cannot_be_read_are_named(tls: Sandbox) -> None:
    """The message names the setting to mend."""
    settings = Settings(database_sslrootcert="/nowhere/ca.pem", redis_secret_id=None)
    with pytest.raises(ConfigurationError, match=r"/nowhere/ca\.pem"):
        open_sync(settings)
