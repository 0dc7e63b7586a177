"""
What may happen to the first statements of an engine, which SQLAlchemy sends by itself?

A proxy in front of PostgreSQL lets each login through, counts what a client sends from then on, and does
something else instead of passing on the one that it was armed for.
"""

import math
import re
import socket
import struct
import threading
from typing import Literal

from tests.support.proxy import Line, Proxy

Fate = Literal["cut", "shut down", "timed out", "held"]
_OURS = re.compile(rb"SELECT \d")
_ENDS = re.compile(rb"Q....(BEGIN|ROLLBACK|COMMIT)", re.DOTALL)
_FLUSH, _SYNC = b"H\0\0\0\4", b"S\0\0\0\4"


class FirstStatements(Proxy):
    """
    Gives one message of a session its fate.

    Attributes:
        met: How many messages have met theirs.

        held: Set when one was held back.
    """

    def __init__(self, host: str, port: int) -> None:
        self.met = 0
        self.held = threading.Event()
        self._armed: tuple[Fate, int, int] = ("cut", 0, 0)
        super().__init__(host, port)

    def arm(self, fate: Fate, *, at: int, times: int = 1) -> None:
        """Let the message number *at* of each session, from 1, meet its *fate*, in the next sessions."""
        self.met = 0
        self._armed = (fate, at, times)

    def on_answer(self, line: Line, chunk: bytes) -> None:
        """Pass it on, and notice where a login ends: the server is ready for the first statement."""
        unread = line.memory.get("unread", b"") + chunk
        # The answer to a request for TLS is one byte, and the first.
        if "unread" not in line.memory and unread[:1] in {b"N", b"S"}:
            unread = unread[1:]
        while len(unread) >= 5 and len(unread) > (length := struct.unpack("!I", unread[1:5])[0]):
            if unread[:1] == b"Z":
                line.memory.setdefault("sent", 0)
            unread = unread[length + 1 :]
        line.memory["unread"] = unread
        line.client.sendall(chunk)

    def on_sent(self, line: Line, chunk: bytes) -> None:
        """Pass it on, or not."""
        fate, at, times = self._armed
        if "sent" not in line.memory or _is_passed_by(fate, chunk):
            line.server.sendall(chunk)
            return
        line.memory["sent"] += math.inf if _OURS.search(chunk) else 1
        if line.memory["sent"] != at or self.met >= times:
            line.server.sendall(chunk)
            return
        self.met += 1
        match fate:
            case "held":
                self.held.set()
            case "cut":
                line.client.shutdown(socket.SHUT_RDWR)
            case "shut down":
                line.client.sendall(
                    _error(b"FATAL", b"57P01", b"terminating connection due to administrator command")
                )
                line.client.shutdown(socket.SHUT_RDWR)
            case "timed out":
                line.client.sendall(
                    _error(b"ERROR", b"57014", b"canceling statement due to statement timeout")
                )
                # The server says itself that it is ready again, unless the client will ask for that.
                if not chunk.endswith(_FLUSH):
                    line.server.sendall(_SYNC)


def _is_passed_by(fate: Fate, chunk: bytes) -> bool:
    # A goodbye is no statement; and what begins or ends a transaction waits for nothing.
    return chunk.startswith(b"X") or (fate == "timed out" and _ENDS.match(chunk) is not None)


def _error(severity: bytes, code: bytes, message: bytes) -> bytes:
    fields = b"".join(
        name + value + b"\0"
        for name, value in zip((b"S", b"V", b"C", b"M"), (severity, severity, code, message), strict=True)
    )
    return b"E" + struct.pack("!I", len(fields) + 5) + fields + b"\0"
