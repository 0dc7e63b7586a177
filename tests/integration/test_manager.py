"""Is the manager what an application expects of it?"""

import asyncio
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from ledger_db import ConfigurationError, ConnectionManager, ManagerClosed, Settings
from ledger_db.sandbox import Sandbox
from tests.support.events import event_of
from tests.support.waiting import eventually


def user_of(db: ConnectionManager) -> str:
    """Return the role that a session is."""
    with db.session() as session:
        return str(session.execute(text("SELECT session_user")).scalar_one())


def test_begin_commits_and_session_does_not(settings: Settings) -> None:
    """`begin` is sessionmaker.begin(), `session` is sessionmaker()."""
    with ConnectionManager(settings) as db:
        with db.begin() as session:
            session.execute(text("CREATE TABLE IF NOT EXISTS kept (n int)"))
            session.execute(text("TRUNCATE kept"))
            session.execute(text("INSERT INTO kept VALUES (1)"))
        with db.session() as session:
            session.execute(text("INSERT INTO kept VALUES (2)"))
        with pytest.raises(RuntimeError), db.begin() as session:
            session.execute(text("INSERT INTO kept VALUES (3)"))
            raise RuntimeError
        with db.session() as session:
            assert session.execute(text("SELECT n FROM kept")).scalars().all() == [1]


async def test_the_asynchronous_half_does_the_same(settings: Settings) -> None:
    """The same table, the same names with async_."""
    async with ConnectionManager(settings) as db:
        async with db.async_begin() as session:
            await session.execute(text("CREATE TABLE IF NOT EXISTS kept_async (n int)"))
            await session.execute(text("TRUNCATE kept_async"))
            await session.execute(text("INSERT INTO kept_async VALUES (1)"))
        async with db.async_session() as session:
            await session.execute(text("INSERT INTO kept_async VALUES (2)"))
        async with db.async_session(read_only=True) as session:
            assert (await session.execute(text("SELECT n FROM kept_async"))).scalars().all() == [1]
        assert await db.async_redis.set("x", "1")


def test_options_do_not_leak_to_the_next_session(settings: Settings) -> None:
    """Read-only, isolation and timeout hold in each transaction of the session, and in no other."""
    query = text(
        "SELECT current_setting('transaction_read_only'), current_setting('transaction_isolation'), "
        "current_setting('statement_timeout')"
    )
    special = ("on", "serializable", "1500ms")
    with ConnectionManager(settings) as db:
        with db.session(
            read_only=True, isolation_level="SERIALIZABLE", statement_timeout_seconds=1.5
        ) as session:
            assert tuple(session.execute(query).one()) == special
            session.commit()
            assert tuple(session.execute(query).one()) == special
        with db.session() as session:
            assert tuple(session.execute(query).one()) == ("off", "read committed", "0")


def test_a_statement_that_takes_too_long_is_cancelled(settings: Settings) -> None:
    """The timeout is PostgreSQL's own."""
    with (
        ConnectionManager(settings) as db,
        pytest.raises(DBAPIError, match="statement timeout"),
        db.begin(statement_timeout_seconds=0.05) as session,
    ):
        session.execute(text("SELECT pg_sleep(5)"))


def test_a_closed_session_stays_closed(settings: Settings) -> None:
    """Used after its end it raises instead of holding a connection for ever."""
    with ConnectionManager(settings) as db:
        with db.session() as session:
            session.execute(text("SELECT 1"))
        with pytest.raises(InvalidRequestError, match="permanently closed"):
            session.execute(text("SELECT 1"))


def test_closing_is_idempotent(settings: Settings) -> None:
    """Closing twice is fine; what comes after is a bug of the caller, and says so."""
    db = ConnectionManager(settings)
    with pytest.raises(ManagerClosed, match="not opened yet"):
        db.engine.connect()
    db.close()
    db.open()
    with pytest.raises(ManagerClosed, match="is open; close it before"):
        db.open()
    db.close()
    db.close()

    with pytest.raises(ManagerClosed, match="is closed"):
        db.engine.connect()
    assert not db.health().ok


