"""Which sandboxes run for this user, and how does another terminal find and end them?"""

import contextlib
import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ledger_db.errors import ConfigurationError, ServerUnreachable
from ledger_db.sandbox.folder import lock_file

_END_SECONDS = 30.0
_POLL_SECONDS = 0.05
_GLANCE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class RunningSandbox:
    """
    A sandbox that somebody started with ``ledger-db sandbox up``.

    Attributes:
        process_id: Of that command.

        directory: The folder that it was told to keep, or None.

        environment: What leads to its servers; no password is in it.
    """

    process_id: int
    directory: str | None
    environment: Mapping[str, str]


class Announcement:
    """
    Tells other terminals about the sandbox of this process.

    The file is locked for as long as the process lives: who can lock it knows that nobody is there any more,
    whatever the file says.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = None if directory is None else str(directory)
        self._file = _runtime_folder() / _name_for(self._directory)
        self._lock: int | None = None

    def __enter__(self) -> Self:
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _patiently_locked(self._file)
        except OSError as error:
            raise ConfigurationError(
                f"{self._file.parent}, where other terminals look for the sandbox, cannot be used "
                f"({error.strerror}); name a folder of yours in XDG_RUNTIME_DIR"
            ) from error
        if self._lock is None:
            where = "" if self._directory is None else f" in {self._directory}"
            raise ConfigurationError(
                f"a sandbox is running{where} already; use it (ledger-db sandbox env), "
                "end it (ledger-db sandbox down), "
                "or start another one in a folder of its own (ledger-db sandbox up --keep DIR)"
            )
        os.truncate(self._lock, 0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            # Removed before the lock is given back: nobody else can have it in between.
            self._file.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def publish(self, environment: Mapping[str, str]) -> None:
        """Let others find the sandbox."""
        assert self._lock is not None
        announced = {
            "process_id": os.getpid(),
            "directory": self._directory,
            "environment": dict(environment),
        }
        os.write(self._lock, json.dumps(announced).encode())


def find(directory: Path | None) -> RunningSandbox:
    """
    Find the sandbox of this user that keeps its files in *directory*, or the only one there is.

    Raises:
        ConfigurationError: There is none, or there are several and none was named.
    """
    running = list(_running())
    if directory is not None:
        wanted = str(directory.expanduser().resolve())
        for sandbox in running:
            if sandbox.directory == wanted:
                return sandbox
        raise ConfigurationError(f"no sandbox is running in {wanted}; {_advice(running)}")
    if len(running) == 1:
        return running[0]
    if not running:
        raise ConfigurationError("no sandbox is running; start one in another terminal: ledger-db sandbox up")
    raise ConfigurationError(f"several sandboxes are running; {_advice(running)}")


def end(sandbox: RunningSandbox) -> None:
    """
    End *sandbox*, and wait until it has ended.

    Raises:
        ServerUnreachable: It still runs after half a minute.
    """
    # The number is nobody else's: its process was seen to hold the lock a moment ago.
    with contextlib.suppress(ProcessLookupError):
        os.kill(sandbox.process_id, signal.SIGTERM)
    file = _runtime_folder() / _name_for(sandbox.directory)
    deadline = time.monotonic() + _END_SECONDS
    while _read(file) is not None:
        if time.monotonic() > deadline:
            raise ServerUnreachable(
                f"the sandbox (process {sandbox.process_id}) did not end within {_END_SECONDS:g} s; "
                "look at its terminal, and try again"
            )
        time.sleep(_POLL_SECONDS)


def _patiently_locked(file: Path) -> int | None:
    """Lock *file*; somebody who only looks whether it is locked has it for a moment."""
    deadline = time.monotonic() + _GLANCE_SECONDS
    while (lock := lock_file(file)) is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return lock


def _running() -> Iterator[RunningSandbox]:
    for file in sorted(_runtime_folder().glob("sandbox-*.json")):
        sandbox = _read(file)
        if sandbox is not None:
            yield sandbox


def _read(file: Path) -> RunningSandbox | None:
    """Return what is announced in *file*, or None if nobody holds its lock or it is not ready yet."""
    if not file.exists():
        return None
    lock = lock_file(file)
    if lock is not None:
        # Whoever wrote it was killed; the next sandbox would have to do this otherwise.
        file.unlink(missing_ok=True)
        os.close(lock)
        return None
    try:
        return RunningSandbox(**json.loads(file.read_text()))
    except (FileNotFoundError, ValueError):
        return None


def _advice(running: list[RunningSandbox]) -> str:
    if not running:
        return "start one: ledger-db sandbox up --keep DIR"
    places = ", ".join(sandbox.directory or "a temporary folder" for sandbox in running)
    return f"name one with --dir; running: {places}"


def _name_for(directory: str | None) -> str:
    if directory is None:
        return "sandbox-temporary.json"
    return f"sandbox-{hashlib.sha256(directory.encode()).hexdigest()[:16]}.json"


def _runtime_folder() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "ledger-db"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "ledger-db"
