"""
How does the answer to a COMMIT get lost?

A proxy in front of PostgreSQL passes everything on until it is armed.  Then the next COMMIT reaches the
server and is done, or does not reach it, and in both cases the client's connection breaks without an answer.
"""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from typing import Literal

Cut = Literal["before", "after"]

# Not READ COMMITTED, with which some clients begin.
_COMMIT = re.compile(rb"COMMIT\b")


class CommitCutter:
    """
    Listens on a port of its own, in daemon threads.

    Attributes:
        port: Where clients connect.

        cut: How often it has cut.
    """

    def __init__(self, host: str, port: int) -> None:
        self.cut = 0
        self._server = (host, port)
        self._armed: Cut | None = None
        # Guards _armed and cut: of several COMMITs exactly one is cut.
        self._deciding = threading.Lock()
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, name="commit-cutter", daemon=True).start()

    def arm(self, cut: Cut) -> None:
        """Cut the next COMMIT, ``before`` or ``after`` the server has done it."""
        with self._deciding:
            self._armed = cut

    def close(self) -> None:
        """Listen no more, and close what is open."""
        # shutdown first: a thread inside of accept or recv would keep the socket alive.
        for end in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                for target in (self._inwards, self._outwards):
                    threading.Thread(target=target, args=(client, server), daemon=True).start()

    def _inwards(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := client.recv(65_536):
                how = self._decide(chunk)
                if how is not None:
                    self._break(client, server, chunk if how == "after" else b"")
                    return
                server.sendall(chunk)
            server.shutdown(socket.SHUT_WR)

    def _outwards(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := server.recv(65_536):
                client.sendall(chunk)
            client.shutdown(socket.SHUT_RDWR)

    def _decide(self, chunk: bytes) -> Cut | None:
        with self._deciding:
            if self._armed is None or not _COMMIT.search(chunk):
                return None
            how, self._armed = self._armed, None
            self.cut += 1
            return how

    def _break(self, client: socket.socket, server: socket.socket, last: bytes) -> None:
        # The client's half first: the server's answer finds nobody.  Terminate ("X") is read after the COMMIT
        # and lets the server end as after any other client.
        client.shutdown(socket.SHUT_RDWR)
        server.sendall(last + b"X\0\0\0\4")


@contextlib.contextmanager
def commit_cutter(host: str, port: int) -> Iterator[CommitCutter]:
    """Open a cutter in front of a server, and close it."""
    cutter = CommitCutter(host, port)
    try:
        yield cutter
    finally:
        cutter.close()