def test_nothing_is_left_after_close(settings: Settings, environment: Sandbox) -> None:
    """No session on the server, no thread in the process."""

    def sessions() -> int:
        with closing(environment.postgres.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'ledger_app%'")
            return int(cursor.fetchone()[0])

    with ConnectionManager(settings) as db:
        user_of(db)
        assert sessions() == 1
    eventually(lambda: sessions() == 0, "no session is left")
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("ledger_db-watch")]
    assert ours == []


def test_an_async_manager_offers_the_synchronous_half_too(settings: Settings) -> None:
    """A def endpoint of an asynchronous service uses the same manager."""

    async def main() -> str:
        async with ConnectionManager(settings) as db:
            return await asyncio.to_thread(user_of, db)

    assert asyncio.run(main()).startswith("ledger_app")


def test_two_managers_do_not_disturb_each_other(settings: Settings, environment: Sandbox) -> None:
    """Each follows the rotation for itself; closing one leaves the other."""
    with ConnectionManager(settings) as one:
        with ConnectionManager(settings) as other:
            environment.rotate_database("alternating-users")
            one.look_now()
            eventually(
                lambda: one.health().servers[0].credentials.generation == 2, "the first follows the rotation"
            )
            assert other.health().servers[0].credentials.generation == 1
            assert user_of(other) != user_of(one)
        assert user_of(one).startswith("ledger_app")


def test_the_engine_is_the_same_object_for_ever(settings: Settings, environment: Sandbox) -> None:
    """Whoever keeps the engine or its pool keeps the right one."""
    with ConnectionManager(settings) as db:
        engine, pool, redis = db.engine, db.engine.pool, db.redis
        environment.rotate_database()
        db.look_now()
        eventually(lambda: db.health().servers[0].credentials.generation == 2, "the rotation is followed")
        user_of(db)

        assert db.engine is engine
        assert db.engine.pool is pool
        assert db.redis is redis


def test_idle_connections_are_renewed_before_anybody_asks(settings: Settings, environment: Sandbox) -> None:
    """After a rotation no session of the old user is left, although nobody made a request."""
    with ConnectionManager(settings) as db:
        held = [db.engine.connect() for _ in range(4)]
        for connection in held:
            connection.close()
        before = user_of(db)
        environment.rotate_database("alternating-users")
        db.look_now()

        def old_sessions() -> int:
            with closing(environment.postgres.connect()) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (before,))
                return int(cursor.fetchone()[0])

        eventually(lambda: old_sessions() == 0, "the old sessions are gone")
        eventually(lambda: db.health().servers[0].pools[0].idle == 4, "as many are idle as before")


def test_work_in_progress_survives_a_rotation(settings: Settings, environment: Sandbox) -> None:
    """A borrowed connection finishes its work; it is closed on return, and the next one is new."""
    with ConnectionManager(settings) as db:
        with db.engine.connect() as borrowed:
            pid = borrowed.execute(text("SELECT pg_backend_pid()")).scalar_one()
            environment.rotate_database("alternating-users")
            db.look_now()
            eventually(lambda: db.health().servers[0].credentials.generation == 2, "the rotation is followed")
            assert borrowed.execute(text("SELECT pg_backend_pid()")).scalar_one() == pid
        with db.engine.connect() as fresh:
            assert fresh.execute(text("SELECT pg_backend_pid()")).scalar_one() != pid


def test_a_wrong_secret_put_by_hand_breaks_nothing(settings: Settings, environment: Sandbox) -> None:
    """Somebody stores a password that the server does not have: the service stays on what works."""
    with closing(environment.client()) as client:
        good = client.get_secret_value(SecretId=environment.database_secret_id)["SecretString"]
        with ConnectionManager(settings) as db:
            wrong = {**json.loads(good), "password": "wrong"}
            client.put_secret_value(SecretId=environment.database_secret_id, SecretString=json.dumps(wrong))
            try:
                db.look_now()
                time.sleep(0.5)
                for _ in range(10):
                    db.engine.pool.connect().invalidate()
                    assert user_of(db).startswith("ledger_app")
                assert db.health().servers[0].credentials.generation == 1
            finally:
                client.put_secret_value(SecretId=environment.database_secret_id, SecretString=good)


