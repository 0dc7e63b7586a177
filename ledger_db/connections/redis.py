"""
Redis and Valkey clients that log in with whatever is current.

The same `Logins` as for PostgreSQL decide; here a connection asks them while it connects.  redis-py's own
streaming credential provider is not used: it loses races on rotation, and says nothing on Sentinel.
"""

import ssl
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
import redis.connection
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from ledger_db.connections.login import Logins
from ledger_db.connections.loop import Loop
from ledger_db.connections.redis_connection import (
    AsyncConnection,
    AsyncTlsConnection,
    Connection,
    TlsConnection,
    address,
)
from ledger_db.connections.redis_lending import AsyncPool, Pool
from ledger_db.connections.redis_repeats import AsyncRepeats, Repeats
from ledger_db.connections.silence import tcp_options
from ledger_db.credentials.model import Credentials
from ledger_db.redaction import forget_frames


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """
    How clients are made.  Times are in seconds.

    Attributes:
        max_connections: The most connections that one client ever has; more requests wait.

        pool_timeout_seconds: How long they wait.

        connect_timeout_seconds: How long one connection attempt may take.

        timeout_seconds: How long one answer may take, beyond what a command itself asks to wait; None for as
            long as it takes.

        silence_timeout_seconds: How long the network may be silent.

        retries: How often connecting is tried again, and what was asked if it may be.

        repeat_writes: Whether it may be asked again what is not only a read, if its answer was lost.

        tls: Whether to speak TLS; the server's certificate and name are always checked then.

        tls_ca_file: File with the certificates of the authorities to trust; None for the system's.

        decode_responses: Whether answers are text instead of bytes.
    """

    max_connections: int = 50
    pool_timeout_seconds: float = 5.0
    connect_timeout_seconds: float = 5.0
    timeout_seconds: float | None = 5.0
    silence_timeout_seconds: float = 15.0
    retries: int = 3
    repeat_writes: bool = False
    tls: bool = False
    tls_ca_file: str | None = None
    decode_responses: bool = False


def create_redis(logins: Logins, options: RedisOptions | None = None) -> redis.Redis:
    """Return a new client; nothing is connected yet."""
    options = options or RedisOptions()
    pool_class: Any = Pool  # untyped in redis-py
    pool = pool_class(
        connection_class=TlsConnection if options.tls else Connection,
        retry=Repeats(_backoff(), options.retries),
        repeat_writes=options.repeat_writes,
        **_arguments(logins, options),
    )
    return redis.Redis(connection_pool=pool)


def create_async_redis(
    logins: Logins, options: RedisOptions | None = None, *, loop: Loop | None = None
) -> redis.asyncio.Redis:
    """
    Same as `create_redis`, for an event loop.

    Args:
        logins: Decides what to log in with.

        options: How it is made.

        loop: Knows which loop that is; None for a client that only one will ever use.
    """
    options = options or RedisOptions()
    pool = AsyncPool(
        loop=loop,
        connection_class=AsyncTlsConnection if options.tls else AsyncConnection,
        retry=AsyncRepeats(_backoff(), options.retries),
        repeat_writes=options.repeat_writes,
        **_arguments(logins, options),
    )
    if loop is not None:
        loop.let_to(pool)
    return redis.asyncio.Redis(connection_pool=pool)


def create_connection(logins: Logins, options: RedisOptions) -> Any:
    """
    Return a new connection that belongs to no client, not connected yet; for one who only listens.

    It speaks RESP2, in which what a subscriber gets are plain answers, in bytes; it never repeats anything.
    """
    kind = TlsConnection if options.tls else Connection
    arguments = {**_arguments(logins, options), "decode_responses": False}
    for name in ("max_connections", "timeout"):
        del arguments[name]
    return kind(retry=Repeats(_backoff(), 0), protocol=2, **arguments)


def probe(client: redis.Redis) -> None:
    """Ask the server for a sign of life; that the user may not ask for one is one, too."""
    pool: Any = client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_command("PING")
        # Around this alone: a login may lack a permission as well, and then is none.
        with suppress(NoPermissionError):
            connection.read_response()
    finally:
        pool.release(connection)


async def async_probe(client: redis.asyncio.Redis) -> None:
    """Same as `probe`, on an event loop."""
    pool: Any = client.connection_pool
    connection = await pool.get_connection()
    try:
        await connection.send_command("PING")
        with suppress(NoPermissionError):
            await connection.read_response()
    finally:
        await pool.release(connection)


def probe_with(logins: Logins, credentials: Credentials, options: RedisOptions | None = None) -> None:
    """
    Log in with *credentials*, which need not be current, on a connection of its own.

    Raises:
        redis.RedisError: Whatever redis-py raises.
    """
    options = options or RedisOptions()
    kind: Any = redis.connection.SSLConnection if options.tls else redis.connection.Connection
    arguments = _arguments(logins, options)
    for name in ("logins", "max_connections", "timeout"):
        del arguments[name]
    connection = kind(retry=Retry(_backoff(), 0), **arguments)
    address(connection, credentials)
    handled_already = sys.exception()
    try:
        connection.connect()
    except BaseException as error:
        forget_frames(error, but=handled_already)
        raise
    finally:
        connection.disconnect()


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(base=0.01, cap=0.5)


def _arguments(logins: Logins, options: RedisOptions) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "logins": logins,
        "db": int(logins.provider.current.database),
        "max_connections": options.max_connections,
        "timeout": options.pool_timeout_seconds,
        "socket_timeout": options.timeout_seconds,
        "socket_connect_timeout": options.connect_timeout_seconds,
        "socket_keepalive": True,
        "socket_keepalive_options": tcp_options(options.silence_timeout_seconds),
        "decode_responses": options.decode_responses,
    }
    if options.tls:
        arguments |= {
            "ssl_ca_certs": options.tls_ca_file,
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            "ssl_check_hostname": True,
        }
    return arguments
