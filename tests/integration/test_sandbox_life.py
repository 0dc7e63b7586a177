"""Does a sandbox leave nothing behind, however it ends, and does the next one clean up after a killed one?"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ledger_db.errors import ConfigurationError, ServerUnreachable
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.folder import KEPT, remove_if_abandoned
from ledger_db.sandbox.processes import nobody, reachable_by_others
from ledger_db.sandbox.programs import find_postgres
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
AS_ROOT = os.geteuid() == 0

CREATOR = """
import sys, time
from ledger_db.sandbox import Sandbox
with Sandbox() as box:
    connection = box.postgres.connect(); connection.close()
    print(box.directory, box._supervisor.process_id, flush=True)
    {then}
"""


class Creator:
    """A program of its own that has a sandbox."""

    def __init__(self, then: str = "time.sleep(600)", **options: object) -> None:
        self.process = subprocess.Popen(  # type: ignore[call-overload]
            [sys.executable, "-c", CREATOR.format(then=then)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    def wait_until_ready(self) -> None:
        """Wait for the sandbox, and note which processes belong to it."""
        folder, supervisor = self.process.stdout.readline().split()
        self.folder, self.supervisor = Path(folder), psutil.Process(int(supervisor))
        self.family = [self.supervisor, *self.supervisor.children(recursive=True)]
        # PostgreSQL, its helpers, Valkey: otherwise the tests below look for nothing.
        assert len(self.family) > 4

    def left(self) -> list[str]:
        """What is still there of it."""
        left = [str(self.folder)] if self.folder.exists() else []
        return left + [f"{process.pid}" for process in self.family if alive(process)]

    def close(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def alive(process: psutil.Process) -> bool:
    """Whether *process* does anything."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def creator() -> Iterator[Creator]:
    """A program with a sandbox that is ready."""
    with contextlib.closing(Creator(start_new_session=True)) as program:
        program.wait_until_ready()
        yield program


def with_temporary_folder(path: Path) -> list[int]:
    """Find the processes that were started with TMPDIR=*path*, whatever they call themselves by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(path):
                found.append(process.pid)
    return found


def supervisor_of(box: Sandbox) -> psutil.Process:
    """Return the process that all servers of *box* depend on."""
    assert box._supervisor is not None
    return psutil.Process(box._supervisor.process_id)


def test_nothing_is_left_after_the_block(record_property: Callable[[str, object], None]) -> None:
    """When the block ends, servers, supervisor and folder are gone, and ending again is no error."""
    with Sandbox() as box:
        supervisor = supervisor_of(box)
        family = [supervisor, *supervisor.children(recursive=True)]
        record_property("seconds_to_start", box.seconds_to_start)

    assert not box.directory.exists()
    assert not any(alive(process) for process in family)
    assert not box.is_running

    box.close()


def test_nothing_is_left_after_kill_9(creator: Creator) -> None:
    """A program that is killed takes its servers and their folder with it."""
    creator.process.kill()

    eventually(lambda: not creator.left(), "servers and folder are gone")


def test_nothing_is_left_after_ctrl_c(creator: Creator) -> None:
    """Ctrl-C goes to the whole group of processes; the sandbox ends in good order all the same."""
    os.killpg(creator.process.pid, signal.SIGINT)

    eventually(lambda: not creator.left(), "servers and folder are gone")
    assert creator.process.wait() != 0


def test_nothing_is_left_when_the_start_is_interrupted(passable_path: Path) -> None:
    """Ctrl-C while the servers start leaves nothing either."""
    environment = {**os.environ, "TMPDIR": str(passable_path)}
    program = Creator(start_new_session=True, env=environment, stderr=subprocess.DEVNULL)
    with contextlib.closing(program):
        eventually(lambda: any(passable_path.glob("ledger-db-sandbox-*/postgres")), "the start has begun")
        os.killpg(program.process.pid, signal.SIGINT)
        program.process.wait(30)

    assert list(passable_path.iterdir()) == []
    assert with_temporary_folder(passable_path) == []


def test_a_forked_child_does_not_keep_it_alive() -> None:
    """A child with a copy of the pipe neither ends the sandbox nor keeps it after its parent's death."""
    forks = "import os\n    if os.fork() == 0: box.close(); time.sleep(20); os._exit(0)\n    time.sleep(600)"
    with contextlib.closing(Creator(forks, start_new_session=True)) as program:
        program.wait_until_ready()
        assert all(alive(process) for process in (program.supervisor, *program.supervisor.children()))
        program.process.kill()
        try:
            eventually(lambda: not program.left(), "servers and folder are gone")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.process.pid, signal.SIGKILL)


