"""
How does an answer of Redis get lost, or come late?

A proxy in front of Redis passes everything on until it is told otherwise.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator


class RedisFront:
    """
    Listens on a port of its own, in daemon threads.

    Attributes:
        host: Where clients connect.

        port: The same.

        lost: How many answers were lost so far.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.lost = 0
        self._server = (host, port)
        # Guards the next two and the count: of several commands each is decided about once.
        self._deciding = threading.Lock()
        self._word = b""
        self._left = 0
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, name="redis-front", daemon=True).start()

    def lose(self, word: str, times: int = 1) -> None:
        """Let the server do what the next *times* pieces with *word* ask, and hang up without an answer."""
        with self._deciding:
            self._word, self._left, self.lost = word.encode(), times, 0

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Pass nothing on meanwhile, without a word."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    def hang_up(self) -> None:
        """End every connection that is open now."""
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Listen no more, and close what is open."""
        self._flows.set()
        # shutdown first: a thread inside of accept or recv would keep the socket alive.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        for end in [self._listener, *self._sockets]:
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
                self._flows.wait()
                if self._loses(chunk):
                    # The client's half first: the server's answer finds nobody.
                    client.shutdown(socket.SHUT_RDWR)
                    server.sendall(chunk)
                    server.shutdown(socket.SHUT_WR)
                    return
                server.sendall(chunk)
            server.shutdown(socket.SHUT_WR)

    def _outwards(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := server.recv(65_536):
                self._flows.wait()
                client.sendall(chunk)
            client.shutdown(socket.SHUT_RDWR)

    def _loses(self, chunk: bytes) -> bool:
        with self._deciding:
            if self._left == 0 or self._word not in chunk:
                return False
            self._left -= 1
            self.lost += 1
            return True


@contextlib.contextmanager
def redis_front(host: str, port: int) -> Iterator[RedisFront]:
    """Open a front of a server, and close it."""
    front = RedisFront(host, port)
    try:
        yield front
    finally:
        front.close()
