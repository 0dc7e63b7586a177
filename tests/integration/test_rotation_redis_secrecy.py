"""Does any password of a rotation show on the side of the server, in a log, or in a process list?"""

import logging
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from ledger_db.answers.secret import Secret
from ledger_db.redaction import hide_secrets_of_botocore
from ledger_db.rotation.failures import StepFailed
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.redis import RedisAclRotator
from ledger_db.sandbox import Sandbox
from tests.support.redis_world import RedisWorld, acl
from tests.support.rotations import Rotations, new_client, new_token

ROTATIONS = 10
_END = "the-end-of-what-is-watched"


class Monitor:
    """Reads what MONITOR shows, in a thread."""

    def __init__(self, box: Sandbox) -> None:
        self._client = box.redis.connect(socket_timeout=None)
        self._monitor = self._client.monitor()  # type: ignore[no-untyped-call]
        self._monitor.__enter__()
        self.shown: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self.shown or _END not in self.shown[-1]:
            self.shown.append(str(self._monitor.next_command()))

    def close(self) -> None:
        """Wait until everything so far was read."""
        with closing(self._other()) as other:
            other.echo(_END)
        self._thread.join(20)
        self._monitor.__exit__(None, None, None)
        self._client.close()

    def _other(self) -> Any:
        return type(self._client)(connection_pool=self._client.connection_pool)


@contextmanager
def places(box: Sandbox, caplog: pytest.LogCaptureFixture) -> Iterator[dict[str, str]]:
    """Watch every place while in this block; what was shown is there at its end."""
    shown: dict[str, str] = {}
    settings: dict[str, int | str] = {
        "slowlog-log-slower-than": 0,
        "slowlog-max-len": 100_000,
        "loglevel": "debug",
    }
    with closing(box.redis.connect()) as admin, caplog.at_level(logging.DEBUG):
        before = {name: str(admin.config_get(name)[name]) for name in settings}
        monitor = Monitor(box)
        processes: list[str] = []
        try:
            for name, value in settings.items():
                admin.config_set(name, value)
            admin.slowlog_reset()
            watcher = _ProcessWatcher(processes)
            yield shown
            watcher.close()
        finally:
            monitor.close()
            shown["MONITOR"] = "\n".join(monitor.shown)
            shown["SLOWLOG"] = str(admin.slowlog_get(100_000))
            shown["ACL LOG"] = str(admin.acl_log())
            for name, earlier in before.items():
                admin.config_set(name, earlier)
    shown["server log"] = Path(box.redis.log_file).read_text()
    shown["our log"] = "\n".join(f"{record.__dict__!r}" for record in caplog.records)
    shown["processes"] = "\n".join(processes)


class _ProcessWatcher:
    """Looks at the arguments of all processes, again and again."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopping.wait(0.1):
            self._seen += [str(p.info["cmdline"]) for p in psutil.process_iter(["cmdline"])]

    def close(self) -> None:
        """Stop looking."""
        self._stopping.set()
        self._thread.join(20)


def hits(shown: dict[str, str], passwords: set[str]) -> list[str]:
    """Return the places where a password can be read."""
    return [place for place, text in shown.items() if any(password in text for password in passwords)]


def told_of_failure(rotations: Rotations, token: str) -> str:
    """Fail in setSecret, and return the traceback with the variables of every frame, causes included."""
    with pytest.raises(StepFailed) as failed:
        rotations.step("setSecret", token)
    told = traceback.TracebackException.from_exception(failed.value, capture_locals=True)
    return "".join(told.format())


def test_no_password_shows_anywhere(
    box: Sandbox, world: RedisWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten rotations, one that fails, a dry run and a retirement: the server sees hashes, people nothing."""
    # As the function does it that makes clients for rotations.
    hide_secrets_of_botocore()
    rotator = RedisAclRotator(world.tools())
    passwords = {world.fields()["password"], box.redis.admin_password}
    errors = []
    with places(box, caplog) as shown, closing(new_client(box)) as client:
        rotations = Rotations(box, client, "redis-acl", world.secret_id)
        for _ in range(ROTATIONS):
            rotations.run()
            passwords.add(world.fields()["password"])
        rotations.runner().examine(world.secret_id, Deadline.after(20))
        token = new_token()
        rotations.step("createSecret", token)
        passwords.add(world.fields("AWSPENDING")["password"])
        with closing(world.admin()) as admin:
            # The password of the secret no longer works: setSecret fails, with everything in its hands.
            acl(admin, "SETUSER", world.user, "resetpass")
        errors.append(told_of_failure(rotations, token))
        rotations.repair()
        rotator.retire(world.secret(), Deadline.after(20))
    shown["exceptions"] = "\n".join(errors)
    shown["reprs"] = repr([rotator, world.secret(), world.tools()])

    assert len(passwords) == ROTATIONS + 3
    assert "SETUSER" in shown["SLOWLOG"]
    assert len(shown["our log"]) > 1000
    assert hits(shown, passwords) == []


