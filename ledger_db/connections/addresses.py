"""
Does the name still lead where our connections are?

A failover moves a name to another address, and the old server may live on: as a standby, or on its own side
of a broken network, where nobody hears its goodbye.  An address that the name has left makes stale what is
connected to it, as a rotation does, but only if three look-ups in turn have answered without it, and if a
login where the name leads now has worked.  A look-up that fails says nothing.

All of it happens in a thread of its own, as a resolver may hang; a checkout compares with what it has found.
"""

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Final

from ledger_db.event_log import EventLog
from ledger_db.forking import at_fork
from ledger_db.redaction import describe

log: EventLog = EventLog(__name__)

INTERVAL_SECONDS: Final = 10.0
_LOOK_UPS: Final = 3


class Addresses:
    """
    The addresses that logins of one database have led to, and how long the name has been without each.

    Attributes:
        left: What is connected to one of these is stale.  Replaced, never changed: each checkout reads it.

        newest: Where the last login has led to; None if to no network address.
    """

    def __init__(self) -> None:
        self.left: frozenset[str] = frozenset()
        self.newest: str | None = None
        self._missed: dict[str, int] = {}

    def note_login(self, address: str | None) -> None:
        """Remember that a connection was opened to *address*."""
        self.newest = address
        if address is not None:
            self._missed.setdefault(address, 0)

    def compare(self, present: frozenset[str]) -> frozenset[str]:
        """Count a look-up that has found *present*, and return what it has missed often enough to be left."""
        self.left -= present
        for address, missed in list(self._missed.items()):
            self._missed[address] = 0 if address in present else missed + 1
        gone = {address for address, missed in self._missed.items() if missed >= _LOOK_UPS}
        return frozenset(gone - self.left)

    def leave(self, gone: frozenset[str]) -> None:
        """Make stale whatever is connected to an address in *gone*."""
        self.left |= gone

    def keep(self, gone: frozenset[str]) -> None:
        """Count anew for each address in *gone*: a login has not led to where the name leads."""
        for address in gone:
            self._missed[address] = 0


class AddressWatch:
    """
    Looks a name up, again and again, for the `Addresses` of one database.

    Args:
        addresses: What is told of it.

        name: Returns what is looked up.

        log_in: Opens a connection where the name leads now; raises if it cannot.

        on_left: Called after an address was left.  Must not raise.

        look_up: Returns the addresses of a name; an OSError is no answer.
    """

    def __init__(
        self,
        addresses: Addresses,
        name: Callable[[], str],
        *,
        log_in: Callable[[], object],
        on_left: Callable[[], object],
        look_up: "Callable[[str], frozenset[str]] | None" = None,
    ) -> None:
        self._addresses = addresses
        self._name = name
        self._log_in = log_in
        self._on_left = on_left
        self._look_up = look_up or addresses_of
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        at_fork(in_child=self._after_fork)

    def start(self) -> None:
        """Watch from now on, unless the name is an address: that leads nowhere else."""
        if not is_address(self._name()):
            # Its own: one that was stopped may still be looking up when the next one starts.
            stop = self._stop = threading.Event()
            # Daemon: a resolver that hangs must not keep a process from ending.
            self._thread = threading.Thread(
                target=self._run, args=(stop,), name="ledger_db-addresses", daemon=True
            )
            self._thread.start()

    def stop(self, *, timeout_seconds: float = 1.0) -> None:
        """Watch no more; a look-up under way is waited for, but no longer than *timeout_seconds*."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds)

    def look(self) -> None:
        """Look the name up once, and leave what it has left.  Never raises."""
        try:
            present = self._look_up(self._name())
        except OSError:
            return
        gone = self._addresses.compare(present)
        if not gone:
            return
        try:
            self._log_in()
        except Exception as error:  # noqa: BLE001 - a driver may raise anything; the old connections stay
            log.warning("connections.address_kept", cause=describe(error))
            return
        if self._addresses.newest not in present:
            self._addresses.keep(gone)
            return
        self._addresses.leave(gone)
        log.info("connections.address_left", addresses=sorted(gone))
        self._on_left()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(INTERVAL_SECONDS):
            self.look()

    def _after_fork(self) -> Callable[[], None] | None:
        was_stopped, self._stop = self._stop.is_set(), threading.Event()
        return self.start if self._thread is not None and not was_stopped else None


def addresses_of(name: str) -> frozenset[str]:
    """Return the addresses of *name*; an OSError if nobody knows."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return frozenset(str(where[0]) for *_, where in found)


def is_address(name: str) -> bool:
    """Whether *name* is no name, but an address or the folder of a local socket."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return name.startswith(("/", "@"))
