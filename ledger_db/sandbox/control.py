"""How does a program start the supervisor of its sandbox, command it, and end it?"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

from ledger_db.errors import ConfigurationError, LedgerDBError, ManagerClosed, ServerUnreachable
from ledger_db.sandbox.folder import remove_if_abandoned

_END_SECONDS = 30.0
_LAST_WORDS_BYTES = 2_000


class SupervisorProcess:
    """
    The supervisor as its creator sees it.

    Holding this object open is what keeps the servers alive: when the pipe to the supervisor closes, in
    whatever way this process ends, everything is ended and removed.  Safe to use from several threads.
    """

    def __init__(self, orders: dict[str, Any]) -> None:
        self._orders = orders
        # Guards the pipe and _asked: one question and its answer at a time.
        self._talking = threading.Lock()
        self._asked = 0
        self._process: subprocess.Popen[str] | None = None
        self._stderr: IO[bytes] | None = None
        self._folder: Path | None = None
        # A forked child has a copy of this object; the sandbox is not its own to end.
        self._owner = os.getpid()

    def start(self) -> dict[str, Any]:
        """
        Start the supervisor and wait until everything is ready.

        Raises:
            LedgerDBError: It could not be started; the message has the last words of whatever failed.
        """
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the supervisor
        try:
            self._process = subprocess.Popen(
                # -P: a redis.py in the caller's folder is not the redis that is meant.
                [sys.executable, "-P", "-m", "ledger_db.sandbox.supervisor"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                env=_environment(),
                # Ctrl-C in a terminal is for the creator, which then closes the pipe.
                start_new_session=True,
            )
            report = self._ask(self._orders)["ready"]
        except BaseException:
            # Ctrl-C while starting included: nothing may be left.
            self._hurry()
            self.close()
            raise
        self._folder = Path(report["folder"])
        assert isinstance(report, dict)
        return report

    @property
    def process_id(self) -> int:
        """What the system calls the supervisor."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the supervisor lives."""
        process = self._process
        return process is not None and process.poll() is None

    def command(self, what: str, details: object = None, /) -> None:
        """
        Have the supervisor do ``<server>.<verb>``, and wait until it is done.

        Raises:
            LedgerDBError: It could not.
        """
        self._ask({"do": what, "details": details})

    def close(self) -> None:
        """End everything and wait until nothing is left.  May be called again."""
        process = self._process
        if process is None or os.getpid() != self._owner:
            return
        self._process = None
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        if self._stderr is not None:
            self._stderr.close()
        if self._folder is not None and self._folder.exists():
            # Only if the supervisor was killed: then it left its folder, and on some systems its servers.
            with contextlib.suppress(FileNotFoundError):
                remove_if_abandoned(self._folder)

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        with self._talking:
            process = self._process
            if process is None:
                raise ManagerClosed("the sandbox was ended already; make a new one")
            assert process.stdin is not None
            assert process.stdout is not None
            self._asked += 1
            answer: dict[str, Any] = {}
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps({**question, "number": self._asked}) + "\n")
                process.stdin.flush()
                # A question that was interrupted by Ctrl-C has left its answer in the pipe.
                while answer.get("number") != self._asked and (line := process.stdout.readline()):
                    answer = json.loads(line)
        if answer.get("number") != self._asked:
            raise ServerUnreachable(f"the supervisor of the sandbox ended unexpectedly; {self._last_words()}")
        if "failed" in answer:
            raise _as_error(answer["failed"])
        return answer

    def _hurry(self) -> None:
        """Interrupt a supervisor that is still starting servers and does not look at its pipe."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def _last_words(self) -> str:
        if self._stderr is None or self._stderr.closed:
            return "it said nothing"
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - _LAST_WORDS_BYTES))
        words = self._stderr.read().decode(errors="replace").strip()
        return f"its last words: {words}" if words else "it said nothing; was it killed?"


def _environment() -> dict[str, str]:
    """Return the environment in which the supervisor finds the very package that is running here."""
    package_root = Path(__file__).parents[2]
    if package_root.name in {"site-packages", "dist-packages"}:
        # The same interpreter finds it there.  PYTHONPATH comes before the standard library, and an installed
        # backport must not take the place of one of its modules.
        return dict(os.environ)
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{package_root}{os.pathsep}{known}" if known else str(package_root)}


def _as_error(failed: dict[str, str]) -> LedgerDBError:
    kinds = {kind.__name__: kind for kind in (ConfigurationError, ManagerClosed)}
    return kinds.get(failed["kind"], ServerUnreachable)(failed["message"])