def test_a_killed_supervisor_is_cleaned_up_by_the_next_start(passable_path: Path) -> None:
    """If even the supervisor is killed its servers end, and the next sandbox removes what is left."""
    environment = {**os.environ, "TMPDIR": str(passable_path)}
    with contextlib.closing(Creator(start_new_session=True, env=environment)) as program:
        program.wait_until_ready()
        program.supervisor.kill()
        program.process.kill()
        assert program.folder.exists()
        with contextlib.closing(Creator(start_new_session=True, env=environment)) as another:
            another.wait_until_ready()
            eventually(lambda: not program.left(), "the next sandbox has cleaned up")
            assert another.folder.exists()


def test_a_killed_supervisor_is_noticed() -> None:
    """Using a sandbox whose supervisor was killed is an error that says so; leaving it cleans up."""
    with Sandbox() as box:
        supervisor_of(box).kill()
        with pytest.raises(ServerUnreachable, match="ended unexpectedly"):
            box.postgres.stop()

        eventually(lambda: not box.is_running, "the sandbox says that it does not run")

    assert not box.directory.exists()


def abandoned_folder(tmp_path: Path, process_id: int) -> Path:
    """Make what a killed sandbox leaves: a folder with the number of a process."""
    folder = tmp_path / "ledger-db-sandbox-abandoned"
    (folder / "redis").mkdir(parents=True)
    (folder / "redis" / "redis.pid").write_text(f"{process_id}\n")
    return folder


def test_an_orphaned_server_is_ended(tmp_path: Path) -> None:
    """A server that survived its supervisor is recognised by the folder in its command, and ended."""
    folder = tmp_path / "ledger-db-sandbox-abandoned" / "redis"
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", folder])
    try:
        eventually(lambda: str(folder) in psutil.Process(orphan.pid).cmdline(), "it has its command")
        remove_if_abandoned(abandoned_folder(tmp_path, orphan.pid))

        assert not folder.parent.exists()
        assert orphan.wait(60) == -signal.SIGTERM
    finally:
        orphan.kill()
        orphan.wait()


def test_a_reused_process_id_is_left_alone(tmp_path: Path) -> None:
    """A process that merely has the number of a server that is long gone is not touched."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        folder = abandoned_folder(tmp_path, stranger.pid)
        remove_if_abandoned(folder)

        assert not folder.exists()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_living_sandbox_is_not_cleaned_up(box: Sandbox) -> None:
    """A folder whose sandbox lives is not taken for an abandoned one."""
    remove_if_abandoned(box.directory)

    assert box.postgres.log_file.exists()
    box.postgres.connect().close()


def test_two_at_once_do_not_meet(box: Sandbox) -> None:
    """Two sandboxes have ports, passwords and folders of their own."""
    with Sandbox() as other:
        assert other.directory != box.directory
        assert other.postgres.port != box.postgres.port
        assert other.postgres.admin_password != box.postgres.admin_password
        other.postgres.connect().close()

    box.postgres.connect().close()


def test_a_kept_folder_is_found_again(passable_path: Path) -> None:
    """The next sandbox in the same folder has the data, the passwords, the secrets and the ports."""
    directory = passable_path / "kept"
    with Sandbox(directory=directory, keep=True) as first:
        connection = first.postgres.connect()
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        connection.close()
        version = first.rotate_database()
        first.rotate_redis()
    with Sandbox(directory=directory) as second:
        assert (second.postgres.port, second.redis.port) == (first.postgres.port, first.redis.port)
        assert second.secrets_manager.url == first.secrets_manager.url
        assert second.postgres.admin_password == first.postgres.admin_password
        second.redis.connect().close()
        client = second.client()
        answer = client.get_secret_value(SecretId=second.database_secret_id)
        client.close()
        credentials = json.loads(answer["SecretString"])
        connection = second.postgres.connect(user=credentials["username"], password=credentials["password"])
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.close()
        second.rotate_redis()

    assert answer["VersionId"] == version
    assert credentials["port"] == second.postgres.port
    assert (directory / KEPT).exists()


def test_a_kept_folder_of_a_killed_sandbox_is_found_again(passable_path: Path) -> None:
    """After kill -9 of everything the next sandbox in the same folder starts with its data."""
    directory = passable_path / "kept"
    with Sandbox(directory=directory, keep=True) as first:
        connection = first.postgres.connect()
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        connection.close()
        supervisor_of(first).kill()
        with Sandbox(directory=directory, keep=True) as second:
            connection = second.postgres.connect()
            with connection.cursor() as cursor:
                cursor.execute("SELECT answer FROM kept")
                row = cursor.fetchone()
            connection.close()

    assert row == (42,)


def test_a_folder_in_use_is_refused(passable_path: Path) -> None:
    """Two sandboxes in one folder would destroy each other; the second says so."""
    with (
        Sandbox(directory=passable_path / "kept"),
        pytest.raises(ConfigurationError, match="a sandbox is running in"),
    ):
        Sandbox(directory=passable_path / "kept").start()


def test_a_folder_with_other_files_is_refused(passable_path: Path) -> None:
    """A sandbox never uses, and hence never removes, a folder with somebody's files in it."""
    (passable_path / "thesis.txt").write_text("years of work")
    # As some other program may call its own lock.
    (passable_path / "lock").touch()
    with pytest.raises(ConfigurationError, match="holds files that no sandbox made"):
        Sandbox(directory=passable_path).start()

    assert (passable_path / "thesis.txt").read_text() == "years of work"


