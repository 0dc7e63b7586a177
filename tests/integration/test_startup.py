"""Does a start wait for what may come, fail at once for what will not, and say which it was?"""

import logging
import socket
import threading
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from ledger_db import ConfigurationError, ConnectionManager, LoginRefused, ServerUnreachable, Settings
from ledger_db.answers.login_errors import judge, sqlstate_of
from ledger_db.answers.reason import Verdict
from ledger_db.sandbox import Sandbox
from ledger_db.testing import ScriptedPostgres
from tests.support.events import event_of


def settings_for(box: Sandbox, **changes: Any) -> Settings:
    """Settings of a developer's own server, without Secrets Manager."""
    values: dict[str, Any] = {
        "database_secret_id": None,
        "redis_secret_id": None,
        "database_user": box.postgres.admin_user,
        "database_password": box.postgres.admin_password,
        "database_host": box.postgres.host,
        "database_port": box.postgres.port,
        "database_name": box.postgres.database,
        "startup_timeout_seconds": 20,
    }
    return Settings(**{**values, **changes})


def open_sync(settings: Settings) -> None:
    """Start and stop."""
    with ConnectionManager(settings):
        pass


async def async_open(settings: Settings) -> None:
    """Start and stop on a loop."""
    async with ConnectionManager(settings):
        pass


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
@pytest.mark.parametrize(
    ("change", "expected", "message"),
    [
        ({"database_name": "nope"}, ConfigurationError, 'database "nope" does not exist'),
        ({"database_password": "wrong"}, LoginRefused, "it has no other version"),
        ({"database_user": "nobody"}, LoginRefused, "user 'nobody'"),
        ({"database_sslmode": "require"}, ConfigurationError, "server does not support SSL"),
    ],
)
def test_what_only_a_person_can_mend_fails_at_once(
    environment: Sandbox, driver: str, change: dict[str, Any], expected: type[Exception], message: str
) -> None:
    """Real servers, real drivers: one attempt, and the error says what it was, and what the driver said."""
    with pytest.raises(expected, match=message) as failed:
        open_sync(settings_for(environment, database_driver=driver, **change))

    assert failed.value.__cause__ is not None


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize(
    ("change", "expected", "message"),
    [
        ({"database_name": "nope"}, ConfigurationError, 'database "nope" does not exist'),
        ({"database_password": "wrong"}, LoginRefused, "it has no other version"),
        ({"database_sslmode": "require"}, ConfigurationError, "SSL"),
    ],
)
async def test_the_same_on_an_event_loop(
    environment: Sandbox, driver: str, change: dict[str, Any], expected: type[Exception], message: str
) -> None:
    """asyncpg words things differently; the answer is the same."""
    with pytest.raises(expected, match=message) as failed:
        await async_open(settings_for(environment, async_database_driver=driver, **change))

    assert failed.value.__cause__ is not None


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"database_port": 1}, "refused"),
        ({"database_host": "db.invalid", "database_sslmode": "disable"}, "db.invalid"),
    ],
)
def test_what_may_come_is_waited_for_and_then_given_up(
    environment: Sandbox, change: dict[str, Any], cause: str
) -> None:
    """A closed port and an unknown name are transient until the time is up."""
    with pytest.raises(ServerUnreachable, match=cause):
        open_sync(settings_for(environment, startup_timeout_seconds=3, **change))


async def test_the_same_is_given_up_on_an_event_loop(environment: Sandbox) -> None:
    """asyncpg's raw ConnectionRefusedError is understood."""
    with pytest.raises(ServerUnreachable, match=r"was not ready|startup did not end"):
        await async_open(settings_for(environment, startup_timeout_seconds=3, database_port=1))


def test_a_server_that_never_answers_does_not_hold_the_start_up(environment: Sandbox) -> None:
    """A port that accepts and stays silent is given up in time."""
    with ScriptedPostgres(None) as silent, pytest.raises(ServerUnreachable):
        open_sync(settings_for(environment, startup_timeout_seconds=3, database_port=silent.port))


