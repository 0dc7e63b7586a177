"""One Redis or Valkey server and all that belongs to it: provider, logins, clients, watcher."""

import asyncio
import logging
import threading

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from ledger_db._logging import describe
from ledger_db.connections import redis as clients
from ledger_db.connections.login import Logins
from ledger_db.connections.loop import Loop
from ledger_db.connections.redis import RedisOptions
from ledger_db.connections.startup import check, check_async
from ledger_db.credentials.model import Credentials
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.watcher import CredentialWatcher

log = logging.getLogger(__name__)

_RENEWAL_TIMEOUT_SECONDS = 60.0


class RedisServer:
    """Keeps one Redis usable while its credentials change.  The verbs are those of `PostgresServer`."""

    name = "Redis"

    def __init__(
        self, provider: CredentialProvider, *, options: RedisOptions, patience_seconds: float
    ) -> None:
        self.provider = provider
        self.options = options
        self._logins = Logins(provider, patience_seconds=patience_seconds)
        self._watcher = CredentialWatcher(provider, self._renew)
        self._loop = Loop()
        self._closed = False

        # Guards the making of the two clients, so that there is one of each.
        self._making = threading.Lock()
        self._client: Redis | None = None
        self._async_client: AsyncRedis | None = None
        provider.verify_with(self._verify)

    @property
    def client(self) -> Redis:
        """The one client; made at first use."""
        if self._client is None:
            with self._making:
                if self._client is None:
                    self._client = clients.create_redis(self._logins, self.options)
        return self._client

    @property
    def async_client(self) -> AsyncRedis:
        """The one asynchronous client; made at first use, and belongs to the loop that runs then."""
        if self._async_client is None:
            with self._making:
                if self._async_client is None:
                    self._loop.remember()
                    self._async_client = clients.create_async_redis(self._logins, self.options)
        return self._async_client

    def check(self, *, timeout_seconds: float) -> None:
        """Connect and ask for a sign of life; see `startup.check`."""
        try:
            check(self._where(), lambda: clients.ping(self.client), timeout_seconds=timeout_seconds)
        finally:
            # Whoever waited for this may have given up and closed everything before a slow login ended.
            if self._closed and self._client is not None:
                self._client.close()

    async def check_async(self, *, timeout_seconds: float) -> None:
        """Same as `check`, with the asynchronous client."""
        client = self.async_client
        await check_async(self._where(), lambda: clients.ping_async(client), timeout_seconds=timeout_seconds)

    def watch(self) -> None:
        """Follow rotations from now on."""
        self._watcher.start()

    def look_now(self) -> None:
        """Read the secret now: somebody says that it changed."""
        self._watcher.look_now()

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        self._watcher.stop()
        self._loop.forget()
        if self._client is not None:
            self._client.close()
            self._client.connection_pool.disconnect()

    async def close_async(self) -> None:
        """Same as `close`, on the event loop of the asynchronous client."""
        self._closed = True
        # In a thread, because the watcher may be waiting for this very loop.
        await asyncio.to_thread(self.close)
        if self._async_client is not None:
            await self._async_client.aclose()
            await self._async_client.connection_pool.disconnect()

    def after_fork(self) -> None:
        """Share nothing with the parent process; redis-py's pools see by themselves that they were forked."""
        self._making = threading.Lock()
        self.provider.after_fork()
        self._logins.after_fork()
        self._loop.forget()
        self._async_client = None
        self._watcher.after_fork()

    def _where(self) -> str:
        current = self.provider.current
        return f"{self.name} at {current.host}:{current.port}"

    def _verify(self, credentials: Credentials) -> None:
        clients.try_out(self._logins, credentials, self.options)

    def _renew(self) -> None:
        try:
            if self._client is not None:
                clients.renew(self._client)
            if self._async_client is not None:
                renewal = clients.renew_async(self._async_client)
                self._loop.run(renewal, timeout_seconds=_RENEWAL_TIMEOUT_SECONDS)
        except Exception as error:  # noqa: BLE001 - a courtesy: Redis keeps a session that is logged in
            log.warning("connections.renewal_stopped", extra={"server": self.name, "cause": describe(error)})