def test_half_a_sandbox_is_made_anew(passable_path: Path) -> None:
    """A folder whose first start was killed half-way is no obstacle."""
    directory = passable_path / "kept"
    (directory / "postgres" / "data").mkdir(parents=True)
    (directory / ".ledger-db-sandbox.lock").touch()
    (directory / "postgres" / "data" / "PG_VERSION").write_text("18")
    with Sandbox(directory=directory, keep=True) as box:
        box.postgres.connect().close()


@pytest.mark.skipif(not AS_ROOT, reason="only root can become somebody else")
def test_a_normal_user_has_a_sandbox() -> None:
    """Without any rights of its own a program gets the same servers."""
    interpreter = interpreter_for_everybody()
    if interpreter is None:
        pytest.skip("no Python of this version here that another user could run")
    home = Path(tempfile.mkdtemp(dir="/var/tmp"))
    user, group = nobody()
    os.chown(home, user, group)
    site = next(path for path in sys.path if path.endswith("site-packages"))
    try:
        done = subprocess.run(
            # Without the packages of its own system, which do not fit to ours.
            [interpreter, "-S", "-c", CREATOR.format(then="print(box.rotate_database())")],
            cwd=home,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(home),
                "TMPDIR": str(home),
                "PYTHONPATH": f"{ROOT}:{site}",
            },
            capture_output=True,
            text=True,
            user=user,
            group=group,
            extra_groups=[],
            timeout=60,
            check=False,
        )

        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(home))
        assert not Path(done.stdout.split()[0]).exists()
    finally:
        shutil.rmtree(home)


def interpreter_for_everybody() -> str | None:
    """Return a Python of this version that an account without rights can run."""
    candidates = [
        sys.executable,
        shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin"),
    ]
    site = next(path for path in sys.path if path.endswith("site-packages"))
    if not (reachable_by_others(Path(site)) and reachable_by_others(ROOT)):
        return None
    return next((name for name in candidates if name and reachable_by_others(Path(name))), None)


@pytest.mark.skipif(not AS_ROOT, reason="only root can become somebody else")
def test_root_without_namespaces_has_a_sandbox() -> None:
    """Where user namespaces are forbidden, as in most containers, PostgreSQL runs as nobody."""
    with Sandbox(account="nobody") as box:
        box.rotate_database()
        accounts = {child.name(): child.uids().real for child in supervisor_of(box).children()}

        assert accounts["postgres"] == nobody()[0]

    assert not box.directory.exists()


@pytest.mark.skipif(not AS_ROOT, reason="only root can become somebody else")
def test_programs_that_nobody_can_reach_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL in a private folder runs as nobody too, and the private folder stays private."""
    package = find_postgres().parent.parent
    if not package.with_name(f"{package.name}.libs").is_dir():
        pytest.skip("this PostgreSQL brings no libraries of its own")
    private = tmp_path / "private"
    shutil.copytree(package, private / package.name, symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), private / f"{package.name}.libs")
    private.chmod(0o700)
    monkeypatch.setenv("LEDGER_DB_PG_BIN", str(private / package.name / "pginstall" / "bin"))
    with Sandbox(account="nobody") as box:
        box.postgres.connect().close()

    assert private.stat().st_mode & 0o777 == 0o700
