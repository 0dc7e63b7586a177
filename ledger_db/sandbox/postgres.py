"""How does a real PostgreSQL live in a folder: from initdb to its end?"""

import contextlib
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ledger_db.errors import ServerUnreachable
from ledger_db.sandbox.ports import HOST, free_port
from ledger_db.sandbox.processes import (
    Account,
    crash,
    end,
    nobody,
    spawn,
    wait_until,
    write_private,
)
from ledger_db.sandbox.programs import find_postgres, reachable

if TYPE_CHECKING:
    import subprocess

ADMIN = "postgres"
_START_SECONDS = 30.0
_INITDB_SECONDS = 60.0
_ATTEMPTS = 20
_SETTINGS = (
    f"listen_addresses={HOST}",
    "unix_socket_directories=",
    # Nothing here outlives the machine, and a crash of the server alone loses nothing without fsync.
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=16MB",
    "max_connections=200",
    "log_timezone=UTC",
    "log_line_prefix=%m [%p] %u@%d ",
    # A statement that fails is not logged with its text, which may hold a password somebody typed.
    "log_min_error_statement=panic",
)
_TAKEN = re.compile(r"could not bind|Address already in use")
# After a SIGKILL the orphaned backends of the dead server need a moment to notice.
_STILL_THERE = re.compile(r"pre-existing shared memory block|lock file \"postmaster.pid\" already exists")


