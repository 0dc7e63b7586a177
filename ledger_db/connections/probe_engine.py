"""
An engine for probes of PostgreSQL: one connection that no request uses, and that follows rotations.

Credentials that are not current yet are tried in its place, so that no request's connection is given up for
what may not work.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from ledger_db.connections import engines
from ledger_db.connections.closing import close_for_good
from ledger_db.connections.engine_arguments import Given
from ledger_db.connections.engines import EngineFactory, EngineOptions, SyncDriver
from ledger_db.connections.login import Logins
from ledger_db.connections.primary import Primary
from ledger_db.credentials.model import Credentials
from ledger_db.forking import at_fork, keep_for_good

_CONNECT_TIMEOUT_SECONDS = 2.0
_SILENCE_SECONDS = 2.0
_IS_STANDBY = {"primary": "SELECT pg_is_in_recovery()", "any": "SELECT false"}


class ProbeEngine:
    """
    Asks PostgreSQL whether it is what was asked for, on one connection that is opened when it is asked first.

    There is no limit on the server's side: ``SELECT 1`` waits for no lock, a server that is frozen would not
    keep to one, and a proxy in between may not take it.  `Prober` limits who waits.
    """

    def __init__(
        self,
        logins: Logins,
        options: EngineOptions,
        driver: SyncDriver,
        *,
        primary: Primary,
    ) -> None:
        own = replace(
            options,
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=False,
            connect_timeout_seconds=min(_CONNECT_TIMEOUT_SECONDS, options.connect_timeout_seconds),
            # Short, as the answer is worth nothing later: who asks waits for three seconds.
            silence_timeout_seconds=min(_SILENCE_SECONDS, options.silence_timeout_seconds),
            application_name=f"{options.application_name}.probe",
            echo=False,
            log_pool_events=False,
            # What the driver is told may be needed to log in; how statements are seen, here, is not.
            given=Given(sync=replace(options.given.sync, engine={})),
        )
        self._factory = EngineFactory(logins, own, primary=primary)
        # In no hurry: what is too slow for a probe may be quick enough for requests.
        self._trials = EngineFactory(logins, replace(options, application_name=own.application_name))
        self._is_standby = text(_IS_STANDBY[options.target])
        self._driver: SyncDriver = driver
        self._engine: Engine | None = None
        # Guards the making of the engine: of two, nobody would close the first.
        self._making = threading.Lock()
        at_fork(in_child=self._after_fork)

    def probe(self) -> None:
        """
        Ask the server for a row, and whether it takes writes if that is what it is for.

        Raises:
            Exception: Whatever the driver raises, except that an idle connection has ended, or leads to what
                is a standby now: then a new login has to tell.
        """
        engine = self._made()
        try:
            with engine.connect() as connection:
                if not connection.execute(self._is_standby).scalar_one():
                    return
                connection.invalidate()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        engines.probe(engine)

    def log_in(self) -> None:
        """Open the connection anew, wherever the host's name leads now; raises whatever a login raises."""
        engine = self._made()
        with engine.connect() as connection:
            connection.invalidate()
        engines.probe(engine)

    def try_out(self, credentials: Credentials) -> None:
        """Log in with *credentials*, in the place of this connection; raises whatever a login raises."""
        # Before, so that a trial needs no connection beyond those that there may be.
        self.close()
        self._trials.try_out(self._driver, credentials)

    def renew(self, *, stopped: Callable[[], bool]) -> None:
        """Replace the connection if it is stale, so that none with old credentials stays on the server."""
        if self._engine is not None:
            engines.renew(self._engine, stopped=stopped)

    def close(self) -> None:
        """Close the connection; one in use is closed when it is returned.  May be called again."""
        if self._engine is not None:
            close_for_good(self._engine)

    def _made(self) -> Engine:
        with self._making:
            if self._engine is None:
                self._engine = self._factory.create_engine(self._driver)
            return self._engine

    def _after_fork(self) -> None:
        self._making = threading.Lock()
        if self._engine is not None:
            keep_for_good(self._engine.pool)
            self._engine.dispose(close=False)
