"""
SQLAlchemy engines that log in with whatever is current.

An engine is made once and stays the same object for ever.  `renew` replaces its stale idle connections in the
background after a rotation; `try_out` tells whether credentials work before anybody depends on them.
"""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool, Pool, QueuePool

from ledger_db.answers.tls import SslMode
from ledger_db.connections.begins import forget_refused
from ledger_db.connections.closing import wait_for_goodbye
from ledger_db.connections.commits import tell_commits
from ledger_db.connections.driver_arguments import driver_arguments, on_loop_arguments
from ledger_db.connections.engine_arguments import NOTHING_GIVEN, EngineArguments, Given
from ledger_db.connections.extensions import advise_on_extensions
from ledger_db.connections.first_statements import tell_first_statements
from ledger_db.connections.login import Logins
from ledger_db.connections.loop import Loop
from ledger_db.connections.plans import forget_outdated_plans
from ledger_db.connections.pool_events import log_pool_events
from ledger_db.connections.primary import Primary
from ledger_db.connections.silence import notice_silence
from ledger_db.connections.stamping import connect_with, stamp_connections
from ledger_db.connections.tls import asyncpg_security, libpq_security
from ledger_db.credentials.model import Credentials
from ledger_db.errors import ConfigurationError
from ledger_db.event_log import EventLog
from ledger_db.redaction import describe

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

log: EventLog = EventLog(__name__)

SyncDriver = Literal["psycopg2", "psycopg"]
AsyncDriver = Literal["asyncpg", "psycopg"]
PoolKind = Literal["queue", "none"]
Target = Literal["primary", "any"]
Pooler = Literal["none", "session", "transaction"]
_RENEWAL_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """
    How engines are made.  Times are in seconds.

    Attributes:
        pool: ``queue`` keeps connections; ``none`` closes each when it is returned, and limits nothing.

        pool_size: Connections kept open.

        max_overflow: Connections beyond that, closed when returned.

        pool_timeout_seconds: How long a checkout waits for a free connection.

        pool_recycle_seconds: Age at which a connection is replaced; -1 for never.

        pool_pre_ping: Ask the server at each checkout; a fourth to two fifths of a small request's time.

        connect_timeout_seconds: How long one connection attempt may take.

        silence_timeout_seconds: How long the network may be silent; see `silence`.

        sslmode: As libpq's; None for ``verify-full``, except that loopback has ``prefer``.

        sslrootcert: File with the certificates of the authorities to trust; None for the system's.

        target: ``primary`` for a server that takes writes and no other; ``any`` for a standby, too.

        pooler: What stands before the server.  With one by ``transaction`` nothing is prepared, as the next
            transaction may be on another of its connections; one by ``session`` is like none.

        sslcert: File with the client's own certificate; None if it has none.

        sslkey: File with the key of that.

        application_name: What pg_stat_activity shows.

        server_settings: What each connection begins with, by PostgreSQL's names.

        echo: Log each statement.

        log_pool_events: Log what becomes of each connection.

        given: What the program itself has for SQLAlchemy and the drivers.
    """

    pool: PoolKind = "queue"
    pool_size: int = 5
    max_overflow: int = 10
    pool_timeout_seconds: float = 5.0
    pool_recycle_seconds: float = 1800.0
    pool_pre_ping: bool = False
    connect_timeout_seconds: float = 5.0
    silence_timeout_seconds: float = 15.0
    sslmode: SslMode | None = None
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    target: Target = "primary"
    pooler: Pooler = "none"
    application_name: str = "ledger_db"
    server_settings: Mapping[str, str] = field(default_factory=dict)
    echo: bool = False
    log_pool_events: bool = False
    given: Given = NOTHING_GIVEN

    @property
    def capacity(self) -> int:
        """
        The most connections that one engine ever has.

        Without a pool nothing in here holds an engine to it; it is then what admission should keep to.
        """
        return self.pool_size + self.max_overflow

    def engine_arguments(self) -> dict[str, Any]:
        """Return what ``create_engine`` and ``create_async_engine`` take, whatever the database."""
        # Values of statements may be secret; errors and echo show only the statement.
        arguments: dict[str, Any] = {"hide_parameters": True, "echo": self.echo}
        if self.pool == "none":
            # A connection that is new at each checkout needs no ping and gets no age.
            return {**arguments, "poolclass": NullPool}
        return {
            **arguments,
            "pool_size": self.pool_size,
            "max_overflow": self.max_overflow,
            "pool_timeout": self.pool_timeout_seconds,
            "pool_recycle": self.pool_recycle_seconds,
            "pool_pre_ping": self.pool_pre_ping,
            # First in, first out: `renew` must meet a different connection each time.
            "pool_use_lifo": False,
        }