class EmbeddedPostgres:
    """
    One PostgreSQL on the loopback address, reachable with a password and nothing else.

    Not safe for use by several threads: the supervisor's main thread alone drives it.

    Attributes:
        port: Where it listens, once started; it stays the same from then on.

        log_file: What the server wrote; no password ever is in it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        admin_password: str,
        give_up: threading.Event,
        account: Account = "plain",
        port: int | None = None,
    ) -> None:
        self.port = port
        self._give_up = give_up
        self.native_tls: bool = False
        self._folder = folder
        self._data = folder / "data"
        self.log_file: Path = folder / "postgres.log"
        self._account = account
        self._admin_password = admin_password
        self._initdb: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._tls_settings: tuple[str, ...] = ()
        folder.mkdir(mode=0o700, exist_ok=True)
        self._bin = find_postgres()
        if account == "nobody":
            os.chown(folder, *nobody())
            self._bin = reachable(self._bin, folder.parent / "programs")

    @property
    def is_new(self) -> bool:
        """Whether there is no cluster in the folder yet."""
        return not (self._data / "PG_VERSION").exists()

    def begin(self) -> None:
        """Start making the cluster, and return at once; ``complete`` waits for it."""
        if not self.is_new:
            return
        password_file = self._folder / "password"
        write_private(password_file, self._admin_password)
        if self._account == "nobody":
            os.chown(password_file, *nobody())
        self._initdb = spawn(
            [
                self._bin / "initdb", "--pgdata", self._data, "--username", ADMIN,
                "--auth", "scram-sha-256", f"--pwfile={password_file}",
                "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
            ],
            self._folder,
            name="initdb",
            account=self._account,
        )  # fmt: skip

    def complete(self) -> None:
        """
        Wait until the cluster is made.

        Raises:
            ServerUnreachable: It could not be made; with the last words of initdb.
        """
        process = self._initdb
        if process is None:
            return
        try:
            wait_until(
                lambda: process.poll() == 0,
                process,
                what="initdb",
                log_file=self._folder / "initdb.log",
                timeout_seconds=_INITDB_SECONDS,
                give_up=self._give_up,
            )
        finally:
            (self._folder / "password").unlink(missing_ok=True)
        (self._folder / "initdb.pid").unlink(missing_ok=True)
        self._initdb = None

    def speaks_tls(self) -> bool:
        """Whether this build of PostgreSQL has OpenSSL (most of those on PyPI have not)."""
        asked = spawn(
            [self._bin / "postgres", "-C", "ssl", "-D", self._data, "-c", "ssl=on"],
            self._folder,
            name="ask",
            account=self._account,
        )
        speaks = asked.wait(_START_SECONDS) == 0
        for kind in ("log", "pid"):
            (self._folder / f"ask.{kind}").unlink(missing_ok=True)
        return speaks

    def use_tls(self, certificate: Path, key: Path) -> None:
        """Let the server itself speak TLS, and refuse everything else."""
        self.native_tls = True
        for source, name in ((certificate, "server.pem"), (key, "server.key")):
            # Copies of its own: the server insists on owning its key.
            write_private(self._folder / name, source.read_text())
            if self._account == "nobody":
                os.chown(self._folder / name, *nobody())
        self._tls_settings = (
            "ssl=on",
            f"ssl_cert_file={self._folder / 'server.pem'}",
            f"ssl_key_file={self._folder / 'server.key'}",
        )

    def start(self) -> None:
        """
        Start the server, and return when it accepts connections.

        Raises:
            ServerUnreachable: It did not start; with the last words of its log.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self._write_access_rules()
        wanted = self.port
        for attempt in range(_ATTEMPTS):
            port = wanted if wanted is not None else free_port()
            log_size = self.log_file.stat().st_size if self.log_file.exists() else 0
            try:
                self._start_on(port)
            except ServerUnreachable:
                if attempt == _ATTEMPTS - 1 or not self._worth_another_attempt(
                    log_size, fixed=wanted is not None
                ):
                    raise
            else:
                self.port = port
                return

    def stop(self) -> None:
        """Cut every session and shut down in good order."""
        self._end(signal.SIGINT)

    def abandon(self) -> None:
        """End without writing anything back: for a folder that is removed next."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """End it and every session of it as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._initdb is not None:
            end(self._initdb, signal.SIGTERM)
            self._initdb = None
        if self._process is not None:
            if how == signal.SIGKILL:
                crash(self._process)
            else:
                end(self._process, how)
            (self._folder / "postgres.pid").unlink(missing_ok=True)
            self._process = None

    def _start_on(self, port: int) -> None:
        settings = (*_SETTINGS, *self._tls_settings)
        self._process = process = spawn(
            [
                self._bin / "postgres",
                "-D",
                self._data,
                "-p",
                str(port),
                *(p for s in settings for p in ("-c", s)),
            ],
            self._folder,
            name="postgres",
            account=self._account,
            # A fast shutdown: the next start finds the data in order.
            death_signal=signal.SIGINT,
        )
        wait_until(
            lambda: self._is_ready(process.pid),
            process,
            what="PostgreSQL",
            log_file=self.log_file,
            timeout_seconds=_START_SECONDS,
            give_up=self._give_up,
        )

    def _is_ready(self, pid: int) -> bool:
        # pg_ctl looks at the same line, but only ten times a second.
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            # A killed server leaves its file behind, and that one says "ready" as well.
            return int(lines[0]) == pid and lines[7].strip() == "ready"
        except (OSError, IndexError, ValueError):
            return False

    def _worth_another_attempt(self, log_size: int, *, fixed: bool) -> bool:
        with self.log_file.open("rb") as log:
            log.seek(log_size)
            words = log.read().decode(errors="replace")
        if _STILL_THERE.search(words):
            time.sleep(0.1)
            return True
        return bool(_TAKEN.search(words)) and not fixed

    def _write_access_rules(self) -> None:
        kind = "hostssl" if self.native_tls else "host"
        # Opened, not replaced: the file keeps the owner that initdb gave it.
        descriptor = os.open(self._data / "pg_hba.conf", os.O_WRONLY | os.O_TRUNC)
        with contextlib.closing(os.fdopen(descriptor, "w")) as rules:
            for database in ("all", "replication"):
                rules.write(f"{kind} {database} all {HOST}/32 scram-sha-256\n")
