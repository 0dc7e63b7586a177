"""One PostgreSQL database and all that belongs to it: provider, logins, engines, watcher."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from sqlalchemy import Engine

from ledger_db.answers.login_errors import find
from ledger_db.answers.postgres import NO_PLACE_FOR_ROLE
from ledger_db.answers.reason import Verdict
from ledger_db.background import async_in_thread
from ledger_db.connections import engines
from ledger_db.connections.addresses import AddressWatch
from ledger_db.connections.closing import close_for_good
from ledger_db.connections.engines import AsyncDriver, EngineFactory, EngineOptions, SyncDriver
from ledger_db.connections.login import Logins
from ledger_db.connections.loop import Loop
from ledger_db.connections.primary import Primary
from ledger_db.connections.probe_engine import ProbeEngine
from ledger_db.connections.startup import Note, async_check, check
from ledger_db.connections.tls import protection_of, tls_explained
from ledger_db.credentials.model import Credentials
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.watcher import CredentialWatcher
from ledger_db.errors import LoginRefused, ManagerClosed
from ledger_db.event_log import EventLog
from ledger_db.forking import at_fork, keep_for_good
from ledger_db.redaction import describe

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

log: EventLog = EventLog(__name__)

_RENEWAL_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drivers:
    """Which drivers the two engines use."""

    sync: SyncDriver = "psycopg2"
    on_loop: AsyncDriver = "asyncpg"


class Guest(Protocol):
    """An engine that is made elsewhere."""

    def renew(self, *, stopped: Callable[[], bool]) -> None:
        """Replace what is stale and idle, until *stopped* says so.  Never raises."""
        ...


class PostgresServer:
    """Keeps one database usable while its credentials change."""

    name = "PostgreSQL"

    def __init__(
        self,
        provider: CredentialProvider,
        *,
        options: EngineOptions,
        drivers: Drivers,
        patience_seconds: float,
    ) -> None:
        self.provider = provider
        self.options = options
        self._drivers = drivers
        #: For whoever logs in here with an engine of their own.
        self.logins: Logins = Logins(provider, patience_seconds=patience_seconds)
        self._primary = Primary()
        self._factory = EngineFactory(self.logins, options, primary=self._primary)
        self._probe = ProbeEngine(self.logins, options, drivers.sync, primary=self._primary)
        self._watcher = CredentialWatcher(provider, self._renew)
        self._address_watch = AddressWatch(
            self.logins.addresses,
            lambda: provider.current.host,
            log_in=self._probe.log_in,
            on_left=self._renew,
        )
        self._loop = Loop(keeps_connections=options.pool != "none", or_else=", or set LEDGER_DB_POOL=none")

        #: Engines of others that log in here, and are renewed with ours.
        self.guests: WeakSet[Guest] = WeakSet()
        # Guards the making of the two engines, so that there is one of each.
        self._making = threading.Lock()
        self._engine: Engine | None = None
        self._async_engine: AsyncEngine | None = None
        self._is_named = True
        provider.subscribe(self._tell_database)
        provider.probe_with(self._probe_with)
        at_fork(in_child=self._after_fork)

    @property
    def engine(self) -> Engine:
        """The one Engine; made at first use."""
        if self._engine is None:
            with self._making:
                if self._engine is None:
                    self._engine = self._factory.create_engine(self._drivers.sync)
        return self._engine

    @property
    def async_engine(self) -> "AsyncEngine":
        """The one AsyncEngine; made at first use, and serves one event loop after another."""
        if self._async_engine is None:
            with self._making:
                if self._async_engine is None:
                    self._async_engine = self._factory.create_async_engine(
                        self._drivers.on_loop, loop=self._loop
                    )
        return self._async_engine

    @property
    def made(self) -> tuple[Engine, ...]:
        """The engines that were made so far, the asynchronous one by its synchronous core."""
        on_loop = self._async_engine.sync_engine if self._async_engine else None
        return tuple(engine for engine in (self._engine, on_loop) if engine is not None)

    @property
    def takes_writes(self) -> bool:
        """Whether the last login has found a server that takes writes, or none was asked for."""
        return self._primary.takes_writes

    def check(self, *, timeout_seconds: float, note: Note = lambda error: None) -> None:
        """Connect and ask for a row; see `startup.check`."""
        self._tell_database(self.provider.current)
        # Whoever waits for this may give up and close everything before a slow login ends: its connection is
        # then closed on return, as the credentials were retired.
        with self.logins.starting(timeout_seconds=timeout_seconds):
            check(self._where(), self._ask, timeout_seconds=timeout_seconds, note=note)

    async def async_check(self, *, timeout_seconds: float) -> None:
        """Same as `check`, with the async engine; with the other one if its driver is not installed."""
        if find_spec(self._drivers.on_loop) is None:
            by_the_other = partial(self.check, timeout_seconds=timeout_seconds)
            await async_in_thread(by_the_other, name="ledger_db-startup")
            return
        self._tell_database(self.provider.current)
        with self.logins.starting(timeout_seconds=timeout_seconds):
            await async_check(self._where(), self._async_ask, timeout_seconds=timeout_seconds)

    def probe(self) -> None:
        """Ask for a row on a connection apart from the pools, which may all be in use; see `Prober`."""
        self._probe.probe()

    def revive(self) -> None:
        """Allow connections again after `close`, on whichever loop."""
        self._loop.forget()
        self.logins.revive()

    def watch(self) -> None:
        """Follow rotations from now on, and a server that takes writes from one address to the other."""
        self._tell_database(self.provider.current)
        self._watcher.start()
        # Only there: an endpoint of standbys answers with another address each time.
        if self.options.target == "primary":
            self._address_watch.start()

    def rest(self) -> None:
        """Follow nothing any more, until `watch`; who logs in meanwhile may do so."""
        self._watcher.stop()
        self._address_watch.stop()
        self._probe.close()

    def look_now(self, *, urgent: bool = False, announced: bool = False) -> None:
        """Read the secret now: somebody says that it changed; see `CredentialWatcher`."""
        self._watcher.look_now(urgent=urgent, announced=announced)

    def note_subscription(self, *, is_open: bool) -> None:
        """Say whether announcements are heard."""
        self._watcher.note_subscription(is_open=is_open)

    def close(self) -> None:
        """Close every idle connection; borrowed ones are closed when returned.  May be called again."""
        # The watcher first: a renewal that goes on after dispose() would borrow from a pool that is closed.
        self.logins.close()
        self.rest()
        if self._engine is not None:
            close_for_good(self._engine)
        self._loop.close()

    async def async_close(self) -> None:
        """Same as `close`, on the event loop of the async engine."""
        self.logins.close()
        await self._loop.async_close()
        # In a thread, because the watcher may be waiting for this very loop.
        await async_in_thread(self.close, name="ledger_db-close")

    @property
    def belongs_here(self) -> bool:
        """Whether the async engine's loop runs in this thread, which must then not wait for it."""
        return self._async_engine is not None and self._loop.is_here

    def _after_fork(self) -> None:
        self._making = threading.Lock()
        self._loop.after_fork()
        for engine in self.made:
            keep_for_good(engine.pool)
            engine.dispose(close=False)

    def _ask(self) -> None:
        with self._tls_explained():
            engines.probe(self.engine, keep=False)

    async def _async_ask(self) -> None:
        with self._tls_explained():
            await engines.async_probe(self.async_engine, keep=False)

    def _tls_explained(self) -> AbstractContextManager[None]:
        return tls_explained(self._where(), protection_of(self.options, self.provider.current.host))

    def _tell_database(self, current: Credentials) -> None:
        was_named, self._is_named = self._is_named, current.names_database
        # Whoever has misspelt the field would else read, and write, in a database that was never meant.
        if was_named and not current.names_database:
            source = self.provider.status.source
            log.warning(
                "database.not_named",
                source=source,
                database=current.database,
                cause=f"neither {source} nor LEDGER_DB_DATABASE_NAME says which; took {current.database}",
            )

    def _where(self) -> str:
        current = self.provider.current
        return f"{self.name} at {current.host}:{current.port}"

    def _probe_with(self, credentials: Credentials) -> None:
        """Log in with *credentials*; LoginRefused if the server does not take them."""
        try:
            self._probe.try_out(credentials)
        except Exception as error:
            finding = find(error)
            if finding.reason.verdict is Verdict.REFUSED:
                raise LoginRefused(f"{self._where()} refused version {credentials.version}") from error
            # All places of the role are taken, by us most likely: then its password was accepted.
            if finding is NO_PLACE_FOR_ROLE and credentials.username == self.provider.current.username:
                return
            raise

    def _renew(self) -> None:
        for guest in tuple(self.guests):
            guest.renew(stopped=self._is_closed)
        try:
            if self._engine is not None:
                engines.renew(self._engine, stopped=self._is_closed)
            if self._async_engine is not None and self._loop.is_running:
                renewal = engines.async_renew(self._async_engine, stopped=self._is_closed)
                self._loop.run(renewal, timeout_seconds=_RENEWAL_TIMEOUT_SECONDS)
            self._probe.renew(stopped=self._is_closed)
        except ManagerClosed:
            return
        except Exception as error:  # noqa: BLE001 - a courtesy; whoever borrows does the same
            log.warning("connections.renewal_stopped", server=self.name, cause=describe(error))

    def _is_closed(self) -> bool:
        return self.logins.closed
