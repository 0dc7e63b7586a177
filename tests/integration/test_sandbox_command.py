"""Does `ledger-db sandbox up`, `env` and `down` do what a person expects, from two terminals?"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "ledger_db.operate.cli", "sandbox"]


class Terminal:
    """A user's terminals: they share a runtime folder and a folder for temporary files."""

    def __init__(self, home: Path) -> None:
        self.temporary = home / "tmp"
        (home / "run").mkdir(mode=0o700)
        self.temporary.mkdir(mode=0o711)
        self._environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(home / "run"),
            "TMPDIR": str(self.temporary),
            "PYTHONUNBUFFERED": "1",
        }
        self._background: list[subprocess.Popen[str]] = []

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Type a command and wait for its end."""
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def up(self, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        """Start a sandbox in the foreground of a terminal of its own; return it and what it has printed."""
        process = subprocess.Popen(
            [*COMMAND, "up", *arguments],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._background.append(process)
        assert process.stdout is not None
        printed = ""
        while "AWS_EC2_METADATA_DISABLED" not in printed:
            line = process.stdout.readline()
            assert line, f"ended after: {printed}"
            printed += line
        return process, printed

    def close(self) -> None:
        """End what was started."""
        for process in self._background:
            process.terminate()
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def terminal(passable_path: Path) -> Iterator[Terminal]:
    """A user with terminals."""
    # What runs the tests may ignore it, as nohup does, and what is ignored is inherited.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with contextlib.closing(Terminal(passable_path)) as user:
            yield user
    finally:
        signal.signal(signal.SIGHUP, before)


def exports(text: str) -> list[str]:
    """Return the lines that a person pastes."""
    return [line for line in text.splitlines() if line.startswith("export ")]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_good_order(terminal: Terminal, sign: signal.Signals) -> None:
    """Ctrl-C, which goes to the whole group, and SIGTERM end with status 0 and nothing left."""
    process, _ = terminal.up()
    os.killpg(process.pid, sign)

    assert process.wait(30) == 0
    assert list(terminal.temporary.iterdir()) == []


def test_an_impatient_user_leaves_nothing_either(terminal: Terminal) -> None:
    """Ctrl-C pressed again and again does not disturb the end."""
    process, _ = terminal.up()
    pressed = threading.Event()

    def press() -> None:
        with contextlib.suppress(ProcessLookupError):
            while not pressed.wait(0.02):
                os.killpg(process.pid, signal.SIGINT)

    finger = threading.Thread(target=press)
    finger.start()
    status = process.wait(30)
    pressed.set()
    finger.join()

    assert status == 0
    eventually(lambda: not any(terminal.temporary.iterdir()), "nothing is left")


def test_env_leads_a_second_terminal_to_it(terminal: Terminal) -> None:
    """`env` prints the same exports as `up` did; none of the passwords is among them."""
    _, printed = terminal.up()
    second = terminal.run("env")

    assert second.returncode == 0
    assert exports(second.stdout) == exports(printed)
    assert "export LEDGER_DB_DATABASE_SECRET_ID=trust-ledger/postgres" in exports(printed)
    assert not [line for line in exports(printed) if "password" in line.lower()]


def test_down_ends_it_from_a_second_terminal(terminal: Terminal) -> None:
    """When `down` returns the sandbox is gone, and `env` says so."""
    process, _ = terminal.up()
    ended = terminal.run("down")

    assert ended.returncode == 0
    assert process.wait(30) == 0
    assert list(terminal.temporary.iterdir()) == []
    assert "no sandbox is running; start one" in terminal.run("env").stderr


def test_a_second_one_is_refused(terminal: Terminal) -> None:
    """A second `up` without a folder of its own says what to do instead."""
    terminal.up()
    second = terminal.run("up")

    assert second.returncode == 1
    assert "a sandbox is running already" in second.stderr
    assert "--keep DIR" in second.stderr


def test_several_are_told_apart_by_their_folders(terminal: Terminal, passable_path: Path) -> None:
    """With two running `env` and `down` ask which one, and --dir answers."""
    _, first = terminal.up("--keep", str(passable_path / "first"))
    second_process, second = terminal.up("--keep", str(passable_path / "second"))
    ambiguous = terminal.run("env")

    assert ambiguous.returncode == 1
    assert str(passable_path / "first") in ambiguous.stderr
    assert exports(terminal.run("env", "--dir", str(passable_path / "first")).stdout) == exports(first)

    assert terminal.run("down", "--dir", str(passable_path / "second")).returncode == 0
    assert second_process.wait(30) == 0
    assert exports(terminal.run("env").stdout) == exports(first)
    gone = terminal.run("down", "--dir", str(passable_path / "second"))
    assert "no sandbox is running in" in gone.stderr
    assert exports(second) != exports(first)


def test_a_kept_sandbox_comes_back(terminal: Terminal, passable_path: Path) -> None:
    """`up --keep` in the same folder leads to the same places; a second terminal need not be told again."""
    _, first = terminal.up("--keep", str(passable_path / "kept"))
    terminal.run("down")
    _, again = terminal.up("--keep", str(passable_path / "kept"))

    assert exports(again) == exports(first)


def test_a_killed_one_is_not_found(terminal: Terminal) -> None:
    """After kill -9 nothing is said to run, and the next `up` starts."""
    process, _ = terminal.up()
    process.kill()
    process.wait()

    assert "no sandbox is running" in terminal.run("env").stderr

    terminal.up()
    eventually(lambda: len(list(terminal.temporary.iterdir())) == 1, "only the new one is there")


def test_the_wrong_folder_is_named(terminal: Terminal, passable_path: Path) -> None:
    """A folder with other files in it is refused in one line."""
    (passable_path / "mine").mkdir()
    (passable_path / "mine" / "thesis.txt").write_text("years of work")
    refused = terminal.run("up", "--keep", str(passable_path / "mine"))

    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: ")
    assert "holds files that no sandbox made" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_tls_shows_in_the_exports(terminal: Terminal) -> None:
    """With --tls a second terminal is told to verify, and whom to trust."""
    _, printed = terminal.up("--tls")

    assert "export LEDGER_DB_DATABASE_SSLMODE=verify-full" in exports(printed)
    assert "(TLS only)" in printed


def test_without_click_the_extra_is_named(tmp_path: Path) -> None:
    """The command without its extra says which one to install."""
    (tmp_path / "click.py").write_text("raise ImportError('no click')")
    done = subprocess.run(
        [*COMMAND, "env"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert "pip install 'ledger-db[cli]'" in done.stderr
    assert "Traceback" not in done.stderr