async def test_nor_on_an_event_loop(environment: Sandbox) -> None:
    """The attempt is cancelled."""
    with ScriptedPostgres(None) as silent, pytest.raises(ServerUnreachable):
        await async_open(settings_for(environment, startup_timeout_seconds=3, database_port=silent.port))


def test_a_server_that_comes_late_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """Both servers are started after the service: it starts, and has logged its retries."""
    with Sandbox() as box:
        settings = settings_for(
            box,
            redis_host=box.redis.host,
            redis_port=box.redis.port,
            redis_user=box.redis.admin_user,
            redis_password=box.redis.admin_password,
        )
        box.postgres.stop()
        box.redis.stop()

        def start() -> None:
            box.postgres.start()
            box.redis.start()

        later = threading.Timer(0.7, start)
        later.start()
        with caplog.at_level(logging.INFO, logger="ledger_db"):
            open_sync(settings)
        later.join()

    messages = [event_of(record) for record in caplog.records]
    assert "startup.retrying" in messages
    assert messages.count("startup.checked") == 4


SCRIPTS = [
    ("57P03", "the database system is starting up", Verdict.TRANSIENT),
    ("57P03", "Das Datenbanksystem startet", None),
    ("53300", "sorry, too many clients already", Verdict.TRANSIENT),
    ("53300", 'too many connections for role "app"', Verdict.TRANSIENT),
    ("28P01", 'password authentication failed for user "app"', Verdict.REFUSED),
    ("28000", 'role "app" is not permitted to log in', Verdict.REFUSED),
    ("28000", 'no pg_hba.conf entry for host "1.2.3.4", user "app", database "d"', Verdict.PERMANENT),
    ("28000", 'PAM authentication failed for user "app"', Verdict.REFUSED),
    ("3D000", 'database "d" does not exist', Verdict.PERMANENT),
    ("42501", 'permission denied for database "d"', Verdict.PERMANENT),
    ("0A000", "unsupported frontend protocol", Verdict.PERMANENT),
]
URLS = ["postgresql+psycopg2://", "postgresql+psycopg://"]


@pytest.mark.parametrize(("sqlstate", "message", "verdict"), SCRIPTS)
@pytest.mark.parametrize("url", URLS)
def test_what_a_server_says_is_understood(
    url: str, sqlstate: str, message: str, verdict: Verdict | None
) -> None:
    """libpq passes on the text and no code; a translated text is nobody's friend, hence permanent."""
    with ScriptedPostgres(sqlstate, message) as server:
        engine = create_engine(url, connect_args={"host": "127.0.0.1", "port": server.port, "user": "app"})
        with pytest.raises(Exception) as caught:  # noqa: PT011 - judged below
            engine.connect()
        engine.dispose()

    assert judge(caught.value) is (verdict or Verdict.PERMANENT)


@pytest.mark.parametrize(("sqlstate", "message", "verdict"), SCRIPTS)
async def test_what_a_server_says_is_understood_from_asyncpg(
    sqlstate: str, message: str, verdict: Verdict | None
) -> None:
    """asyncpg passes on the code, which decides whatever the language."""
    with ScriptedPostgres(sqlstate, message) as server:
        arguments = {"host": "127.0.0.1", "port": server.port, "user": "app", "ssl": False}
        engine = create_async_engine("postgresql+asyncpg://", connect_args=arguments)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - judged below
            await engine.connect()
        await engine.dispose()

    assert sqlstate_of(caught.value) == sqlstate
    assert judge(caught.value) is (verdict or Verdict.TRANSIENT)


def test_a_reset_connection_is_transient() -> None:
    """A proxy that accepts and hangs up is tried again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            client, _ = listener.accept()
            client.close()

        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        engine = create_engine(
            "postgresql+psycopg2://",
            connect_args={"host": "127.0.0.1", "port": listener.getsockname()[1], "sslmode": "disable"},
        )
        with pytest.raises(Exception) as caught:  # noqa: PT011 - judged below
            engine.connect()
        hanging_up.join()
        engine.dispose()

    assert judge(caught.value) is Verdict.TRANSIENT
