"""
How are all servers of a manager made ready at once, within one time for everything?

    read    each secret, again and again until it is there
    check   each server, again and again until it answers; an asynchronous half does so on its event loop
"""

import asyncio
import time
from concurrent.futures import FIRST_EXCEPTION, wait
from functools import partial
from typing import TYPE_CHECKING

from ledger_db.answers.login_errors import find
from ledger_db.answers.reason import Reason
from ledger_db.background import async_in_thread, in_thread
from ledger_db.connections.startup import check, no_writer
from ledger_db.errors import ServerUnreachable
from ledger_db.redaction import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ledger_db.connections.server import Server


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
        # By the server's name, what it has met and is trying again.
        self._met: dict[str, BaseException] = {}

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
            raise self._out_of_time([server.name for each, server in running.items() if each in hanging])

    def _read_and_check(self, server: "Server") -> None:
        self._read(server)
        server.check(timeout_seconds=self._left(), note=partial(self._note, server))

    def _read(self, server: "Server") -> None:
        provider, note = server.provider, partial(self._note, server)
        check(provider.status.source, provider.load, timeout_seconds=self._left(), note=note)
        self._met.pop(server.name, None)

    def _note(self, server: "Server", error: BaseException) -> None:
        self._met[server.name] = error

    def _left(self) -> float:
        return max(0.1, self._timeout_seconds - self.seconds)

    def _out_of_time(self, hanging: list[str]) -> ServerUnreachable:
        met = next((self._met[name] for name in hanging if name in self._met), None)
        cause = "a connection attempt or a name lookup hangs" if met is None else describe(met)
        names, seconds = " and ".join(hanging), self._timeout_seconds
        error = ServerUnreachable(
            f"startup did not end within {seconds:.1f} s, for {names}: {cause}; check address, network and "
            "whether both sides speak TLS, or raise LEDGER_DB_STARTUP_TIMEOUT_SECONDS"
        )
        if met is not None and find(met).reason is Reason.NOT_PRIMARY:
            error = no_writer(names, seconds, cause)
        error.__cause__ = met
        return error
