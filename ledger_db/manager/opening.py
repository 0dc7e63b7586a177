"""
How are all servers of a manager made ready at once, within one time for everything?

    read    each secret, again and again until it is there
    check   each server, again and again until it answers; an asynchronous half does so on its event loop
"""

import asyncio
import time
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ledger_db.answers import aws_parties
from ledger_db.answers.login_errors import find
from ledger_db.answers.reason import Reason
from ledger_db.background import async_in_thread, in_thread
from ledger_db.connections.startup import check, no_writer
from ledger_db.errors import CredentialsUnavailable, Retryable, ServerUnreachable
from ledger_db.event_log import EventLog
from ledger_db.redaction import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ledger_db.connections.server import Server

log: EventLog = EventLog(__name__)


@dataclass(slots=True)
class _Way:
    """
    How far one server has come, for whoever has to say why it has not come further.

    Attributes:
        is_read: Whether its credentials are known, so that it is the server that is waited for.

        party: Who is to give them; None if nobody was asked yet, or a source does not say whom it asks.

        met: What went wrong at this step, and is tried again.
    """

    is_read: bool = False
    party: str | None = None
    met: BaseException | None = None

    def note(self, error: BaseException) -> None:
        self.met = error

    def wait_for(self, party: str | None) -> None:
        self.party = party


class Opening:
    """
    One attempt to open a manager, and the time that it has.

    Args:
        servers: What is to be opened.

        timeout_seconds: For everything together, from now on.
    """

    def __init__(self, servers: "Sequence[Server]", timeout_seconds: float) -> None:
        self._servers = servers
        self._timeout_seconds = timeout_seconds
        self._began = time.monotonic()
        self._ways = {server.name: _Way() for server in servers}

    @property
    def seconds(self) -> float:
        """How long it has taken until now."""
        return time.monotonic() - self._began

    def make_ready(self) -> None:
        """
        Read the credentials of all servers at the same time, and connect to each.

        Raises:
            LedgerDBError: The first thing that went wrong; the rest is not waited for.
        """
        self._each(self._read_and_check)

    async def async_make_ready(self) -> None:
        """Same as `make_ready`, but connections are opened on this event loop, to which they belong."""
        # A source is read in threads in any case: it may be anybody's, and is synchronous.
        await async_in_thread(partial(self._each, self._read), name="ledger_db-startup")
        try:
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    group.create_task(server.async_check(timeout_seconds=self._left()))
        except BaseExceptionGroup as failed:
            # One is enough to say, and the caller expects a LedgerDBError.
            first = failed.exceptions[0]
        else:
            return
        raise first

    def _each(self, step: "Callable[[Server], None]") -> None:
        """
        Take *step* with all servers at once; the first that fails ends the wait.

        Each has a daemon thread of its own: no timeout of a driver covers a resolver that hangs, and a thread
        that never returns must not keep a process from ending.
        """
        running = {in_thread(partial(step, each), name="ledger_db-startup"): each for each in self._servers}
        done, hanging = wait(running, self._timeout_seconds, FIRST_EXCEPTION)
        for finished in done:
            finished.result()
        if hanging:
            late = [server for each, server in running.items() if each in hanging]
            error, names = self._out_of_time(late), " and ".join(server.name for server in late)
            log.error(
                "startup.unreachable", server=names, seconds=round(self.seconds, 3), cause=describe(error)
            )
            raise error

    def _read_and_check(self, server: "Server") -> None:
        self._read(server)
        note = self._ways[server.name].note
        server.check(timeout_seconds=self._left(), note=note)

    def _read(self, server: "Server") -> None:
        provider, way = server.provider, self._ways[server.name]
        with aws_parties.told(way.wait_for):
            check(provider.status.source, provider.load, timeout_seconds=self._left(), note=way.note)
        way.is_read, way.met = True, None

    def _left(self) -> float:
        return max(0.1, self._timeout_seconds - self.seconds)

    def _out_of_time(self, hanging: "list[Server]") -> Retryable:
        """Return what is raised for those whose step has not ended; a secret goes before a server."""
        unread = [server for server in hanging if not self._ways[server.name].is_read]
        met = next((way.met for server in unread or hanging if (way := self._ways[server.name]).met), None)
        error: Retryable = self._unread(unread, met) if unread else self._unreachable(hanging, met)
        error.__cause__ = met
        return error

    def _unread(self, servers: "list[Server]", met: BaseException | None) -> CredentialsUnavailable:
        waits = " and ".join(
            f"{server.provider.status.source!r} was not read, still waiting for "
            f"{self._ways[server.name].party or 'its source'}"
            for server in servers
        )
        # What was met says by itself what to do.
        hint = "check the network on the way to it (VPC endpoint, proxy, DNS)"
        return CredentialsUnavailable(
            f"startup did not end within {self._timeout_seconds:.1f} s: {waits}; "
            f"{hint if met is None else f'before that {describe(met)}'}; "
            "or raise LEDGER_DB_STARTUP_TIMEOUT_SECONDS"
        )

    def _unreachable(self, servers: "list[Server]", met: BaseException | None) -> ServerUnreachable:
        names, seconds = " and ".join(server.name for server in servers), self._timeout_seconds
        cause = "a connection attempt or a name lookup hangs" if met is None else describe(met)
        if met is not None and find(met).reason is Reason.NOT_PRIMARY:
            return no_writer(names, seconds, cause)
        return ServerUnreachable(
            f"startup did not end within {seconds:.1f} s, for {names}: {cause}; check address, network and "
            "whether both sides speak TLS (LEDGER_DB_DATABASE_SSLMODE, LEDGER_DB_REDIS_TLS), or raise "
            "LEDGER_DB_STARTUP_TIMEOUT_SECONDS"
        )
