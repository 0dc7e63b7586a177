"""
How does the answer to a COMMIT get lost?

A proxy in front of PostgreSQL passes everything on until it is armed.  Then the next COMMIT reaches the
server and is done, or does not reach it, and in both cases the client's connection breaks without an answer.
"""

import re
import socket
import threading
from typing import Literal

from tests.support.proxy import Line, Proxy

Cut = Literal["before", "after"]

# Not READ COMMITTED, with which some clients begin.
_COMMIT = re.compile(rb"COMMIT\b")


class CommitCutter(Proxy):
    """
    Cuts a client off where its COMMIT is on its way.

    Attributes:
        cut: How often it has cut.
    """

    def __init__(self, host: str, port: int) -> None:
        self.cut = 0
        self._armed: Cut | None = None
        # Guards _armed and cut: of several COMMITs exactly one is cut.
        self._deciding = threading.Lock()
        super().__init__(host, port)

    def arm(self, cut: Cut) -> None:
        """Cut the next COMMIT, ``before`` or ``after`` the server has done it."""
        with self._deciding:
            self._armed = cut

    def on_sent(self, line: Line, chunk: bytes) -> None:
        """Pass it on, or break the line."""
        how = self._decide(chunk)
        if how is None:
            line.server.sendall(chunk)
            return
        # The client's half first: the server's answer finds nobody.  Terminate ("X") is read after the COMMIT
        # and lets the server end as after any other client.
        line.client.shutdown(socket.SHUT_RDWR)
        line.server.sendall((chunk if how == "after" else b"") + b"X\0\0\0\4")

    def _decide(self, chunk: bytes) -> Cut | None:
        with self._deciding:
            if self._armed is None or not _COMMIT.search(chunk):
                return None
            how, self._armed = self._armed, None
            self.cut += 1
            return how