class EngineFactory:
    """Makes engines that share one way to log in."""

    def __init__(
        self,
        logins: Logins,
        options: EngineOptions | None = None,
        *,
        primary: Primary | None = None,
    ) -> None:
        self._logins = logins
        self._options = options or EngineOptions()
        self._primary = primary or Primary()

    def create_engine(self, driver: SyncDriver = "psycopg2") -> Engine:
        """
        Return a new engine; nothing is connected yet.

        Raises:
            ConfigurationError: The driver is not installed.
        """
        require(driver)
        options, given = self._options, self._options.given.sync
        with _said_of(given):
            engine = sqlalchemy.create_engine(
                URL.create(f"postgresql+{driver}"),
                connect_args=driver_arguments(driver, options, given),
                **{**given.engine, **options.engine_arguments()},
            )
        log_in_with(engine, self._logins, options)
        self._listen(engine)
        return engine

    def create_async_engine(
        self, driver: AsyncDriver = "asyncpg", *, loop: Loop | None = None
    ) -> "AsyncEngine":
        """
        Same as `create_engine`, for an event loop.

        Args:
            driver: Which one.

            loop: Knows which loop that is.
        """
        # Memory for those who use it.
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

        from ledger_db.connections.one_loop import PoolOfOneLoop, keep_to_one_loop  # noqa: PLC0415

        require(driver)
        options, given = self._options, self._options.given.on_loop
        with _said_of(given):
            engine = create_async_engine(
                URL.create(f"postgresql+{driver}"),
                connect_args=on_loop_arguments(driver, options, given),
                **{**given.engine, "poolclass": PoolOfOneLoop, **options.engine_arguments()},
            )
        log_in_with(engine.sync_engine, self._logins, options)
        self._listen(engine.sync_engine)
        keep_to_one_loop(engine, loop or Loop())
        return engine

    def try_out(self, driver: SyncDriver, credentials: Credentials) -> None:
        """
        Log in with *credentials*, which need not be current, on a connection of its own, and ask for a row.

        Raises:
            Exception: Whatever the driver raises.
        """
        require(driver)
        arguments = driver_arguments(driver, self._options, self._options.given.sync)
        engine = sqlalchemy.create_engine(
            URL.create(f"postgresql+{driver}"), connect_args=arguments, poolclass=NullPool
        )
        connect_with(engine, credentials, partial(libpq_security, self._options))
        wait_for_goodbye(engine)
        tell_first_statements(engine)
        probe(engine)

    def _listen(self, engine: Engine) -> None:
        tell_commits(engine)
        forget_outdated_plans(engine)
        advise_on_extensions(engine)
        if self._options.target == "primary":
            self._primary.insist(engine)
        if self._options.log_pool_events:
            log_pool_events(engine)


def log_in_with(
    engine: Engine,
    logins: Logins,
    options: EngineOptions,
    *,
    has_own_tls: bool = False,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    own: Collection[str] = (),
) -> None:
    """
    Let *engine*, whoever has made it, log in with what is current, and let go of what is not.

    Args:
        engine: The synchronous core, for an ``AsyncEngine``.

        logins: As of `stamp_connections`, as are *around* and *own*.

        options: How connections are protected, and when silence ends them.

        has_own_tls: Whether the driver is told already how connections are protected.

        around: As above.

        own: As above.
    """
    is_asyncpg = engine.dialect.driver == "asyncpg"
    security = partial(asyncpg_security if is_asyncpg else libpq_security, options)
    stamp_connections(engine, logins, _no_security if has_own_tls else security, around=around, own=own)
    if is_asyncpg:
        notice_silence(engine, options.silence_timeout_seconds)
        forget_refused(engine)
    wait_for_goodbye(engine)
    tell_first_statements(engine)


def _no_security(host: str) -> dict[str, Any]:
    return {}


@contextmanager
def _said_of(given: EngineArguments) -> Iterator[None]:
    """Raise ConfigurationError where SQLAlchemy does not know what the program has *given*."""
    try:
        yield
    except (TypeError, ArgumentError) as error:
        if not given.engine:
            raise
        names = ", ".join(given.engine)
        raise ConfigurationError(
            f"no engine can be made with what was given for it ({names}): {describe(error)}; "
            "leave out what another version of SQLAlchemy has; what is one driver's goes into engine_options "
            "or async_engine_options, which are both given then, if only as {}"
        ) from error


def probe(engine: Engine, *, keep: bool = True) -> None:
    """
    Ask the server for a row.

    Args:
        engine: Whose connection is used.

        keep: Whether the pool may have it afterwards.  At a start it may not: listeners that are added when
            a manager is open have to see each connection that is lent.
    """
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        if not keep:
            connection.invalidate()


async def async_probe(engine: "AsyncEngine", *, keep: bool = True) -> None:
    """Same as `probe`, on an event loop."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        if not keep:
            await connection.invalidate()


def renew(
    engine: Engine,
    *,
    stopped: Callable[[], bool] = lambda: False,
    pause: Callable[[float], object] = time.sleep,
    spread: Callable[[], float] = random.random,
) -> None:
    """
    Replace the stale idle connections of *engine* now, one after the other, so that no request has to.

    Args:
        engine: Whose connections.

        stopped: Asked before each one; true ends it.

        pause: Lets seconds pass.

        spread: Draws the jitter, in [0, 1).

    Raises:
        Exception: Whatever a login raises; the rest is left to whoever borrows it.
    """
    for _ in range(_idle(engine.pool)):
        if stopped():
            return
        with engine.connect():
            pass  # checking out is what replaces a stale one
        # A fleet rotates together; the pauses keep its logins from arriving together.
        pause(_RENEWAL_PAUSE_SECONDS * spread())


async def async_renew(
    engine: "AsyncEngine",
    *,
    stopped: Callable[[], bool] = lambda: False,
    spread: Callable[[], float] = random.random,
) -> None:
    """Same as `renew`, on an event loop."""
    for _ in range(_idle(engine.pool)):
        if stopped():
            return
        async with engine.connect():
            pass
        await asyncio.sleep(_RENEWAL_PAUSE_SECONDS * spread())


def _idle(pool: Pool) -> int:
    # Pools that keep nothing (NullPool) have nothing to count either.
    return pool.checkedin() if isinstance(pool, QueuePool) else 0


def require(driver: str) -> None:
    """Raise ConfigurationError, with what to install, if *driver* is not there."""
    if find_spec(driver) is None:
        extra = {"asyncpg": "async", "psycopg": "psycopg", "aiosqlite": "sqlite"}.get(driver)
        what = f"'ledger-db[{extra}]'" if extra else "psycopg2-binary"
        raise ConfigurationError(f"the driver {driver} is not installed; pip install {what}")
