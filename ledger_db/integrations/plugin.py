"""
``?plugin=ledger_db`` in the URL of any program that uses SQLAlchemy.

The program's own engine logs in as those of a `ConnectionManager` do: through the same logins, which follow a
rotation, and with the same stamp on each connection.  All else stays the program's: its pool, its options,
its listeners, its sessions, and what a COMMIT is answered.

SQLAlchemy finds this class by the entry point ``sqlalchemy.plugins`` of the distribution.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import finalize, ref

from sqlalchemy import URL, Engine, event
from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.pool import Pool
from sqlalchemy.util import await_only

from ledger_db.connections import engines
from ledger_db.connections.driver_arguments import driver_arguments, on_loop_arguments
from ledger_db.connections.engine_arguments import EngineArguments
from ledger_db.connections.loop import run_on
from ledger_db.connections.postgres_server import PostgresServer
from ledger_db.connections.stamping import SHARED_POOLS
from ledger_db.errors import ConfigurationError, LedgerDBError
from ledger_db.event_log import EventLog
from ledger_db.forking import at_fork, keep_for_good
from ledger_db.integrations.shared import Shared, shared_database
from ledger_db.integrations.url import NAME, asked_by
from ledger_db.redaction import describe

log: EventLog = EventLog(__name__)

_RENEWAL_TIMEOUT_SECONDS = 60.0
# Merged with what the program says, not replaced by it.
_MERGED = frozenset({"options", "server_settings"})


class LedgerDBPlugin(CreateEnginePlugin):
    """
    Makes one engine log in with whatever is current.

    Raises:
        ConfigurationError: The URL or an argument of ``create_engine`` cannot be followed.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        for name in ("creator", "pool"):
            if kwargs.get(name) is not None:
                raise ConfigurationError(
                    f"plugin={NAME} opens the connections, so {name}= cannot be given; leave it out"
                )
        self._kwargs = kwargs
        self._asked = asked_by(url, kwargs.get("connect_args") or {})
        self._shared = shared_database(self._asked.settings)
        self._server = self._shared.watched

    def update_url(self, url: URL) -> URL:
        """Return what the driver is to know of the URL."""
        return self._asked.plain

    def handle_dialect_kwargs(self, dialect_cls: type[Dialect], dialect_args: dict[str, Any]) -> None:
        """Complete what the driver is given, now that it is known which one it is."""
        given, options = self._asked.driver, self._server.options
        arguments = on_loop_arguments if dialect_cls.is_async else driver_arguments
        merged = {name: value for name, value in given.items() if name in _MERGED}
        ours = arguments(dialect_cls.driver, options, EngineArguments(driver=merged))
        if "application_name" not in self._asked.settings.model_fields_set:
            # The program's is nobody's business but its own.
            ours.pop("application_name", None)
            (ours.get("server_settings") or {}).pop("application_name", None)
        self._kwargs["connect_args"] = {
            **{name: value for name, value in ours.items() if name in _MERGED or name not in given},
            **{
                name: value
                for name, value in (self._kwargs.get("connect_args") or {}).items()
                if name in given and name not in _MERGED
            },
        }

    def handle_pool_kwargs(self, pool_cls: type[Pool], pool_args: dict[str, Any]) -> None:
        """Tell of a pool in which a rotation replaces nothing."""
        if issubclass(pool_cls, SHARED_POOLS):
            cause = f"{pool_cls.__name__} lends one connection to several, which stays until it breaks"
            log.warning("plugin.not_renewed", cause=cause)

    def engine_created(self, engine: Engine) -> None:
        """Tie *engine* to the secret."""
        # What SQLAlchemy has cut out is put back: tools make a second engine of this one's URL.
        engine.url = self._asked.url
        guest = Guest(engine, self._shared)
        engines.log_in_with(
            engine,
            self._server.logins,
            self._server.options,
            has_own_tls=self._asked.has_own_tls,
            around=guest.logging_in,
            own=self._asked.driver.keys(),
        )
        self._server.guests.add(guest)


class Guest:
    """
    An engine that is somebody else's, for who renews its connections.

    Known by the engine's own listeners, and so for as long as that lives; it does not keep it alive.

    Args:
        engine: Whose connections.

        shared: What it logs in with.
    """

    def __init__(self, engine: Engine, shared: Shared[PostgresServer]) -> None:
        self._engine = ref(engine)
        self._dialect = ref(engine.dialect)
        self._shared = shared
        self._loop: asyncio.AbstractEventLoop | None = None
        event.listen(engine, "engine_disposed", lambda disposed: shared.leave(self))
        finalize(engine, shared.leave, self).atexit = False
        at_fork(in_child=self._after_fork)

    @contextmanager
    def logging_in(self) -> Iterator[None]:
        """Have credentials in the block, and raise as the driver does: programs catch nothing else."""
        dialect = self._dialect()
        assert dialect is not None
        own: LedgerDBError | None = None
        try:
            if dialect.is_async:
                self._loop = asyncio.get_running_loop()
                await_only(self._shared.async_use(self))
            else:
                self._shared.use(self)
            yield
        except LedgerDBError as error:
            own = error
        if own is not None:
            raise dialect.loaded_dbapi.OperationalError(str(own)) from own

    def renew(self, *, stopped: Callable[[], bool]) -> None:
        """Replace what is stale and idle.  Never raises: whoever borrows does the same."""
        engine = self._engine()
        if engine is None or isinstance(engine.pool, SHARED_POOLS):
            return
        try:
            if not engine.dialect.is_async:
                engines.renew(engine, stopped=stopped)
            elif self._loop is not None and self._loop.is_running():
                from sqlalchemy.ext.asyncio import AsyncEngine  # noqa: PLC0415 - memory for who uses it

                renewal = engines.async_renew(AsyncEngine(engine), stopped=stopped)
                run_on(self._loop, renewal, timeout_seconds=_RENEWAL_TIMEOUT_SECONDS)
        except Exception as error:  # noqa: BLE001 - as said above, and the next engine is somebody else's
            log.warning("connections.renewal_stopped", server=PostgresServer.name, cause=describe(error))

    def _after_fork(self) -> None:
        engine = self._engine()
        self._loop = None
        if engine is not None:
            keep_for_good(engine.pool)
            engine.dispose(close=False)
