"""How is a server process born, as whom does it run, and how does it end?"""

import contextlib
import ctypes
import functools
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from ledger_db.errors import ServerUnreachable

Account = Literal["plain", "namespace", "nobody"]
"""
As whom PostgreSQL runs, which refuses to be root.

``plain``: as the caller.  ``namespace``: in a user namespace that shows it another uid while its files stay
the caller's.  ``nobody``: as the account nobody, where namespaces are forbidden (Docker's default).
"""

_CLONE_NEWUSER = 0x1000_0000
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.01

# Loaded here and not after the fork: the child may not take the loader's lock.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def choose_account() -> Account:
    """Decide as whom PostgreSQL runs: as the caller, unless the caller is root."""
    if os.geteuid() != 0:
        return "plain"
    return "namespace" if _namespaces_work() else "nobody"


def spawn(
    command: Sequence[str | Path],
    folder: Path,
    *,
    name: str,
    account: Account = "plain",
    death_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """
    Start a server in *folder*, with its output in ``<name>.log`` and its process id in ``<name>.pid``.

    Call it from the main thread only: Linux sends *death_signal* to the child when the *thread* that started
    it ends.

    Args:
        command: Program and arguments; never a secret among them, as everybody can list them.

        folder: Working directory; part of the command too, so that an orphan can be recognised.

        name: What the two files are called.

        account: As whom it runs.

        death_signal: What Linux sends to it when this process ends, in whatever way.
    """
    log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            umask=0o077,
            # Ctrl-C in a terminal goes to the whole foreground group; only the supervisor decides when a
            # server ends.
            start_new_session=True,
            preexec_fn=_after_fork(account, os.getpid(), death_signal),  # noqa: PLW1509 - see _after_fork
            **_identity(account),
        )
    finally:
        os.close(log)
    write_private(folder / f"{name}.pid", f"{process.pid}\n")
    return process


def end(process: subprocess.Popen[bytes], how: signal.Signals, *, timeout_seconds: float = 20.0) -> None:
    """End *process* with the signal *how*, and by force if that takes longer than *timeout_seconds*."""
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def crash(process: subprocess.Popen[bytes], *, timeout_seconds: float = 10.0) -> None:
    """
    Kill *process* and its children, all at one instant, as a machine's failure does.

    Of a server that is many processes SIGKILL to the first one ends no other: its sessions answer until they
    notice, which takes a moment that nobody can rely on.
    """
    if process.poll() is None:
        # Stopped first: a parent that saw a child die could start another one, or restart them all.
        process.send_signal(signal.SIGSTOP)
        children = _children_of(process.pid)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + timeout_seconds
        while not all(map(_has_ended, children)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    end(process, signal.SIGKILL)


def end_orphan(pid_file: Path, how: signal.Signals, *, timeout_seconds: float = 10.0) -> None:
    """
    End the server whose supervisor was killed, if it still runs.

    A process id is reused sooner or later, so it is believed only if the command of that process names the
    folder of the file.

    Raises:
        OSError: It cannot be ended; nobody may use its folder.
    """
    pid = _orphan(pid_file)
    for sign in (how, signal.SIGKILL):
        deadline = time.monotonic() + timeout_seconds
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        while pid is not None and time.monotonic() < deadline:
            pid = _orphan(pid_file)
            time.sleep(_POLL_SECONDS)
    if pid is not None:
        raise TimeoutError(
            f"process {pid} of an earlier sandbox in {pid_file.parent} cannot be ended; end it"
        )
    pid_file.unlink(missing_ok=True)


def wait_until(
    ready: Callable[[], bool],
    process: subprocess.Popen[bytes],
    *,
    what: str,
    log_file: Path,
    timeout_seconds: float,
    give_up: threading.Event,
) -> None:
    """
    Wait until *ready* says yes.

    Raises:
        ServerUnreachable: The process ended, or was not ready within *timeout_seconds*, with its last words;
            or *give_up* was set.
    """
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        if give_up.is_set():
            raise ServerUnreachable(
                f"{what} was not ready when the sandbox was told to end; start another one"
            )
        status = process.poll()
        # Asked again: to end well is what some are waited for, and it may have done so a moment ago.
        if status is not None and not ready():
            raise ServerUnreachable(
                f"{what} ended with status {status} while starting; {last_words(log_file)}"
            )
        if time.monotonic() > deadline:
            raise ServerUnreachable(
                f"{what} was not ready within {timeout_seconds:g} s; {last_words(log_file)}; "
                "is the machine overloaded? Try again"
            )
        time.sleep(_POLL_SECONDS)


def last_words(log_file: Path, *, lines: int = 6) -> str:
    """Return the last *lines* of a log, for a message."""
    try:
        text = log_file.read_text(errors="replace").strip()
    except OSError:
        text = ""
    if not text:
        return f"its log {log_file} is empty"
    return f"its log {log_file} ends with: " + " | ".join(text.splitlines()[-lines:])


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    # Removed first: an existing file would keep the mode it had.
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)