def test_the_search_finds_what_is_there(
    box: Sandbox, world: RedisWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """A careless program is found out in every place: the test above can fail."""
    canary = "canary-of-a-careless-program"
    with places(box, caplog) as shown, closing(world.admin()) as admin:
        admin.set(f"note-{world.user}", canary)
        admin.delete(f"note-{world.user}")
        admin.eval("redis.log(redis.LOG_WARNING, ARGV[1])", 0, canary)
        assert not world.logs_in("x")
        stranger = box.redis.connect(username=canary, password="x")
        with closing(stranger), pytest.raises(Exception, match=r"WRONGPASS|invalid username"):
            stranger.ping()
        logging.getLogger("somebody").debug("careless", extra={"canary": canary})
        subprocess.run([sys.executable, "-c", "import time; time.sleep(1)", canary], check=True, timeout=20)

    expected = {"MONITOR", "SLOWLOG", "ACL LOG", "server log", "our log", "processes"}
    assert set(hits(shown, {canary})) == expected


class Recorder:
    """A relay to the server that keeps what was sent to it."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.sent = b""
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._threads += [
                threading.Thread(target=self._pump, args=(near, far, True)),
                threading.Thread(target=self._pump, args=(far, near, False)),
            ]
            for thread in self._threads[-2:]:
                thread.start()

    def _pump(self, source: socket.socket, target: socket.socket, keep: bool) -> None:  # noqa: FBT001 - of a thread
        try:
            while data := source.recv(65536):
                if keep:
                    self.sent += data
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                # Closing alone does not wake the other thread, which waits for this very socket.
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def close(self) -> None:
        """Listen no more; what is connected ends by itself."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(60)


@pytest.fixture
def recorder(box: Sandbox) -> Iterator[Recorder]:
    """A relay to the sandbox's Redis."""
    with closing(Recorder(box.redis.host, box.redis.port)) as recorder:
        yield recorder


def test_the_change_itself_sends_hashes(world: RedisWorld, recorder: Recorder) -> None:
    """Neither the old nor the new password is on the wire when the server is told to accept them."""
    elsewhere = {"host": "127.0.0.1", "port": recorder.port}
    tools = world.tools()

    def read_secret(secret_id: str) -> Secret:
        found = tools.read_secret(secret_id)
        return Secret(found.name, found.version, {**found.fields, **elsewhere})

    rotator = RedisAclRotator(type(tools)(read_secret=read_secret, client=tools.client))
    current = world.secret(**elsewhere)
    pending = world.secret("next", **elsewhere, **rotator.next_secret(current))
    rotator.apply(current, pending, Deadline.after(20))
    changed = recorder.sent
    with closing(world.box.redis.connect(port=recorder.port)) as careless:
        acl(careless, "SETUSER", world.user, f">{pending.password}")

    assert world.logs_in(str(pending.password))
    assert b"SETUSER" in changed
    assert str(current.password).encode() not in changed
    assert str(pending.password).encode() not in changed
    assert str(pending.password).encode() in recorder.sent
