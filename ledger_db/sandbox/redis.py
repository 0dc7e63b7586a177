"""How does a real Valkey (or Redis) live in a folder?"""

import hashlib
import signal
import socket
import subprocess
import threading
from pathlib import Path

from ledger_db.errors import ServerUnreachable
from ledger_db.sandbox.ports import HOST, free_port
from ledger_db.sandbox.processes import end, spawn, wait_until, write_private
from ledger_db.sandbox.programs import find_redis

ADMIN = "admin"
_START_SECONDS = 20.0
_ATTEMPTS = 5


class EmbeddedRedis:
    """
    One Valkey on the loopback address, where nobody is let in without a password.

    Not safe for use by several threads: the supervisor's main thread alone drives it.

    Attributes:
        port: Where it listens, once started; it stays the same from then on.

        log_file: What the server wrote; no password ever is in it.
    """

    def __init__(
        self, folder: Path, *, admin_password: str, give_up: threading.Event, port: int | None = None
    ) -> None:
        self.port = port
        self._give_up = give_up
        self._folder = folder
        self.log_file: Path = folder / "redis.log"
        self._admin_password = admin_password
        self._process: subprocess.Popen[bytes] | None = None
        self._binary = find_redis()
        folder.mkdir(mode=0o700, exist_ok=True)

    @property
    def is_new(self) -> bool:
        """Whether the server has no users yet."""
        return not self._users.exists()

    @property
    def _users(self) -> Path:
        return self._folder / "users.acl"

    def write_users(self, *users: str) -> None:
        """Set the users of a server that was not started yet; each a line of Redis' ACL language."""
        admin = f"user {ADMIN} on {hashed(self._admin_password)} ~* &* +@all"
        write_private(self._users, "\n".join(["user default off", admin, *users]) + "\n")

    def launch(self) -> None:
        """Start the server and return at once; ``complete`` waits until it is ready."""
        if self._process is not None and self._process.poll() is None:
            return
        port = self.port if self.port is not None else free_port()
        self._process = spawn(
            [self._binary, *self._options(port)],
            self._folder,
            name="redis",
            # Nothing is lost, and it cannot refuse, as it does if it finds no folder to save its data in.
            death_signal=signal.SIGKILL,
        )
        self._launched_port = port

    def complete(self) -> None:
        """
        Wait until the server answers.

        Raises:
            ServerUnreachable: It did not start; with the last words of its log.
        """
        for attempt in range(_ATTEMPTS):
            assert self._process is not None
            try:
                self._wait(self._process)
            except ServerUnreachable:
                # Somebody else may have taken the port meanwhile; a port that was asked for is not exchanged.
                ended = self._process.poll() is not None
                if self.port is not None or attempt == _ATTEMPTS - 1 or not ended or self._give_up.is_set():
                    raise
                self._process = None
                self.launch()
            else:
                self.port = self._launched_port
                return

    def start(self) -> None:
        """Start the server, and return when it answers."""
        self.launch()
        self.complete()

    def stop(self) -> None:
        """Shut down in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            end(self._process, how)
            (self._folder / "redis.pid").unlink(missing_ok=True)
            self._process = None

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        wait_until(
            lambda: self._answers(self._launched_port),
            process,
            what="Valkey",
            log_file=self.log_file,
            timeout_seconds=_START_SECONDS,
            give_up=self._give_up,
        )

    def _options(self, port: int) -> list[str]:
        # As arguments, for none is secret: passwords are in the file of users, as hashes.  A server that gets
        # its configuration through a pipe, and whose supervisor is killed before it writes, would run without
        # one: open to everybody.
        options = {
            "port": str(port),
            "bind": HOST,
            # Names the folder in the process list too, by which an orphan is recognised.
            "dir": str(self._folder),
            "aclfile": str(self._users),
            # Without it the command in the process list becomes a title without the folder.
            "set-proc-title": "no",
            # A restart finds the data again; nothing here has to survive the machine.
            "appendonly": "yes",
            "appendfsync": "no",
            "save": "",
            "repl-diskless-sync-delay": "0",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _answers(self, port: int) -> bool:
        # By hand: importing redis-py takes longer than the server does to start.
        words = ("AUTH", ADMIN, self._admin_password)
        login = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        try:
            with socket.create_connection((HOST, port), timeout=1.0) as connection:
                connection.sendall(f"{login}*1\r\n$4\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:
                    received = connection.recv(256)
                    if not received:
                        return False
                    answer += received
        except OSError:
            return False
        # Not yet while it answers "-LOADING".
        return answer.startswith(b"+OK\r\n+PONG\r\n")


def hashed(password: str) -> str:
    """Return how an ACL line names a password without holding it."""
    return "#" + hashlib.sha256(password.encode()).hexdigest()
