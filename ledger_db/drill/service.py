"""
How does a drill start the service that it tests, and how does it end it?

The service is a process of its own, as in production: what it loses in a rotation is lost for real.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Self

from ledger_db.errors import ServerUnreachable
from ledger_db.sandbox.ports import HOST

START_SECONDS = 30.0
"""How long a service may take until it answers: its own startup check is given as long."""

END_SECONDS = 10.0
"""How long a service may take to end its requests; after that it is killed."""

_POLL_SECONDS = 0.02
_LOG_TAIL = 15
_PR_SET_PDEATHSIG = 1

# Loaded here and not after the fork: the child may not take the loader's lock.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

# No proxy: the environment's is not meant for a service on this machine.
_open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class Service:
    """
    One running service, ended at the latest when the block is left.

    Its output goes to an unnamed file that vanishes with it.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        listener: socket.socket,
        ready_path: str,
        environment: Mapping[str, str],
    ) -> None:
        """
        Describe the service; it is not started yet.

        Args:
            command: Program and arguments.  No secret in here: other users of the machine can read them.

            listener: What it serves.  Inherited under the same number, and closed here as soon as the service
                has it, so that clients are refused when the service dies.

            ready_path: The path that answers 200 once the service can work.

            environment: Added to the environment of this process.
        """
        host, port = listener.getsockname()
        self.url: str = f"http://{host}:{port}"
        self._command = list(command)
        self._listener = listener
        self._ready_url = self.url + ready_path
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # In a hurry if the block ended badly, a second Ctrl-C for instance.
        if error is not None:
            self.kill()
        self.stop()
        if self._log is not None:
            self._log.close()

    @property
    def ended(self) -> str | None:
        """How the service ended and what it said last; None while it runs."""
        if self._process is None or self._process.poll() is None:
            return None
        return (
            f"the service ended with status {self._process.returncode}; its last lines:\n{self.last_lines()}"
        )

    def start(self) -> None:
        """Start the process; it may take a while until it answers (``ready``)."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__; lives as long as the service
        # A session of its own: Ctrl-C in a terminal reaches the whole foreground group, and the service has
        # to outlive the requests that are still under way.
        self._process = subprocess.Popen(  # noqa: S603 - the caller's own command, run without a shell
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(self._listener.fileno(),),
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - see there
        )
        self._listener.close()

    def ready(self) -> bool:
        """Ask once whether the service answers."""
        try:
            with _open_url(self._ready_url, timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def wait_ready(self, *, patience_seconds: float = START_SECONDS) -> None:
        """
        Wait until the service answers.

        Raises:
            ServerUnreachable: It ended, or did not answer in time.  The message holds its last lines.
        """
        deadline = time.monotonic() + patience_seconds
        while not self.ready():
            ended = self.ended
            if ended is not None:
                raise ServerUnreachable(f"while starting, {ended}")
            if time.monotonic() > deadline:
                raise ServerUnreachable(
                    f"{self._ready_url} did not answer 200 within {patience_seconds:.0f} s; the service's "
                    f"last lines:\n{self.last_lines()}"
                )
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Ask the service to finish what it is doing and end; kill it if it does not."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the service at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def last_lines(self) -> str:
        """Return the end of what the service printed."""
        if self._log is None or self._log.closed:
            return ""
        # Read by position: the service writes through the same open file, and seeking would move its end.
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), 16_384, max(0, size - 16_384))
        return "\n".join(tail.decode(errors="replace").splitlines()[-_LOG_TAIL:])


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs *module* with the Python of this process."""
    return [sys.executable, "-m", module, *arguments]


def listen_on(port: int) -> socket.socket:
    """
    Return a socket that listens on *port* of the loopback address, for a service that is started with it.

    A port that is only looked at may be another program's a moment later, and a drill would then put its load
    on that program.

    Raises:
        ServerUnreachable: Somebody else listens there.
    """
    listener = socket.socket()
    try:
        # As servers do: connections of an earlier server that are still fading out do not matter.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Handed on to every accepted connection.  uvicorn takes a socket that it is given for one of another
        # kind, and would leave Nagle's algorithm on: up to 40 ms for an answer.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ServerUnreachable(
            f"port {port} is taken; name another one, or none to get the next free one"
        ) from error
    return listener


def listen_from(first: int, *, tries: int = 100) -> socket.socket:
    """
    Return a socket that listens on the first free port from *first* on.

    Raises:
        ServerUnreachable: None of them is free.
    """
    for port in range(first, first + tries):
        with contextlib.suppress(ServerUnreachable):
            return listen_on(port)
    raise ServerUnreachable(
        f"ports {first} to {first + tries - 1} are all taken; free one, or name another one"
    )


def _end_with_parent() -> None:
    # Runs between fork and exec: a system call and nothing else, as a thread of this process may have held
    # any lock at the moment of the fork.  A drill that is killed has no chance to end its service;
    # the kernel has.  Linux only: elsewhere such a service is ended by hand.
    if _libc is not None:
        # Not SIGTERM: a service that is just starting would go on trying to reach servers that have gone too.
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
