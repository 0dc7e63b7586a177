"""Where does a sandbox keep its files, and who may use or remove them?"""

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ledger_db.errors import ConfigurationError
from ledger_db.event_log import EventLog
from ledger_db.sandbox.processes import end_orphan, reachable_by_others

log: EventLog = EventLog(__name__)

PREFIX = "ledger-db-sandbox-"
KEPT = "sandbox.json"
"""Only a folder that is kept has this file: ports and passwords for the next start, mode 0600."""

_SERVERS = (("postgres", signal.SIGQUIT), ("redis", signal.SIGTERM))
# Its presence says that a sandbox made the folder and may empty it, so no other program has such a file.
_LOCK = ".ledger-db-sandbox.lock"
_REMOVE_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class Folder:
    """
    A folder that this process alone uses, as long as it holds the lock file in it.

    The kernel gives the lock back when the process ends, in whatever way: a folder whose lock is free has
    no living sandbox.

    Attributes:
        path: Absolute, without symbolic links.

        keep: Whether it outlives the sandbox.
    """

    path: Path
    keep: bool
    _lock: int

    @classmethod
    def temporary(cls, *, open_to_nobody: bool) -> "Folder":
        """
        Make a fresh folder.

        Args:
            open_to_nobody: Another account must be able to pass through it (not to list or read it).
        """
        parent = _temporary_parent(open_to_nobody=open_to_nobody)
        while True:
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).resolve()
            lock = lock_file(path / _LOCK)
            if lock is not None:
                break
            # Another sandbox took it for an abandoned one before it was locked, and removes it.
        if open_to_nobody:
            path.chmod(0o711)
        return cls(path, keep=False, _lock=lock)

    @classmethod
    def kept(cls, directory: Path, *, keep: bool, open_to_nobody: bool) -> "Folder":
        """
        Use *directory*, which is made if it is not there.

        Raises:
            ConfigurationError: It is in use, holds something else, or cannot be made.
        """
        path = directory.expanduser().resolve()
        try:
            path.mkdir(mode=0o711 if open_to_nobody else 0o700, parents=True, exist_ok=True)
            ours = (path / _LOCK).exists() or not any(path.iterdir())
        except OSError as error:
            raise ConfigurationError(
                f"the sandbox folder {path} cannot be used ({error.strerror}); name another one"
            ) from error
        if not ours:
            raise ConfigurationError(
                f"{path} holds files that no sandbox made; name an empty folder or a new one"
            )
        if open_to_nobody and not reachable_by_others(path):
            raise ConfigurationError(
                f"PostgreSQL cannot run as root and the account nobody cannot enter {path}; "
                "name a folder that it can, as one below /var/tmp, or run as another user"
            )
        lock = lock_file(path / _LOCK)
        if lock is None:
            raise ConfigurationError(f"a sandbox is running in {path}; end it or name another folder")
        _end_orphans(path)
        # What was kept once is never removed by somebody who forgot to say so again.
        return cls(path, keep=keep or (path / KEPT).exists(), _lock=lock)

    def clear(self) -> None:
        """Remove everything but the lock."""
        for entry in self.path.iterdir():
            if entry.is_dir():
                _remove(entry)
            elif entry.name != _LOCK:
                entry.unlink()

    def close(self) -> None:
        """Remove the folder unless it is kept, and give the lock back."""
        # The lock goes last: whoever gets it may start servers in the folder.
        if not self.keep:
            _remove(self.path)
        os.close(self._lock)


def remove_abandoned() -> None:
    """Remove the temporary folders of sandboxes that were killed, and end what still runs in them."""
    for parent in {_temporary_parent(open_to_nobody=False), _temporary_parent(open_to_nobody=True)}:
        for path in parent.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                remove_if_abandoned(path)


def remove_if_abandoned(path: Path) -> None:
    """Remove *path* if it is a temporary folder of ours that no living sandbox uses."""
    there = path.lstat()
    # Anybody may write to the common temporary folder: a link, or another user's folder, is not followed.
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.geteuid() or (path / KEPT).exists():
        return
    lock = lock_file(path / _LOCK)
    if lock is None:
        return
    try:
        _end_orphans(path)
        _remove(path)
        log.info("sandbox.recovered", folder=str(path))
    finally:
        os.close(lock)


def lock_file(file: Path) -> int | None:
    """
    Take the lock on *file*, which is made if it is not there.

    Returns:
        A descriptor; closing it, or ending in any way, gives the lock back.  None if somebody else has the
        lock, or has just removed the file or its folder.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between open and flock the former holder may have removed the file, and a lock on a file that has no
        # name any more excludes nobody.
        if file.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _end_orphans(path: Path) -> None:
    for name, how in _SERVERS:
        end_orphan(path / name / f"{name}.pid", how)


def _remove(path: Path) -> None:
    for attempt in range(_REMOVE_ATTEMPTS):
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            if not path.exists():
                return
        except OSError:
            # A child of a killed PostgreSQL may still write its last file; it is gone within milliseconds.
            if attempt == _REMOVE_ATTEMPTS - 1:
                raise
        else:
            return
        time.sleep(0.02)


def _temporary_parent(*, open_to_nobody: bool) -> Path:
    usual = Path(tempfile.gettempdir()).resolve()
    if not open_to_nobody or reachable_by_others(usual):
        return usual
    return Path("/var/tmp")  # noqa: S108 - mkdtemp makes the name unguessable and the folder private
