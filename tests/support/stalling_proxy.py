"""What does a server look like that has stalled: connections stay open, kernels answer, and nothing moves?"""

import threading

from tests.support.proxy import Line, Proxy


class StallingProxy(Proxy):
    """Passes everything on until it stalls; then new connections too are accepted and never answered."""

    def __init__(self, host: str, port: int) -> None:
        self._moving = threading.Event()
        self._moving.set()
        super().__init__(host, port)

    def stall(self) -> None:
        """Let nothing through from now on."""
        self._moving.clear()

    def on_sent(self, line: Line, chunk: bytes) -> None:
        """Pass it on, in time."""
        self._moving.wait()
        super().on_sent(line, chunk)

    def on_answer(self, line: Line, chunk: bytes) -> None:
        """Pass it on, in time."""
        self._moving.wait()
        super().on_answer(line, chunk)

    def close(self) -> None:
        """Listen no more, and let nobody wait."""
        super().close()
        self._moving.set()
