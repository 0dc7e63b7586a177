"""One Redis or Valkey server and all that belongs to it: provider, logins, clients, watcher."""

import threading
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from ledger_db.answers.login_errors import judge
from ledger_db.answers.reason import Verdict
from ledger_db.answers.tls_trouble import Protection
from ledger_db.background import async_in_thread
from ledger_db.connections import redis as clients
from ledger_db.connections.addresses import AddressWatch
from ledger_db.connections.login import Logins
from ledger_db.connections.loop import Loop
from ledger_db.connections.redis import RedisOptions
from ledger_db.connections.startup import Note, async_check, check
from ledger_db.connections.tls import check_authorities, tls_explained
from ledger_db.credentials.model import Credentials
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.watcher import CredentialWatcher
from ledger_db.errors import LoginRefused
from ledger_db.forking import at_fork

_PROBE_TIMEOUT_SECONDS = 1.0
_CA_SETTING = "LEDGER_DB_REDIS_TLS_CA_FILE"


class RedisServer:
    """Keeps one Redis usable while its credentials change.  The verbs are those of `PostgresServer`."""

    name = "Redis"

    def __init__(
        self, provider: CredentialProvider, *, options: RedisOptions, patience_seconds: float
    ) -> None:
        self.provider = provider
        self.options = options
        self._logins = Logins(provider, patience_seconds=patience_seconds)
        self._loop = Loop()
        # Nothing to do after a rotation: a stale connection is replaced when it is lent next.
        self._watcher = CredentialWatcher(provider, lambda: None)
        self._address_watch = AddressWatch(
            self._logins.addresses,
            lambda: provider.current.host,
            log_in=self._log_in_apart,
            on_left=lambda: None,
        )

        # Guards the making of the two clients, so that there is one of each.
        self._making = threading.Lock()
        self._client: Redis | None = None
        self._probe_client: Redis | None = None
        self._async_client: AsyncRedis | None = None
        provider.probe_with(self._probe_with)
        at_fork(in_child=self._after_fork)

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
        """The one asynchronous client; made at first use, and serves one event loop after another."""
        if self._async_client is None:
            with self._making:
                if self._async_client is None:
                    self._async_client = clients.create_async_redis(
                        self._logins, self.options, loop=self._loop
                    )
        return self._async_client

    def check(self, *, timeout_seconds: float, note: Note = lambda error: None) -> None:
        """Connect and ask for a sign of life; see `startup.check`."""
        with self._logins.starting(timeout_seconds=timeout_seconds):
            check(self._where(), self._ask, timeout_seconds=timeout_seconds, note=note)

    async def async_check(self, *, timeout_seconds: float) -> None:
        """Same as `check`, with the asynchronous client."""
        with self._logins.starting(timeout_seconds=timeout_seconds):
            await async_check(self._where(), self._async_ask, timeout_seconds=timeout_seconds)

    def probe(self) -> None:
        """Ask for a sign of life on a connection apart from the clients'; see `Prober`."""
        with self._making:
            if self._probe_client is None:
                self._probe_client = clients.create_redis(self._logins, _for_probes(self.options))
        clients.probe(self._probe_client)

    def revive(self) -> None:
        """Allow connections again after `close`, on whichever loop."""
        self._loop.forget()
        self._logins.revive()

    def watch(self) -> None:
        """Follow rotations from now on, and the host's name from one address to the other."""
        self._watcher.start()
        self._address_watch.start()

    def look_now(self, *, urgent: bool = False, announced: bool = False) -> None:
        """Read the secret now: somebody says that it changed; see `CredentialWatcher`."""
        self._watcher.look_now(urgent=urgent, announced=announced)

    def note_subscription(self, *, is_open: bool) -> None:
        """Say whether announcements are heard."""
        self._watcher.note_subscription(is_open=is_open)

    def new_async_client(self, loop: Loop) -> AsyncRedis:
        """Return a further asynchronous client, which is closed by who closes *loop*."""
        return clients.create_async_redis(self._logins, self.options, loop=loop)

    def new_connection(self) -> Any:
        """Return a connection that belongs to no client, for one who only listens; not connected yet."""
        return clients.create_connection(self._logins, self.options)

    def close(self) -> None:
        """Close every idle connection; borrowed ones are closed when returned.  May be called again."""
        self._logins.close()
        self._watcher.stop()
        self._address_watch.stop()
        for client in (self._client, self._probe_client):
            if client is not None:
                client.connection_pool.disconnect(inuse_connections=False)
        self._loop.close()

    async def async_close(self) -> None:
        """Same as `close`, on the event loop of the asynchronous client."""
        self._logins.close()
        await self._loop.async_close()
        await async_in_thread(self.close, name="ledger_db-close")

    @property
    def belongs_here(self) -> bool:
        """Whether the asynchronous client's loop runs in this thread, which must then not wait for it."""
        return self._async_client is not None and self._loop.is_here

    def _log_in_apart(self) -> None:
        connection = self.new_connection()
        try:
            connection.connect()
        finally:
            connection.disconnect()

    def _after_fork(self) -> None:
        self._making = threading.Lock()
        # The pools of the other two see by themselves that they were forked.
        self._loop.after_fork()

    def _ask(self) -> None:
        with self._tls_explained():
            clients.probe(self.client)

    async def _async_ask(self) -> None:
        with self._tls_explained():
            await clients.async_probe(self.async_client)

    def _tls_explained(self) -> AbstractContextManager[None]:
        ca_file = self.options.tls_ca_file
        if self.options.tls and ca_file is not None:
            check_authorities(ca_file, _CA_SETTING)
        protection = Protection(
            host=self.provider.current.host,
            ca_file=ca_file,
            ca_setting=_CA_SETTING,
            tls="LEDGER_DB_REDIS_TLS=true",
            no_tls="LEDGER_DB_REDIS_TLS=false",
            insists=self.options.tls,
        )
        return tls_explained(self._where(), protection)

    def _where(self) -> str:
        current = self.provider.current
        return f"{self.name} at {current.host}:{current.port}"

    def _probe_with(self, credentials: Credentials) -> None:
        """Log in with *credentials*; LoginRefused if the server does not take them."""
        try:
            clients.probe_with(self._logins, credentials, self.options)
        except Exception as error:
            if judge(error) is Verdict.REFUSED:
                raise LoginRefused(f"{self._where()} refused version {credentials.version}") from error
            raise


def _for_probes(options: RedisOptions) -> RedisOptions:
    seconds = min(_PROBE_TIMEOUT_SECONDS, options.connect_timeout_seconds)
    return replace(options, max_connections=1, connect_timeout_seconds=seconds, timeout_seconds=seconds)
