"""What do the embedded servers do about ports that are taken, crashes, and a start that nobody wants?"""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ledger_db.errors import ServerUnreachable
from ledger_db.sandbox import ports, postgres, redis
from ledger_db.sandbox.postgres import EmbeddedPostgres
from ledger_db.sandbox.processes import choose_account
from ledger_db.sandbox.redis import EmbeddedRedis
from tests.support.waiting import eventually


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as somebody:
        # As servers do: what lingers from a server that has ended is no obstacle.
        somebody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = ports.free_port()
        somebody.bind((ports.HOST, port))
        somebody.listen()
        yield port


@pytest.fixture
def give_up() -> threading.Event:
    """Set to have a start end."""
    return threading.Event()


@contextlib.contextmanager
def new_postgres(
    folder: Path, give_up: threading.Event, port: int | None = None
) -> Iterator[EmbeddedPostgres]:
    """Make a cluster, and end its server in the end."""
    server = EmbeddedPostgres(
        folder / "postgres", admin_password="x", give_up=give_up, account=choose_account(), port=port
    )
    try:
        server.begin()
        server.complete()
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def new_redis(folder: Path, give_up: threading.Event, port: int | None = None) -> Iterator[EmbeddedRedis]:
    """Make a server with its administrator, and end it in the end."""
    server = EmbeddedRedis(folder / "redis", admin_password="x", give_up=give_up, port=port)
    server.write_users()
    try:
        yield server
    finally:
        server.kill()


def test_a_port_can_never_be_a_client_s_own() -> None:
    """Servers get ports that the system gives to no client, which might otherwise take a stopped one's."""
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except FileNotFoundError:
        lowest = 49_152

    assert all(ports.free_port() < lowest for _ in range(50))


def test_a_taken_port_is_not_free(taken: int) -> None:
    """A port on which somebody listens is seen as taken."""
    assert not ports.is_free(taken)


def test_postgres_takes_another_port(
    passable_path: Path, taken: int, give_up: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If somebody takes the port in the last moment the server gets another one."""
    another = ports.free_port()
    offers = iter([taken, another])
    monkeypatch.setattr(postgres, "free_port", lambda: next(offers))
    with new_postgres(passable_path, give_up) as server:
        server.start()

        assert server.port == another


def test_redis_takes_another_port(
    passable_path: Path, taken: int, give_up: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If somebody takes the port in the last moment the server gets another one."""
    another = ports.free_port()
    offers = iter([taken, another])
    monkeypatch.setattr(redis, "free_port", lambda: next(offers))
    with new_redis(passable_path, give_up) as server:
        server.start()

        assert server.port == another


def test_a_fixed_port_is_not_exchanged(passable_path: Path, taken: int, give_up: threading.Event) -> None:
    """A server that clients know at a port fails there, and says why, rather than moving away."""
    with (
        new_postgres(passable_path, give_up, taken) as database,
        pytest.raises(ServerUnreachable, match="Address already in use"),
    ):
        database.start()
    with new_redis(passable_path, give_up, taken) as server, pytest.raises(ServerUnreachable) as failure:
        server.start()

    assert re.search("Address already in use|Failed listening", str(failure.value))


def test_a_start_can_be_given_up(passable_path: Path, give_up: threading.Event) -> None:
    """A start that nobody wants any more ends at once, and says so."""
    with new_postgres(passable_path, give_up) as database:
        give_up.set()
        with pytest.raises(ServerUnreachable, match="told to end"):
            database.start()
    with new_redis(passable_path, give_up) as server, pytest.raises(ServerUnreachable, match="told to end"):
        server.start()


def test_a_crash_ends_every_session_at_once(passable_path: Path, give_up: threading.Event) -> None:
    """Not even a busy session of a PostgreSQL that was killed lives on."""
    with new_postgres(passable_path, give_up) as database, contextlib.ExitStack() as sessions:
        database.start()
        address = f"host={ports.HOST} port={database.port} user=postgres password=x"
        watcher, *busy = [sessions.enter_context(psycopg.connect(address, autocommit=True)) for _ in range(4)]
        for session in busy:
            # Such a loop looks for its server nowhere; the time-out ends it should this test find it alive.
            session.pgconn.send_query(b"SET statement_timeout = '60s'; DO 'BEGIN LOOP NULL; END LOOP; END'")
        count = "SELECT count(*) = 3 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SET %'"
        eventually(lambda: watcher.execute(count).fetchone() == (True,), "three sessions are busy")

        database.kill()

        for session in (watcher, *busy):
            with pytest.raises(psycopg.OperationalError):
                session.pgconn.consume_input()


def test_a_crashed_server_starts_again_and_again(passable_path: Path, give_up: threading.Event) -> None:
    """What a killed PostgreSQL leaves for a moment does not keep the next one from starting."""
    with new_postgres(passable_path, give_up) as database:
        database.start()
        port = database.port
        for _ in range(5):
            database.kill()
            database.start()

        assert database.port == port