def test_without_configuration_the_message_says_what_to_set(
    environment: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither server, or the one that is used, is not configured."""
    monkeypatch.delenv("LEDGER_DB_REDIS_SECRET_ID")
    with ConnectionManager() as db, pytest.raises(ConfigurationError, match="LEDGER_DB_REDIS_SECRET_ID"):
        _ = db.redis
    monkeypatch.delenv("LEDGER_DB_DATABASE_SECRET_ID")
    with pytest.raises(ConfigurationError, match="neither a database nor a Redis"):
        ConnectionManager().open()


def test_a_password_in_the_settings_works_without_secrets_manager(environment: Sandbox) -> None:
    """A developer's own server needs no AWS."""
    postgres = environment.postgres
    settings = Settings(
        database_secret_id=None,
        redis_secret_id=None,
        database_user=postgres.admin_user,
        database_password=postgres.admin_password,
        database_host=postgres.host,
        database_port=postgres.port,
        database_name=postgres.database,
    )
    with ConnectionManager(settings) as db:
        assert user_of(db) == postgres.admin_user


def test_opening_and_closing_is_logged(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """One clear line for success, with the time that it took."""
    with caplog.at_level(logging.INFO, logger="ledger_db"), ConnectionManager(settings):
        pass

    messages = [event_of(record) for record in caplog.records]
    assert messages.count("manager.opened") == 1
    assert messages.count("startup.checked") == 4
    assert messages[-1] == "manager.closed"


def _child(db: ConnectionManager, pipe: "multiprocessing.connection.Connection") -> None:
    with db.session() as session:
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    watchers = [t.name for t in threading.enumerate() if t.name.startswith("ledger_db-watch")]
    pipe.send((pid, bool(db.redis.ping()), len(watchers)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_worker_shares_nothing(settings: Settings) -> None:
    """A child has connections and threads of its own, and the parent's go on working."""
    context = multiprocessing.get_context("fork")
    with ConnectionManager(settings) as db:
        with db.session() as session:
            parent_pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        db.redis.ping()
        ours, theirs = context.Pipe()
        child = context.Process(target=_child, args=(db, theirs))
        child.start()
        assert ours.poll(30)
        child_pid, redis_answers, watchers = ours.recv()
        child.join(30)
        ours.close()
        theirs.close()

        assert child.exitcode == 0
        assert child_pid != parent_pid
        assert redis_answers
        assert watchers == 2
        with db.session() as session:
            assert session.execute(text("SELECT pg_backend_pid()")).scalar_one() == parent_pid
        assert db.redis.ping()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_worker_follows_rotations(settings: Settings, environment: Sandbox) -> None:
    """The child reads the secret for itself; no socket to Secrets Manager is shared either."""
    context = multiprocessing.get_context("fork")
    with ConnectionManager(settings) as db:
        before = user_of(db)
        ours, theirs = context.Pipe()

        def work() -> None:
            theirs.recv()
            db.look_now()
            eventually(lambda: user_of(db) != before, "the child follows the rotation")
            theirs.send("followed")

        child = context.Process(target=work)
        child.start()
        environment.rotate_database("alternating-users")
        ours.send("rotated")
        assert ours.poll(30)
        assert ours.recv() == "followed"
        child.join(30)
        ours.close()
        theirs.close()
        assert child.exitcode == 0


FAILING_START = """
from ledger_db import ConnectionManager, Settings
with ConnectionManager(Settings(startup_timeout_seconds=5)):
    pass
"""


def test_a_process_that_cannot_start_ends_with_an_error(environment: Sandbox) -> None:
    """The exit status is not zero, in time, although a server hangs."""
    import socket  # noqa: PLC0415 - for one listener that never answers

    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {
            **os.environ,
            "LEDGER_DB_DATABASE_PORT": str(silent.getsockname()[1]),
            "LEDGER_DB_DATABASE_HOST": "127.0.0.1",
        }
        ended = subprocess.run(
            [sys.executable, "-c", FAILING_START],
            env=env,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    assert ended.returncode == 1
    assert "ServerUnreachable" in ended.stderr
