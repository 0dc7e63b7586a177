"""Does a program that knows only a URL keep working while passwords rotate?"""

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from sqlalchemy import (
    AsyncAdaptedQueuePool,
    Engine,
    NullPool,
    QueuePool,
    StaticPool,
    create_engine,
    event,
    exc,
    text,
)
from sqlalchemy.ext.asyncio import create_async_engine

from ledger_db.integrations import shared
from ledger_db.sandbox import Sandbox
from tests.support.rotations import Rotations, own_secret
from tests.support.waiting import eventually

OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "queue": {"poolclass": QueuePool, "pool_size": 2, "max_overflow": 1},
    "LIFO": {"pool_use_lifo": True, "pool_pre_ping": True},
    "null": {"poolclass": NullPool},
    "static": {"poolclass": StaticPool},
}
WORKERS = 3


@pytest.fixture
def secret(environment: Sandbox) -> Iterator[Rotations]:
    """A secret of the test's own, with one role: between its two passwords there is a gap."""
    with own_secret(environment, "postgres-single", masterarn=None) as rotations:
        yield rotations


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is watched no longer."""
    monkeypatch.setattr(shared, "LINGER_SECONDS", 0.05)


def url_of(rotations: Rotations, driver: str = "psycopg2", **more: str) -> str:
    """Return the URL that a program is configured with."""
    query = {"plugin": "ledger_db", "secret_id": rotations.secret_id, **more}
    return f"postgresql+{driver}://?" + "&".join(f"{name}={value}" for name, value in query.items())


@contextmanager
def made(url: str, **options: Any) -> Iterator[Engine]:
    """Make an engine as the program does, and dispose of it in the end."""
    engine = create_engine(url, **options)
    try:
        yield engine
    finally:
        engine.dispose()


def ask(engine: Engine, question: str = "SELECT 1") -> Any:
    """Ask for one value."""
    with engine.connect() as connection:
        return connection.execute(text(question)).scalar_one()


def watchers(rotations: Rotations) -> int:
    """Count the threads that watch the secret."""
    name = f"ledger_db-watch:{rotations.secret_id}"
    return sum(thread.name == name for thread in threading.enumerate())


def rotate_under(rotations: Rotations, work: Callable[[], object], *, times: int = 2) -> int:
    """Rotate while several do *work* without a pause; return how often it was done, or raise what failed."""
    done, failures = 0, list[BaseException]()
    ended = threading.Event()

    def go_on() -> None:
        nonlocal done
        try:
            while not ended.is_set():
                work()
                done += 1
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    workers = [threading.Thread(target=go_on) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(times):
            before = done
            rotations.run()
            eventually(lambda: done > before + WORKERS or bool(failures), "work goes on")  # noqa: B023
    finally:
        ended.set()
        for worker in workers:
            worker.join()
    if failures:
        raise failures[0]
    return done


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_no_operation_fails(secret: Rotations, driver: str, options: dict[str, Any]) -> None:
    """Whatever pool the program has chosen."""
    if options.get("poolclass") is StaticPool:
        # One connection is for one thread at a time.
        lock = threading.Lock()
    with made(url_of(secret, driver), **options) as engine:

        def work() -> None:
            if options.get("poolclass") is StaticPool:
                with lock:
                    ask(engine)
            else:
                ask(engine)

        assert rotate_under(secret, work) > 0
        assert ask(engine, "SELECT session_user") == secret.value()["username"]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("options", [{}, {"poolclass": AsyncAdaptedQueuePool}, {"poolclass": NullPool}])
async def test_no_operation_fails_on_a_loop(secret: Rotations, driver: str, options: dict[str, Any]) -> None:
    """The same for an asynchronous engine."""
    engine = create_async_engine(url_of(secret, driver), **options)
    rotated = asyncio.Event()

    async def work() -> int:
        done = 0
        while not rotated.is_set() or done < 3:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
            done += 1
        return done

    workers = [asyncio.create_task(work()) for _ in range(WORKERS)]
    for _ in range(2):
        await asyncio.to_thread(secret.run)
    rotated.set()

    assert all(await asyncio.gather(*workers))
    await engine.dispose()


def test_loops_may_follow_one_another(secret: Rotations) -> None:
    """As plain SQLAlchemy has it: without a pool, each ``asyncio.run`` is a loop of its own."""
    engine = create_async_engine(url_of(secret, "asyncpg"), poolclass=NullPool)

    async def work() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    for _ in range(3):
        asyncio.run(work())
        secret.run()
    asyncio.run(work())


def test_idle_connections_are_renewed(secret: Rotations, short: None) -> None:
    """A rotation leaves no session behind that logged in with the password before it."""
    with made(url_of(secret, refresh_interval_seconds="0.2", renewal_spread_seconds="0")) as engine:
        before = ask(engine, "SELECT pg_backend_pid()")
        secret.run()
        eventually(
            lambda: secret.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", before) == [(0,)],
            "the old session is gone",
        )
        assert ask(engine) == 1


def test_engines_of_one_secret_read_it_once(secret: Rotations) -> None:
    """Whatever their driver: one read, one watcher."""
    calls = secret.box.secrets_manager.calls
    with made(url_of(secret)) as first, made(url_of(secret, "psycopg")) as second:
        before = calls()["GetSecretValue"]
        assert ask(first) == ask(second) == 1
        for _ in range(5):
            with made(url_of(secret)) as another:
                assert ask(another) == 1

        assert calls()["GetSecretValue"] == before + 1
        assert watchers(secret) == 1


def test_watching_begins_with_the_first_login(secret: Rotations) -> None:
    """An engine that is made and not used costs neither a read nor a thread."""
    with made(url_of(secret)) as engine:
        assert watchers(secret) == 0
        ask(engine)
        assert watchers(secret) == 1


def test_what_was_disposed_of_may_be_used_again(secret: Rotations, short: None) -> None:
    """Many programs call ``dispose`` to start over: it works, also after rotations that nobody watched."""
    with made(url_of(secret)) as engine:
        ask(engine)
        engine.dispose()
        eventually(lambda: watchers(secret) == 0, "nobody watches")
        secret.run()
        secret.run()

        assert ask(engine) == 1
        assert watchers(secret) == 1


def test_a_forgotten_engine_leaves_nothing(secret: Rotations, short: None) -> None:
    """Neither a thread, nor a provider, nor the engine itself."""
    engine = create_engine(url_of(secret), poolclass=NullPool)
    ask(engine)
    gone = weakref.ref(engine)
    del engine

    gc.collect()

    assert gone() is None
    eventually(lambda: watchers(secret) == 0, "nobody watches")
    gc.collect()
    assert not [key for key in shared._known._known if key[1].database_secret_id == secret.secret_id]


def test_what_comes_while_it_ends_is_watched(secret: Rotations) -> None:
    """An engine that logs in at the very moment when watching ends has it go on."""
    one = shared.shared_database(_settings(secret))
    users = [object() for _ in range(2)]
    one.use(users[0])
    rest, entered = one.watched.rest, []

    def slow() -> None:
        entered.append(True)
        rest()

    one.watched.rest = slow  # type: ignore[method-assign] # of this one
    one.leave(users[0])
    one._users.add(users[1])  # who has looked whether it is watched, and goes on in a moment
    one._rest_if_unused()

    assert not entered
    assert one.is_ready
    one.leave(users[1])
    one._rest_if_unused()
    assert entered
    assert not one.is_ready


def _settings(rotations: Rotations) -> Any:
    from ledger_db import Settings  # noqa: PLC0415 - where the environment is the sandbox's

    return Settings(database_secret_id=rotations.secret_id, redis_secret_id=None)


def test_a_forked_child_has_connections_of_its_own(secret: Rotations) -> None:
    """A worker that inherits an engine uses it, and its parent's connections stay the parent's."""
    with made(url_of(secret)) as engine:
        before = ask(engine, "SELECT pg_backend_pid()")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, str(ask(engine, "SELECT pg_backend_pid()")).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with closing(os.fdopen(reader)) as pipe:
            there = int(pipe.read())
        os.waitpid(child, 0)
        secret.run()

        assert there != before
        assert ask(engine) == 1


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "asyncpg"])
async def test_who_catches_sqlalchemy_s_errors_catches_ours(environment: Sandbox, driver: str) -> None:
    """Programs retry on OperationalError, and know nothing else."""
    url = f"postgresql+{driver}://?plugin=ledger_db&secret_id=test/not-there&startup_timeout_seconds=1"
    with pytest.raises(exc.OperationalError, match="test/not-there") as failed:
        if driver == "asyncpg":
            async with create_async_engine(url).connect():
                pass
        else:
            create_engine(url).connect()

    assert failed.value.orig is not None
    assert type(failed.value.orig.__cause__).__module__.startswith("ledger_db")


def test_the_program_s_own_arguments_and_listeners_count(secret: Rotations) -> None:
    """Its options reach the server beside ours, and its listeners see each login."""
    seen: list[str] = []
    arguments = {"application_name": "theirs", "options": "-c work_mem=8MB"}
    with made(url_of(secret), connect_args=arguments, hide_parameters=False, echo=False) as engine:

        @event.listens_for(engine, "do_connect")
        def change(dialect: Any, record: Any, cargs: Any, cparams: dict[str, Any]) -> None:
            seen.append("do_connect")
            cparams["options"] += " -c lock_timeout=7s"

        @event.listens_for(engine, "connect")
        def opened(dbapi: Any, record: Any) -> None:
            seen.append("connect")

        found = [ask(engine, f"SHOW {name}") for name in ("application_name", "work_mem", "lock_timeout")]

    assert found == ["theirs", "8MB", "7s"]
    assert seen[:2] == ["do_connect", "connect"]


def test_the_environment_alone_will_do(environment: Sandbox) -> None:
    """The shortest form: no character that an .ini file or a shell would misread."""
    with made("postgresql+psycopg2://?plugin=ledger_db") as engine:
        assert ask(engine, "SELECT current_database()") == environment.postgres.database


def test_no_password_is_shown(secret: Rotations, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a URL, nor in a representation, nor in a log, nor by an error."""
    caplog.set_level("DEBUG")
    passwords = {secret.value()["password"]}
    with made(url_of(secret), echo="debug") as engine:
        ask(engine)
        secret.run()
        passwords.add(secret.value()["password"])
        with pytest.raises(exc.DBAPIError) as failed:
            ask(engine, "SELECT 1/0")
        shown = [str(engine.url), repr(engine), repr(engine.url), repr(failed.value), caplog.text]

    assert not [password for password in passwords if any(password in each for each in shown)]
