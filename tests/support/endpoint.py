"""How does an address lead to one server, and later to another one?"""

import contextlib
import socket
import threading
from collections.abc import Iterator

HOST = "127.0.0.1"


class Endpoint:
    """
    Passes connections on to a server; which one is decided where each begins, as a DNS name does.

    Attributes:
        leads_to: The port of the server that new connections are passed on to.

        led: How many have come.

    Args:
        port: Of the server, on this machine.

        host: Where to listen.

        own_port: Where to listen; 0 for any free port.
    """

    def __init__(self, port: int, *, host: str = HOST, own_port: int = 0) -> None:
        self.leads_to = port
        self.led = 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, own_port), family=family)
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="endpoint", daemon=True)]
        self._threads[0].start()

    def stop_listening(self) -> None:
        """Let nobody in any more; whoever is connected stays connected."""
        # shutdown first: a thread inside of accept would keep the socket alive.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        """End everything."""
        self.stop_listening()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._ends.append(client)
                self.led += 1
                try:
                    server = socket.create_connection((HOST, self.leads_to))
                except OSError:
                    client.shutdown(socket.SHUT_RDWR)
                    continue
                self._ends.append(server)
                for source, sink in ((client, server), (server, client)):
                    thread = threading.Thread(target=_pass_on, args=(source, sink), daemon=True)
                    self._threads.append(thread)
                    thread.start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65_536):
            sink.sendall(chunk)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def endpoint(port: int, *, host: str = HOST, own_port: int = 0) -> Iterator[Endpoint]:
    """Open an endpoint in front of a server, and close it."""
    made = Endpoint(port, host=host, own_port=own_port)
    try:
        yield made
    finally:
        made.close()
