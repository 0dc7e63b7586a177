"""Does every socket to Redis have an end to the silence of its network?"""

import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ledger_db.connections.login import Logins
from ledger_db.connections.redis import (
    RedisOptions,
    create_async_redis,
    create_connection,
    create_redis,
)
from ledger_db.manager.assembly import redis_server
from ledger_db.sandbox import Sandbox
from tests.support.redis_clients import direct_redis_settings

SILENCE_SECONDS = 6.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these are the names that Linux has for it")


@pytest.fixture
def logins(box: Sandbox) -> Iterator[Logins]:
    """Logins of one who may do everything."""
    server = redis_server(direct_redis_settings(box))
    assert server is not None
    server.provider.load()
    logins = Logins(server.provider)
    yield logins
    logins.close()
    server.close()


def options_of(line: socket.socket) -> dict[str, int]:
    """Return what the kernel does about a silent other side."""
    return {
        "on": line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        "idle": line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        "interval": line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        "count": line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
        "unconfirmed_ms": line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    }


OPTIONS = RedisOptions(silence_timeout_seconds=SILENCE_SECONDS)
WANTED = {"on": 1, "idle": 2, "interval": 1, "count": 3, "unconfirmed_ms": 6000}


def test_a_client_has(logins: Logins) -> None:
    """Idle and busy, with what is sent and what is awaited: all ends within the setting."""
    pool: Any = create_redis(logins, OPTIONS).connection_pool
    connection = pool.get_connection()
    try:
        assert options_of(connection._sock) == WANTED
    finally:
        pool.release(connection)
        pool.disconnect()


async def test_a_client_of_a_loop_has(logins: Logins) -> None:
    """The same on an event loop."""
    pool: Any = create_async_redis(logins, OPTIONS).connection_pool
    connection = await pool.get_connection()
    try:
        assert options_of(connection._writer.get_extra_info("socket")) == WANTED
    finally:
        await pool.release(connection)
        await pool.disconnect()


def test_who_only_listens_has(logins: Logins) -> None:
    """The connection on which announcements are heard notices a network that is gone, too."""
    connection: Any = create_connection(logins, OPTIONS)
    connection.connect()
    try:
        assert options_of(connection._sock) == WANTED
    finally:
        connection.disconnect()


def test_the_setting_reaches_the_socket(box: Sandbox) -> None:
    """One setting is for all servers, and this is one of them."""
    server = redis_server(direct_redis_settings(box, silence_timeout_seconds=SILENCE_SECONDS))
    assert server is not None

    assert server.options.silence_timeout_seconds == SILENCE_SECONDS
