"""How are all servers of a manager made ready at once, within one time for everything?"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from ledger_db.connections.startup import all_within, check

if TYPE_CHECKING:
    from ledger_db.connections.redis_server import RedisServer
    from ledger_db.connections.server import Database

Server: TypeAlias = "Database | RedisServer"


def open_all(servers: Sequence[Server], timeout_seconds: float, *, connect: bool) -> None:
    """
    Read the credentials of all *servers* at the same time, and check each.

    Args:
        servers: What is to be opened.

        timeout_seconds: For everything together.

        connect: Whether a connection is opened too; the asynchronous engine has to do that on its loop.

    Raises:
        LedgerDBError: The first thing that went wrong; the rest is not waited for.
    """
    openers = [_Opener(server, timeout_seconds, connect=connect) for server in servers]

    def last_failure() -> BaseException | None:
        return next((opener.failure for opener in openers if opener.failure is not None), None)

    all_within(timeout_seconds, *openers, last_failure=last_failure)


class _Opener:
    """Opens one server within what is left of the time, and remembers what it met."""

    def __init__(self, server: Server, timeout_seconds: float, *, connect: bool) -> None:
        self.failure: BaseException | None = None
        self._server = server
        self._deadline = time.monotonic() + timeout_seconds
        self._connect = connect

    def __str__(self) -> str:
        return self._server.name

    def __call__(self) -> None:
        provider = self._server.provider
        check(provider.status.source, provider.load, timeout_seconds=self._left(), note=self._note)
        self.failure = None
        if self._connect:
            self._server.check(timeout_seconds=self._left(), note=self._note)

    def _note(self, error: BaseException) -> None:
        self.failure = error

    def _left(self) -> float:
        return max(0.1, self._deadline - time.monotonic())
