"""What stands between a client and its server in a test, and passes everything on unless told otherwise?"""

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(slots=True, eq=False)
class Line:
    """One connection: to the client, to the server, and what a proxy wants to remember of it."""

    client: socket.socket
    server: socket.socket
    memory: dict[str, Any] = field(default_factory=dict)


class Proxy:
    """
    Listens on a port of its own, in daemon threads; who derives from it decides what is passed on.

    Attributes:
        port: Where clients connect.
    """

    def __init__(self, host: str, port: int, *, listener: socket.socket | None = None) -> None:
        self._server = (host, port)
        self._listener = listener or socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._lines: list[Line] = []
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def on_sent(self, line: Line, chunk: bytes) -> None:
        """Do with *chunk* what becomes of something that a client has sent."""
        line.server.sendall(chunk)

    def on_answer(self, line: Line, chunk: bytes) -> None:
        """Do with *chunk* what becomes of something that the server has sent."""
        line.client.sendall(chunk)

    def close(self) -> None:
        """Listen no more, and close what is open."""
        ends = [end for line in self._lines for end in (line.client, line.server)]
        # shutdown first: a thread inside of accept or recv would keep the socket alive.
        for end in [self._listener, *ends]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                line = Line(client, socket.create_connection(self._server))
                self._lines.append(line)
                pumps = (
                    (line.client, line.server, self.on_sent),
                    (line.server, line.client, self.on_answer),
                )
                for pump in pumps:
                    threading.Thread(target=_pump, args=(line, *pump), daemon=True).start()


def _pump(
    line: Line, source: socket.socket, sink: socket.socket, passing_on: Callable[[Line, bytes], None]
) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65_536):
            passing_on(line, chunk)
        sink.shutdown(socket.SHUT_WR)
