"""
What do the servers see while a drill is running?

Looked up again and again from a thread of its own: a peak between two rotations counts as well.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2

SAMPLE_SECONDS = 0.1
"""How often the servers are looked at."""

# How long a backend may need to go after its connection was closed.  The new connection is there at once, so
# for this moment PostgreSQL counts one more than the service holds.
_SETTLE_SECONDS = 0.03


@dataclass(frozen=True, slots=True)
class Sample:
    """
    One look at the servers.

    Attributes:
        at: When, on the monotonic clock.

        connections: How many connections of the watched roles PostgreSQL had; None if it did not say.

        secret_reads: How often Secrets Manager was asked for a value so far; None if it did not say.
    """

    at: float
    connections: int | None
    secret_reads: int | None


class ConnectionCount:
    """
    Counts the connections of some roles, through a connection of the superuser's.

    Not safe for threads.
    """

    def __init__(self, connect: Callable[[], Any], roles: Sequence[str]) -> None:
        """
        Prepare to count.

        Args:
            connect: Returns a psycopg2 connection as the superuser, in autocommit mode: within a transaction,
                every count would be the first one again, since pg_stat_activity stands still.

            roles: What the counted connections log in as.
        """
        self._connect = connect
        self._roles = list(roles)
        self._connection: Any = None

    def read(self, *, limit: int | None = None) -> int | None:
        """
        Count now.

        Args:
            limit: If more are found than this, count a second time after a moment.

        Returns:
            None if PostgreSQL did not answer; the next call logs in again.
        """
        try:
            count = self._ask()
            if limit is not None and count > limit:
                time.sleep(_SETTLE_SECONDS)
                count = min(count, self._ask())
        except psycopg2.Error:
            self.close()
            return None
        return count

    def close(self) -> None:
        """Log out.  Any number of times."""
        if self._connection is not None:
            with contextlib.suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None

    def _ask(self) -> int:
        if self._connection is None:
            self._connection = self._connect()
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = ANY(%s)", (self._roles,))
            return int(cursor.fetchone()[0])


class Sampler:
    """Takes a ``Sample`` every tenth of a second, in a thread, between ``start`` and ``stop``."""

    def __init__(
        self,
        count: ConnectionCount,
        read_secret_reads: Callable[[], int | None],
        *,
        connections_limit: int,
        every_seconds: float = SAMPLE_SECONDS,
    ) -> None:
        """
        Prepare to sample.

        Args:
            count: How the connections are counted; used from the thread only while it runs.

            read_secret_reads: How often Secrets Manager was asked so far.

            connections_limit: More than these are counted twice, see ``ConnectionCount.read``.

            every_seconds: How often.
        """
        self._count = count
        self._read_secret_reads = read_secret_reads
        self._connections_limit = connections_limit
        self._every_seconds = every_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drill-sampler", daemon=True)

        # Guards _samples: the thread appends, the drill takes.  Held for neither a query nor a wait.
        self._lock = threading.Lock()
        self._samples: list[Sample] = []

    def start(self) -> None:
        """Take the first sample, and from now on one every tenth of a second."""
        self._sample()
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples.  Any number of times."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._count.close()

    def take(self, *, until: float) -> list[Sample]:
        """Hand over the samples taken before *until*, each of them once; they are forgotten here."""
        with self._lock:
            taken = [sample for sample in self._samples if sample.at < until]
            self._samples = [sample for sample in self._samples if sample.at >= until]
        return taken

    def _run(self) -> None:
        while not self._stopping.wait(self._every_seconds):
            self._sample()

    def _look_at_reads(self) -> int | None:
        try:
            return self._read_secret_reads()
        except Exception:  # noqa: BLE001 - a drill may stop Secrets Manager, and still counts connections
            return None

    def _sample(self) -> None:
        sample = Sample(
            at=time.monotonic(),
            connections=self._count.read(limit=self._connections_limit),
            secret_reads=self._look_at_reads(),
        )
        with self._lock:
            self._samples.append(sample)
