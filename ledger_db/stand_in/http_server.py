"""How does a stand-in listen, answer and go away without leaving anything behind?"""

import selectors
import socket
import socketserver
import threading
import uuid
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol

from ledger_db.event_log import EventLog

log: EventLog = EventLog(__name__)

_MOST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request: method, path, the operation that the headers name (if they do), and the body."""

    method: str
    path: str
    operation: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer: its status and body."""

    status: int
    body: bytes


class Application(Protocol):
    """What answers."""

    def answer(self, call: Call) -> Answer | None:
        """Answer *call*; None closes the connection without an answer."""
        ...


class LocalHTTPServer:
    """
    An HTTP server in daemon threads that can be stopped and started again at the same port.

    Args:
        application: What answers.

        host: The address to listen on.

        port: The port; 0 for a free one, which is then kept.
    """

    def __init__(self, application: Application, *, host: str, port: int) -> None:
        self._application = application
        self._address = (host, port)
        self._listening: _Listening | None = None

    @property
    def url(self) -> str:
        """Where it is, or was last; the port is 0 if it never listened."""
        return f"http://{self._address[0]}:{self._address[1]}"

    def start(self) -> None:
        """Listen.  Connections are accepted from the moment that this returns."""
        if self._listening is None:
            self._listening = _Listening(self._address, self._application)
            self._address = self._listening.server_address[0], self._listening.server_address[1]
            self._listening.begin()

    def stop(self) -> None:
        """Refuse connections, cut those that are open, wait for the threads that served them."""
        if self._listening is not None:
            self._listening.end()
            self._listening = None


class _Listening(socketserver.TCPServer):
    """One life of the server, from bind to close."""

    allow_reuse_address = True
    # A crowd that reconnects after a restart must not be met with refused connections.
    request_queue_size = 128
    server_address: tuple[str, int]

    def __init__(self, address: tuple[str, int], application: Application) -> None:
        self.application = application
        # Guards _connections.  Nothing that can wait is done under it.
        self._tracking = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        # Wakes the accepting thread.  The library's serve_forever() looks for its end twice a second instead:
        # too slow for a test, and too often for a server that waits all day.
        self._told, self._tell = socket.socketpair()
        self._accepting = threading.Thread(target=self._accept, name="stand-in", daemon=True)
        try:
            super().__init__(address, _Handler)
        except OSError:
            self._told.close()
            self._tell.close()
            raise
        # Who is announced may have hung up before being accepted; accepting must not wait for the next one.
        self.socket.setblocking(False)

    def begin(self) -> None:
        """Accept connections in the background."""
        self._accepting.start()

    def end(self) -> None:
        """Close everything, in an order in which no new connection can slip in."""
        self._tell.send(b"x")
        self._accepting.join()
        self.server_close()
        with self._tracking:
            open_now = dict(self._connections)
        for connection in open_now:
            _hang_up(connection)
        for thread in open_now.values():
            thread.join()
        self._told.close()
        self._tell.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, which is remembered until it ends."""
        # Some systems hand the listener's non-blocking mode down.
        request.setblocking(True)
        thread = threading.Thread(
            target=self._serve, args=(request, client_address), name="stand-in-connection", daemon=True
        )
        with self._tracking:
            self._connections[request] = thread
        thread.start()

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            log.debug("connection.lost")
        except Exception as error:
            log.error("stand_in.failed", exc_info=error)
        finally:
            # Forgotten before it is closed: end() must not hang up on a descriptor that is somebody else's by
            # then.
            with self._tracking:
                del self._connections[request]
            self.shutdown_request(request)

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            selector.register(self._told, selectors.EVENT_READ)
            while all(key.fileobj is not self._told for key, _ in selector.select()):
                self.handle_request()


class _Handler(BaseHTTPRequestHandler):
    """One connection, which may carry many requests."""

    # Keep-alive, one write for an answer, no waiting for the client's acknowledgement: 1 ms a call, not 40.
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Listening

    def do_POST(self) -> None:
        """An operation of the service."""
        self._handle()

    def do_PUT(self) -> None:
        """A request to the stand-in itself."""
        self._handle()

    do_GET = do_DELETE = do_PUT  # noqa: N815 - the library looks for these names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Nothing: the application logs what it did, and the library would print to stderr."""

    def version_string(self) -> str:
        """What the ``Server`` header says."""
        return "ledger_db-sandbox"

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _MOST_BYTES:
            self.send_error(413)
            self.close_connection = True
            return
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        answer = self.server.application.answer(
            Call(self.command, self.path, operation, self.rfile.read(length))
        )
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("x-amzn-RequestId", str(uuid.uuid4()))
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The client was faster.
        log.debug("connection.lost")
