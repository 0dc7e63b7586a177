"""
Stand-ins with behaviour, for tests.

A clock that is wound by hand, a source that answers from a script, and a PostgreSQL that says one thing only.
"""

import socket
import struct
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from ledger_db.credentials.model import Credentials, Stage

_SSL_REQUEST = 80877103
_GSS_REQUEST = 80877104


class ManualClock:
    """Seconds that pass only when told to."""

    __module__ = "ledger_db.testing"

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start

    def __call__(self) -> float:
        """Return what time it is."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self._now += seconds


class ScriptedSource:
    """
    Answers each read with the next entry of a script; the last entry is repeated for ever.

    An entry that is an exception is raised.  `reads` counts what was asked.
    """

    __module__ = "ledger_db.testing"

    name = "scripted"

    def __init__(
        self,
        *current: Credentials | Exception,
        pending: Iterable[Credentials | Exception | None] = (None,),
        rotates: bool = True,
    ) -> None:
        """
        Script the answers.

        Args:
            current: For AWSCURRENT.

            pending: For AWSPENDING.

            rotates: What the source says of itself.
        """
        self.rotates = rotates
        self.reads: list[Stage] = []
        self._lock = threading.Lock()
        self._script: Mapping[Stage, list[Credentials | Exception | None]] = {
            "AWSCURRENT": list(current),
            "AWSPENDING": list(pending),
        }

    def fetch(self, stage: Stage) -> Credentials | None:
        """Give the next answer."""
        with self._lock:
            self.reads.append(stage)
            answers = self._script[stage]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def publish(self, stage: Stage, *answers: Credentials | Exception | None) -> None:
        """Replace the script of *stage*, as a rotation would."""
        with self._lock:
            self._script[stage][:] = answers


class ScriptedPostgres:
    """
    A TCP server that greets every client with one ErrorResponse, or with silence.

    For answers that a real server gives only when it is unwell: starting up, out of connections, in another
    language.
    """

    __module__ = "ledger_db.testing"

    def __init__(self, sqlstate: str | None, message: str = "", *, severity: str = "FATAL") -> None:
        """
        Prepare the answer.

        Args:
            sqlstate: Five characters; None to accept connections and never say a word.

            message: The text.

            severity: As PostgreSQL words it.
        """
        fields = {"S": severity, "V": "FATAL", "C": sqlstate or "", "M": message}
        body = b"".join(k.encode() + v.encode() + b"\0" for k, v in fields.items()) + b"\0"
        self._answer = None if sqlstate is None else b"E" + struct.pack("!I", len(body) + 4) + body
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.logins: int = 0
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, name="scripted-postgres", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing a listener does not wake its accept() on Linux; shutting it down does.
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            self._poke()
        self._thread.join(5)
        self._listener.close()
        for client in self._clients:
            client.close()

    def _poke(self) -> None:
        # macOS refuses to shut a listener down: one last connection wakes it instead.
        self._answer, self._closing = None, True
        socket.create_connection(("127.0.0.1", self.port)).close()

    _closing = False

    def _serve(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            if self._answer is not None:
                self._greet(client, self._answer)

    def _greet(self, client: socket.socket, answer: bytes) -> None:
        client.settimeout(5)
        try:
            while True:
                length, code = struct.unpack("!II", client.recv(8, socket.MSG_WAITALL))
                client.recv(length - 8, socket.MSG_WAITALL)
                if code not in {_SSL_REQUEST, _GSS_REQUEST}:
                    break
                client.sendall(b"N")
            self.logins += 1
            client.sendall(answer)
        except (OSError, struct.error):
            pass  # the client has left
        finally:
            client.close()
