"""One SQLite database and both its engines: for development, where no server is wanted."""

import asyncio
import sqlite3
import threading
from contextlib import closing, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from ledger_db.answers.secret import Password
from ledger_db.connections import engines
from ledger_db.connections.engines import EngineOptions
from ledger_db.connections.startup import Note, async_check, check
from ledger_db.credentials.model import Credentials
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.static import StaticSource
from ledger_db.errors import ManagerClosed, ServerUnreachable
from ledger_db.forking import at_fork, keep_for_good
from ledger_db.sqlite.engines import create_async_sqlite_engine, create_sqlite_engine
from ledger_db.sqlite.file import SqliteFile

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_PROBE_TIMEOUT_SECONDS = 1.0


class SqliteServer:
    """
    Makes a file, or memory, look like a server.  The verbs are those of `PostgresServer`.

    Its credentials are empty and never change, so there is nothing to follow.  Its engines keep no
    connection, so one event loop after the other may use the asynchronous one.
    """

    name = "SQLite"
    takes_writes = True

    def __init__(self, file: SqliteFile, *, options: EngineOptions) -> None:
        nobody = Credentials("", Password(""), "settings", host="", port=0, database=file.name)
        self.provider: CredentialProvider = CredentialProvider(StaticSource(nobody))
        self.options = options
        self._file = file
        self._state = "not opened yet"

        # Guards the fields below, so that there is one of each.
        self._making = threading.Lock()
        self._engine: Engine | None = None
        self._async_engine: AsyncEngine | None = None
        # Somebody is always connected: memory lasts only so long, and whoever leaves a file last has to write
        # its log back into it, which takes a hundred times as long as a small transaction.
        self._anchor: sqlite3.Connection | None = None

    @property
    def engine(self) -> Engine:
        """The one Engine; made at first use."""
        with self._making:
            if self._engine is None:
                self._engine = create_sqlite_engine(
                    self._file, self.options, before_connect=self._refuse_if_closed
                )
            return self._engine

    @property
    def async_engine(self) -> "AsyncEngine":
        """The one AsyncEngine; made at first use."""
        with self._making:
            if self._async_engine is None:
                self._async_engine = create_async_sqlite_engine(
                    self._file, self.options, before_connect=self._refuse_if_closed
                )
            return self._async_engine

    @property
    def made(self) -> tuple[Engine, ...]:
        """The engines that were made so far, the asynchronous one by its synchronous core."""
        on_loop = self._async_engine.sync_engine if self._async_engine else None
        return tuple(engine for engine in (self._engine, on_loop) if engine is not None)

    def check(self, *, timeout_seconds: float, note: Note = lambda error: None) -> None:
        """Open the database, and ask for a row; see `startup.check`."""

        def probe() -> None:
            self._prepare()
            engines.probe(self.engine.execution_options(postgresql_readonly=True))

        check(self._where(), probe, timeout_seconds=timeout_seconds, note=note)

    async def async_check(self, *, timeout_seconds: float) -> None:
        """Same as `check`, with the async engine; with the other one if its driver is not installed."""
        if find_spec("aiosqlite") is None:
            await asyncio.to_thread(self.check, timeout_seconds=timeout_seconds)
            return
        engine = self.async_engine.execution_options(postgresql_readonly=True)

        async def probe() -> None:
            await asyncio.to_thread(self._prepare)
            await engines.async_probe(engine)

        await async_check(self._where(), probe, timeout_seconds=timeout_seconds)

    def probe(self) -> None:
        """Ask for a row on a connection apart from the pools, which may all be in use; see `Prober`."""
        self._refuse_if_closed()
        with closing(self._file.connect(timeout_seconds=_PROBE_TIMEOUT_SECONDS)) as apart:
            apart.execute("PRAGMA schema_version").fetchone()

    def revive(self) -> None:
        """Allow connections again after `close`."""
        self._state = "open"

    def watch(self) -> None:
        """Do nothing: these credentials do not rotate."""

    def look_now(self, *, urgent: bool = False, announced: bool = False) -> None:
        """Do nothing: there is no secret to read."""

    def note_subscription(self, *, is_open: bool) -> None:
        """Do nothing: as above."""

    def close(self) -> None:
        """Open nothing any more; what is borrowed is closed when it is returned.  May be called again."""
        with self._making:
            self._state = "closed"
            anchor, self._anchor = self._anchor, None
        if anchor is not None:
            anchor.close()

    async def async_close(self) -> None:
        """Same as `close`: there is nothing that belongs to a loop."""
        self.close()

    @property
    def belongs_here(self) -> bool:
        """Whether closing has to wait for this thread's event loop: never."""
        return False

    def _prepare(self) -> None:
        """Make a file that readers and a writer can use at the same time, and memory that stays."""
        with self._making:
            self._refuse_if_closed()
            try:
                self._anchor = self._anchor or self._connect()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                raise ServerUnreachable(f"{self._where()} is locked by another process") from error
        # Not before: one that was never opened has no file to come back to.
        at_fork(before=self._leave, in_parent=self._come_back, in_child=self._after_fork)

    def _connect(self) -> sqlite3.Connection:
        opened = self._file.connect(timeout_seconds=self.options.pool_timeout_seconds)
        try:
            # A file remembers it; memory does without, and says so without an error.
            opened.execute("PRAGMA journal_mode = WAL").fetchone()
            # It is the first look that connects to the log.
            opened.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            opened.close()
            raise
        return opened

    def _leave(self) -> None:
        # In a child SQLite would believe that it holds the locks of its parent.
        with self._making:
            if self._anchor is not None and not self._file.is_in_memory:
                self._anchor.close()
                self._anchor = None

    def _come_back(self) -> None:
        # It is there for speed only, and nobody could be told here that it failed.
        with self._making, suppress(sqlite3.Error):
            if self._anchor is None and self._state == "open":
                self._anchor = self._connect()

    def _after_fork(self) -> None:
        # A file is the same one; of memory there are two now.
        self._making = threading.Lock()
        for engine in self.made:
            keep_for_good(engine.pool)
            engine.dispose(close=False)
        self._come_back()

    def _where(self) -> str:
        return f"{self.name} {self._file}"

    def _refuse_if_closed(self) -> None:
        if self._state != "open":
            raise ManagerClosed(f"this manager is {self._state}; it opens no connection until it is opened")