def reachable_by_others(path: Path) -> bool:
    """Whether an account without rights of its own can get at *path*."""
    here = path.resolve()
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (here, *here.parents) if folder.exists())


@functools.cache
def nobody() -> tuple[int, int]:
    """Return user and group of the account nobody, which PostgreSQL insists on finding by its number."""
    try:
        account = pwd.getpwnam("nobody")
    except KeyError:
        return 65_534, 65_534
    return account.pw_uid, account.pw_gid


def _identity(account: Account) -> dict[str, Any]:
    if account != "nobody":
        return {}
    user, group = nobody()
    return {"user": user, "group": group, "extra_groups": []}


def _after_fork(account: Account, parent: int, death_signal: signal.Signals) -> Callable[[], None] | None:
    """
    Make what the child does between fork and exec.

    It makes system calls and opens files of /proc; it must not log, import or take a lock, as a thread of the
    parent may have held any lock at the moment of the fork.
    """
    if _libc is None:
        return None
    libc = _libc
    maps = (
        ("setgroups", "deny"),
        ("uid_map", f"{nobody()[0]} {os.geteuid()} 1"),
        ("gid_map", f"{nobody()[1]} {os.getegid()} 1"),
    )

    def prepare() -> None:
        if account == "namespace":
            if libc.unshare(_CLONE_NEWUSER) != 0:
                os._exit(126)
            for file, line in maps:
                descriptor = os.open(f"/proc/self/{file}", os.O_WRONLY)
                os.write(descriptor, line.encode())
                os.close(descriptor)
        # Last: entering a namespace or changing the user clears it.
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:
            # The parent ended before the line above, so nobody would ever end this process.
            os._exit(125)

    return prepare


def _namespaces_work() -> bool:
    true = shutil.which("true")
    if _libc is None or true is None:
        return False
    prepare = _after_fork("namespace", os.getpid(), signal.SIGKILL)
    try:
        done = subprocess.run([true], check=False, preexec_fn=prepare, timeout=5)  # noqa: S603 - as in spawn
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _orphan(pid_file: Path) -> int | None:
    """Return the process id in *pid_file* if that process still is the server of this folder."""
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return None
    return pid if str(pid_file.parent) in _command_of(pid) else None


def _children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return [int(child) for child in _listed("pgrep", "-P", str(pid)).split()]


def _has_ended(pid: int) -> bool:
    """Whether all that *pid* held is closed: a zombie's sockets are, its memory alone goes before them."""
    if not Path("/proc/self").exists():
        return _listed("ps", "-o", "state=", "-p", str(pid)).strip() in {"", "Z"}
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except OSError:
        return True


def _command_of(pid: int) -> str:
    proc = Path(f"/proc/{pid}")
    if Path("/proc/self").exists():
        try:
            # A zombie has no command any more, and is nothing that could be ended.
            return (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return _listed("ps", "-ww", "-o", "command=", "-p", str(pid))


def _listed(program: str, *arguments: str) -> str:
    """Ask a program about processes: macOS has no /proc, and some kernels lack a file of it."""
    # Also where PATH leads to no program at all.
    path = shutil.which(program) or shutil.which(program, path=os.defpath) or program
    return subprocess.run(  # noqa: S603 - our own command, no shell
        [path, *arguments], check=False, capture_output=True, text=True
    ).stdout
