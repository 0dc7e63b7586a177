"""
Who closes a manager that nobody has closed?

Its threads and pools would go on for as long as the process, out of everybody's reach.  They know its servers
and not the manager, so one that is dropped can be noticed: it is told as a `ResourceWarning`, as of a file,
and what it has opened is closed.
"""

import atexit
import warnings
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakSet, finalize

from ledger_db.background import in_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger_db.connections.server import Server
    from ledger_db.signals.listener import SignalListener


class Forgotten:
    """
    A manager's own, and nobody else's: it goes when the manager goes.

    Args:
        servers: Those of the manager.
    """

    def __init__(self, servers: "Sequence[Server]") -> None:
        self._servers = servers
        self._finalizer: finalize[..., Forgotten] | None = None

    def arm(self, signals: "SignalListener | None") -> None:
        """Close all that is open when the manager is dropped, from now on."""
        self._finalizer = finalize(self, _dropped, self._servers, signals)
        # Its own way to the end of the interpreter would take place before that of the default manager.
        self._finalizer.atexit = False
        _armed.add(self)

    def disarm(self) -> None:
        """The manager was closed."""
        _armed.discard(self)
        if self._finalizer is not None:
            self._finalizer.detach()

    def at_exit(self) -> None:
        """The interpreter ends, and the manager is open."""
        if self._finalizer is not None and (dropped := self._finalizer.detach()):
            _warn(self._servers)
            close_all(*dropped[2])


def close_all(servers: "Sequence[Server]", signals: "SignalListener | None") -> None:
    """Close each of them, whatever becomes of the others."""
    with ExitStack() as closing:
        for server in servers:
            closing.callback(server.close)
        if signals is not None:
            closing.callback(signals.stop)


def named(servers: "Sequence[Server]") -> str:
    """Return what tells a manager from others; nothing in it is secret."""
    return ", ".join(f"{server.name}={server.provider.status.version}" for server in servers)


def _dropped(servers: "Sequence[Server]", signals: "SignalListener | None") -> None:
    # In a thread: the garbage collector comes at any moment, also to who holds a lock that closing needs.
    in_thread(partial(close_all, servers, signals), name="ledger_db-closing")
    _warn(servers)


def _warn(servers: "Sequence[Server]") -> None:
    warnings.warn(
        f"a ConnectionManager ({named(servers)}) was dropped while it was open; its connections and threads "
        "are ended now: open it with 'with' or 'async with', or call close() or 'await async_close()'",
        ResourceWarning,
        stacklevel=2,
    )


def _at_exit() -> None:
    for forgotten in list(_armed):
        forgotten.at_exit()


_armed: WeakSet[Forgotten] = WeakSet()
# At import, which comes before that of whoever closes in time: what is registered last is called first.
atexit.register(_at_exit)
