"""
Redis and Valkey clients that log in with whatever is current.

The same `Logins` as for PostgreSQL decide; here a connection asks them while it connects.  redis-py's own
streaming credential provider is not used: it loses races on rotation, and says nothing on Sentinel.
"""

import ssl
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.credentials import CredentialProvider as RedisCredentialProvider
from redis.retry import Retry

from ledger_db.connections.login import Logins
from ledger_db.credentials.model import Credentials

_RETRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """
    How clients are made.  Times are in seconds.

    Attributes:
        max_connections: The most connections that one client ever has; more requests wait.

        pool_timeout_seconds: How long they wait.

        connect_timeout_seconds: How long one connection attempt may take.

        timeout_seconds: How long one answer may take; None for as long as it takes.

        tls: Whether to speak TLS; the server's certificate and name are always checked then.

        tls_ca_file: File with the certificates of the authorities to trust; None for the system's.

        decode_responses: Whether answers are text instead of bytes.
    """

    max_connections: int = 50
    pool_timeout_seconds: float = 5.0
    connect_timeout_seconds: float = 5.0
    timeout_seconds: float | None = 5.0
    tls: bool = False
    tls_ca_file: str | None = None
    decode_responses: bool = False


class _Given(RedisCredentialProvider):
    """Hands out one snapshot, in both of redis-py's worlds."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def get_credentials(self) -> tuple[str, str]:
        return self._credentials.username, self._credentials.password

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()  # the default would warn at each connect that this one is synchronous


class _LogsIn:
    """
    Mixed into redis-py's connection classes: where they connect, `Logins` decide with what.

    The decision sits below redis-py's retry, which therefore never repeats a wrong password: a refusal ends
    as `LoginRefused`, which is none of the errors that it retries.
    """

    def __init__(self, *, logins: Logins, **arguments: Any) -> None:
        self._logins = logins
        self._stamp = ""
        super().__init__(**arguments)

    def connect(self) -> None:
        # A pool calls this whenever it lends the connection, so nobody else uses it now.  Replacing stale
        # ones from outside, in the background, would now and then cut one off in the middle of a command.
        connection: Any = self
        if connection._sock and self._stamp != self._logins.provider.stamp:  # noqa: SLF001 - its test too
            connection.disconnect()
        super().connect()  # type: ignore[misc] # of the class mixed into

    def connect_check_health(self, *flags: bool, **named: bool) -> None:
        if self._sock:  # type: ignore[attr-defined] # redis-py's own test for "connected"
            return

        def connect(credentials: Credentials) -> None:
            _address(self, credentials)
            super(_LogsIn, self).connect_check_health(*flags, **named)  # type: ignore[misc] # as above
            self._stamp = credentials.stamp

        self._logins.log_in(connect)


class _LogsInAsync:
    """Same as `_LogsIn`, on an event loop."""

    def __init__(self, *, logins: Logins, **arguments: Any) -> None:
        self._logins = logins
        self._stamp = ""
        super().__init__(**arguments)

    async def connect(self) -> None:
        connection: Any = self
        if connection.is_connected and self._stamp != self._logins.provider.stamp:
            await connection.disconnect()
        await super().connect()  # type: ignore[misc] # of the class mixed into

    async def connect_check_health(self, *flags: bool, **named: bool) -> None:
        if self.is_connected:  # type: ignore[attr-defined] # redis-py's own test
            return

        async def connect(credentials: Credentials) -> None:
            _address(self, credentials)
            await super(_LogsInAsync, self).connect_check_health(*flags, **named)  # type: ignore[misc]
            self._stamp = credentials.stamp

        await self._logins.async_log_in(connect)


class _Pool(redis.BlockingConnectionPool):
    """Keeps no connection that is returned after the manager was closed."""

    def release(self, connection: Any) -> None:
        super().release(connection)  # type: ignore[no-untyped-call] # untyped in redis-py
        if self.connection_kwargs["logins"].closed:
            connection.disconnect()


class _AsyncPool(redis.asyncio.BlockingConnectionPool):
    """Same as `_Pool`, on an event loop."""

    async def release(self, connection: Any) -> None:
        await super().release(connection)
        if self.connection_kwargs["logins"].closed:
            await connection.disconnect()


def _address(connection: Any, credentials: Credentials) -> None:
    connection.host = credentials.host
    connection.port = credentials.port
    connection.credential_provider = _Given(credentials)


class _Connection(_LogsIn, redis.connection.Connection):
    pass


class _TlsConnection(_LogsIn, redis.connection.SSLConnection):
    pass


class _AsyncConnection(_LogsInAsync, redis.asyncio.connection.Connection):
    pass


class _AsyncTlsConnection(_LogsInAsync, redis.asyncio.connection.SSLConnection):
    pass


def create_redis(logins: Logins, options: RedisOptions | None = None) -> redis.Redis:
    """Return a new client; nothing is connected yet."""
    options = options or RedisOptions()
    pool_class: Any = _Pool  # untyped in redis-py
    pool = pool_class(
        connection_class=_TlsConnection if options.tls else _Connection,
        retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.5), _RETRIES),
        **_arguments(logins, options),
    )
    return redis.Redis(connection_pool=pool)


def create_async_redis(logins: Logins, options: RedisOptions | None = None) -> redis.asyncio.Redis:
    """Same as `create_redis`, for an event loop."""
    options = options or RedisOptions()
    pool: Any = _AsyncPool(
        connection_class=_AsyncTlsConnection if options.tls else _AsyncConnection,
        retry=AsyncRetry(ExponentialWithJitterBackoff(base=0.01, cap=0.5), _RETRIES),
        **_arguments(logins, options),
    )
    return redis.asyncio.Redis(connection_pool=pool)


def create_connection(logins: Logins, options: RedisOptions) -> Any:
    """
    Return a new connection that belongs to no client, not connected yet; for one who only listens.

    It speaks RESP2, in which what a subscriber gets are plain answers, in bytes; it never repeats anything.
    """
    kind = _TlsConnection if options.tls else _Connection
    arguments = {**_arguments(logins, options), "decode_responses": False}
    for name in ("max_connections", "timeout"):
        del arguments[name]
    return kind(retry=Retry(ExponentialWithJitterBackoff(), 0), protocol=2, **arguments)


def probe(client: redis.Redis) -> None:
    """Ask the server for a sign of life."""
    client.ping()


async def async_probe(client: redis.asyncio.Redis) -> None:
    """Same as `probe`, on an event loop."""
    await client.ping()


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
    connection = kind(retry=Retry(ExponentialWithJitterBackoff(), 0), **arguments)
    _address(connection, credentials)
    try:
        connection.connect()
    finally:
        connection.disconnect()


def _arguments(logins: Logins, options: RedisOptions) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "logins": logins,
        "db": int(logins.provider.current.database),
        "max_connections": options.max_connections,
        "timeout": options.pool_timeout_seconds,
        "socket_timeout": options.timeout_seconds,
        "socket_connect_timeout": options.connect_timeout_seconds,
        "socket_keepalive": True,
        "decode_responses": options.decode_responses,
    }
    if options.tls:
        arguments |= {
            "ssl_ca_certs": options.tls_ca_file,
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            "ssl_check_hostname": True,
        }
    return arguments
