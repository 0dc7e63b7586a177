"""
How does a PostgreSQL look that cannot be had here: an old one, or one that keeps passwords to itself?

A proxy in front of a real server, with the answers that such a one gives, as the protocol has them.
"""

import re
from typing import Final

from tests.support.proxy import Line, Proxy

_READY_IN_FAILED: Final = b"Z\x00\x00\x00\x05E"
_VERSION: Final = re.compile(rb"(?<=server_version\x00)(\d+)\.(\d+)")


class RefusingPostgres(Proxy):
    """
    Answers each change of a role with an error.

    Stands in for ``rds.restrict_password_commands``, which only RDS has, and for hooks that want to see
    passwords, which are libraries of others.
    """

    def __init__(self, host: str, port: int, *, sqlstate: str, sentence: str) -> None:
        super().__init__(host, port)
        fields = f"SERROR\0VERROR\0C{sqlstate}\0M{sentence}\0\0".encode()
        self._error = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields
        self.refused = 0

    def on_sent(self, line: Line, chunk: bytes) -> None:
        """Pass on everything else."""
        if not (chunk.startswith(b"Q") and b"ALTER ROLE" in chunk):
            super().on_sent(line, chunk)
            return
        self.refused += 1
        line.client.sendall(self._error + _READY_IN_FAILED)


class OldPostgres(Proxy):
    """Says that it is 9.6, as a server before SCRAM would, in as many letters as the real one needs."""

    def on_answer(self, line: Line, chunk: bytes) -> None:
        """Change the version, which comes once, after the login."""
        super().on_answer(line, _VERSION.sub(_older, chunk))


def _older(found: re.Match[bytes]) -> bytes:
    return b"9.6".ljust(len(found[0]))
