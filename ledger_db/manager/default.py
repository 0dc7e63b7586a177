"""
One open manager for a process that has no place to open one: a script, a worker of a task queue.

It is configured by the environment, or by who calls first, opened at the first call and closed when the
interpreter ends.  A program with a beginning and an end of its own (``with``, a FastAPI lifespan) does not
need it.
"""

import atexit
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeAlias

from ledger_db.background import fill
from ledger_db.errors import ConfigurationError
from ledger_db.forking import at_fork, keep_for_good
from ledger_db.manager.connection_manager import ConnectionManager
from ledger_db.settings import Settings

_Source: TypeAlias = Settings | Callable[[], ConnectionManager] | None


def default_manager(source: _Source = None) -> ConnectionManager:
    """
    Return this process's open manager; the first call opens it, and waits as long as that takes.

    Threads that call it at the same time share one opening, and its failure.  If it failed, or if somebody
    has closed the manager since, the next call opens a new one from the environment as it is then.

    A forked child inherits an open manager and uses it with connections and threads of its own.  On event
    loops, too, it serves one after another, as a worker's tasks have them; but this call blocks, so make the
    first one elsewhere, or use ``async with ConnectionManager()``.

    Args:
        source: Settings, or who makes a manager with arguments of its own; None for the environment, or for
            what the call has said that has opened it.

    Raises:
        LedgerDBError: As `ConnectionManager.open`.

        ConfigurationError: The manager is open with other settings.
    """
    manager = _default.get(source)
    if isinstance(source, Settings) and manager.settings != source:
        raise ConfigurationError(
            "this process's default manager is open with other settings; make a ConnectionManager of your own"
        )
    return manager


class _Default:
    """The one manager, or its opening under way."""

    def __init__(self) -> None:
        # Guards the fields below.  Never held while a manager is opened: a child that is forked meanwhile
        # would wait for a thread that it does not have.
        self._lock = threading.Lock()
        self._opening: Future[ConnectionManager] | None = None
        self._newest: ConnectionManager | None = None
        at_fork(in_child=self._after_fork)

    def get(self, source: _Source) -> ConnectionManager:
        """Return the manager that is open, or open one, or wait for who does."""
        with self._lock:
            if self._newest is not None and self._newest.is_open:
                return self._newest
            opening, is_mine = self._opening, self._opening is None
            if opening is None:
                opening = self._opening = Future()
        if is_mine:
            fill(opening, partial(self._open, source))
        return opening.result()

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            newest, self._newest = self._newest, None
        if newest is not None:
            newest.close()

    def _open(self, source: _Source) -> ConnectionManager:
        try:
            manager = source() if callable(source) else ConnectionManager(source)
            with self._lock:
                self._newest = manager
            return manager.open()
        finally:
            # Before anybody hears how it ended: whoever calls next begins anew.
            with self._lock:
                self._opening = None

    def _after_fork(self) -> None:
        """Start over in a child, unless the manager was open: then it is the manager that has seen to it."""
        self._lock = threading.Lock()
        if self._opening is not None and self._newest is not None:
            # Half open, by a thread that exists in the parent only.
            keep_for_good(self._newest)
            self._newest = None
        self._opening = None


_default = _Default()


def _close_at_exit() -> None:
    # What the program logged to may be closed by now (pytest's is), and logging would print that as an error.
    logging.raiseExceptions = False
    _default.close()


# After the last thread that the interpreter waits for has ended, and before its modules are taken apart.
atexit.register(_close_at_exit)
