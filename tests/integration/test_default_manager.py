"""Is there exactly one manager for a process that has no place for one, from its first use to its end?"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from ledger_db import ConfigurationError, ConnectionManager, Settings, default_manager
from ledger_db.manager import default
from ledger_db.sandbox import Sandbox
from tests.support.left_over import sessions
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def _begin_and_end_without_one() -> Iterator[None]:
    default._default.close()
    yield
    default._default.close()


@pytest.fixture
def sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that needs no server."""
    for name in [name for name in os.environ if name.startswith("LEDGER_DB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LEDGER_DB_PROFILE", "test")
    monkeypatch.setenv("LEDGER_DB_DATABASE_URL", "sqlite://")


def run_script(script: str, *, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run *script* in a process of its own that takes every warning for an error."""
    options = [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore::DeprecationWarning", "-c", script]
    return subprocess.run(
        options, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_is_open_and_always_the_same(environment: Sandbox) -> None:
    """The first call opens it from the environment; the next ones cost nothing."""
    db = default_manager()
    with db.session() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1

    assert default_manager() is db


def test_whoever_calls_first_may_say_what_it_is() -> None:
    """Settings, or who makes a manager; later ones get that one, and hear if they meant another."""
    mine = Settings(profile="test", database_url="sqlite://")
    db = default_manager(lambda: ConnectionManager(mine, expire_on_commit=True))

    assert default_manager() is default_manager(mine) is db
    assert db.session_kind.expire_on_commit
    with pytest.raises(ConfigurationError, match="is open with other settings; make a ConnectionManager"):
        default_manager(Settings(database_url="sqlite:///other.db"))


@pytest.mark.usefixtures("sqlite")
def test_a_race_opens_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen threads that need it at the same moment get the same one, opened once."""
    together, opened = threading.Barrier(16), []
    open_really = ConnectionManager.open

    def open_and_count(self: ConnectionManager) -> ConnectionManager:
        opened.append(self)
        return open_really(self)

    def get(_: int) -> ConnectionManager:
        together.wait(60)
        return default_manager()

    monkeypatch.setattr(ConnectionManager, "open", open_and_count)
    with ThreadPoolExecutor(16) as threads:
        got = set(threads.map(get, range(16)))

    assert len(got) == 1
    assert len(opened) == 1


@pytest.mark.usefixtures("sqlite")
def test_a_failure_is_everybodys_and_the_next_call_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who waited for the opening hear why it failed, at once; a mended environment is read anew."""
    failing, go_on = threading.Event(), threading.Event()
    attempts = []

    def fail(self: ConnectionManager) -> ConnectionManager:
        attempts.append(self)
        failing.set()
        assert go_on.wait(60)
        raise ConfigurationError("the server said no")

    with monkeypatch.context() as broken, ThreadPoolExecutor(4) as threads:
        broken.setattr(ConnectionManager, "open", fail)
        first = threads.submit(default_manager)
        assert failing.wait(60)
        others = [threads.submit(default_manager) for _ in range(3)]
        eventually(lambda: all(other.running() for other in others), "the others wait")
        go_on.set()
        for caller in (first, *others):
            with pytest.raises(ConfigurationError, match="the server said no"):
                caller.result(60)
        # Those who came too late to wait made an attempt of their own; nobody made more than one.
        assert 1 <= len(attempts) <= 4

    assert default_manager().is_open


@pytest.mark.usefixtures("sqlite")
def test_a_wrong_environment_is_an_error_until_it_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a failure is remembered."""
    monkeypatch.setenv("LEDGER_DB_POOL_SIZE", "none")
    with pytest.raises(ConfigurationError, match="LEDGER_DB_POOL_SIZE"):
        default_manager()
    monkeypatch.delenv("LEDGER_DB_POOL_SIZE")

    assert default_manager().is_open


@pytest.mark.usefixtures("sqlite")
def test_after_somebody_closed_it_there_is_a_new_one() -> None:
    """A worker that closes what it used does not take it from the next task."""
    before = default_manager()
    before.close()

    after = default_manager()

    assert after is not before
    assert after.is_open


USE_AND_END = """
import logging
from sqlalchemy import text
from ledger_db import default_manager
with default_manager().begin() as session:
    session.execute(text("SELECT 1"))
default_manager().redis.ping()
log = logging.getLogger("ledger_db.manager.connection_manager")
log.addHandler(logging.StreamHandler())
log.setLevel(logging.INFO)
print("used")
"""


def test_it_is_closed_when_the_interpreter_ends(environment: Sandbox) -> None:
    """A script needs no with: no warning, no traceback, no session on the server."""
    ended = run_script(USE_AND_END)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("used\n", "manager.closed\n", 0)
    eventually(lambda: sessions(environment) == 0, "no session is left")


LOG_IS_CLOSED = """
import io, logging
from ledger_db import default_manager
stream = io.StringIO()
logging.basicConfig(stream=stream, level=logging.INFO)
default_manager()
stream.close()
"""


@pytest.mark.usefixtures("sqlite")
def test_a_program_that_has_closed_what_it_logs_to_ends_without_a_word() -> None:
    """As pytest does before the interpreter ends: logging would print a traceback for the last line."""
    ended = run_script(LOG_IS_CLOSED)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 0)


LAST_THREAD = """
import threading
from sqlalchemy import text
from ledger_db import default_manager
db = default_manager()
main = threading.main_thread()
def work():
    main.join()
    with db.begin() as session:
        print(session.execute(text("SELECT 1")).scalar_one())
threading.Thread(target=work).start()
"""


@pytest.mark.usefixtures("sqlite")
def test_threads_that_the_interpreter_waits_for_can_use_it_to_their_end() -> None:
    """It is closed after the last of them, not when the main thread has nothing more to do."""
    ended = run_script(LAST_THREAD)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("1\n", "", 0)


PREFORK = """
import os, sys
from sqlalchemy import text
from ledger_db import default_manager

def pid():
    with default_manager().session() as session:
        return session.execute(text("SELECT pg_backend_pid()")).scalar_one()

inherited, mine = default_manager(), pid()
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        ok = default_manager() is inherited and pid() != mine and default_manager().redis.ping()
        sys.exit(0 if ok else 1)
    children.append(child)
statuses = [os.waitpid(child, 0)[1] for child in children]
print(statuses, pid() == mine)
"""


def test_workers_that_are_forked_inherit_a_manager_that_works(environment: Sandbox) -> None:
    """Each child has connections of its own and closes them; the parent's stay as they are."""
    ended = run_script(PREFORK)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("[0, 0, 0] True\n", "", 0)
    eventually(lambda: sessions(environment) == 0, "no session is left")


POOL_OF_PROCESSES = """
import multiprocessing
from sqlalchemy import text
from ledger_db import default_manager

def work(n):
    with default_manager().session() as session:
        return session.execute(text("SELECT pg_backend_pid(), :n"), {"n": n}).one()[0]

if __name__ == "__main__":
    mine = work(0)
    with multiprocessing.get_context("fork").Pool(2) as workers:
        theirs = set(workers.map(work, range(20)))
    print(mine in theirs, 1 <= len(theirs) <= 2, work(0) == mine)
"""


def test_a_pool_of_processes_can_use_it(environment: Sandbox) -> None:
    """Workers of multiprocessing, like those of a task queue, need no set-up of their own."""
    ended = run_script(POOL_OF_PROCESSES)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("False True True\n", "", 0)
    eventually(lambda: sessions(environment) == 0, "no session is left")


FORK_WHILE_OPENING = """
import os, signal, sys, threading
from sqlalchemy import text
from ledger_db import ConnectionManager, default_manager

opening, go_on = threading.Event(), threading.Event()
open_really = ConnectionManager.open

def open_slowly(self):
    opening.set()
    assert go_on.wait(20)
    return open_really(self)

ConnectionManager.open = open_slowly
thread = threading.Thread(target=default_manager)
thread.start()
assert opening.wait(20)
child = os.fork()
if child == 0:
    signal.alarm(20)  # a child that waits for a thread of its parent would wait for ever
    ConnectionManager.open = open_really
    with default_manager().begin() as session:
        session.execute(text("SELECT 1"))
    sys.exit(0)
status = os.waitpid(child, 0)[1]
go_on.set()
thread.join()
with default_manager().begin() as session:
    print(status, session.execute(text("SELECT 1")).scalar_one())
"""


def test_a_fork_in_the_middle_of_the_opening_does_not_stop_the_child(environment: Sandbox) -> None:
    """A thread of the parent is just opening it: the child opens one of its own, and so does the parent."""
    ended = run_script(FORK_WHILE_OPENING)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("0 1\n", "", 0)
    eventually(lambda: sessions(environment) == 0, "no session is left")


INTERRUPTED = """
import os, signal, threading
from ledger_db import ConnectionManager, default_manager

def hang(self):
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(20)

ConnectionManager.open, open_really = hang, ConnectionManager.open
try:
    default_manager()
except KeyboardInterrupt:
    ConnectionManager.open = open_really
    print(default_manager().is_open)
"""


@pytest.mark.usefixtures("sqlite")
def test_who_interrupts_the_opening_can_try_again() -> None:
    """Ctrl-C while a server hangs leaves nothing half open."""
    ended = run_script(INTERRUPTED)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("True\n", "", 0)
