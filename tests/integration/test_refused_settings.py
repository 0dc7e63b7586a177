"""Is a server setting that the server refuses told as what it is, at once, and not as a refused login?"""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import text

from ledger_db import ConfigurationError, Settings
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import client_of, is_on_loop

AT_ONCE_SECONDS = 15


@pytest.fixture
def admin(box: Sandbox) -> Iterator[Any]:
    """A superuser's cursor."""
    with closing(box.postgres.connect()) as connection:
        connection.autocommit = True
        yield connection.cursor()


@pytest.fixture
def limited(direct: Settings, admin: Any) -> Iterator[Settings]:
    """Settings of a role that may do nothing in particular, with time for a start that looks around."""
    admin.execute("DROP ROLE IF EXISTS limited")
    admin.execute("CREATE ROLE limited LOGIN PASSWORD 'limited'")
    values = direct.model_dump(exclude_unset=True)
    own = {"database_user": "limited", "database_password": "limited", "startup_timeout_seconds": 40}
    yield Settings(**{**values, **own})
    admin.execute("DROP ROLE limited")


def told_of(refused: pytest.ExceptionInfo[ConfigurationError], began: float) -> str:
    """Return the message, which has to have come at once."""
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert refused.value.__cause__ is not None
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("role", "missing_role", 'role "missing_role" does not exist'),
        ("role", "pg_read_all_data", 'permission denied to set role "pg_read_all_data"'),
        ("session_authorization", "missing_role", 'role "missing_role" does not exist'),
        ("session_authorization", "pg_monitor", "permission denied to set session authorization"),
        ("work_memm", "1", 'unrecognized configuration parameter "work_memm"'),
        ("work_mem", "lots", 'invalid value for parameter "work_mem"'),
        ("work_mem", "1kB", "outside the valid range"),
        ("enable_seqscan", "perhaps", "requires a Boolean value"),
        ("timezone", "Mars/Olympus", "invalid value for parameter"),
        ("log_statement", "all", 'permission denied to set parameter "log_statement"'),
        ("shared_buffers", "1GB", "cannot be changed without restarting the server"),
        ("server_version", "9", "cannot be changed"),
    ],
)
def test_a_setting_that_is_refused_at_the_start_is_named(
    limited: Settings, driver: str, name: str, value: str, sentence: str
) -> None:
    """Which setting, what the server said and what to do, on every driver."""
    began = time.monotonic()
    with (
        pytest.raises(ConfigurationError, match=f"refuses the server setting {name}: ") as refused,
        client_of(driver, limited, server_settings={name: value}),
    ):
        pass

    message = told_of(refused, began)
    assert sentence in message
    assert "LEDGER_DB_SERVER_SETTINGS" in message


def test_what_a_program_gives_the_driver_is_told_alike(limited: Settings, driver: str) -> None:
    """It makes no difference by which way in a setting came."""
    libpq, asyncpg = {"options": "-c role=missing_role"}, {"server_settings": {"role": "missing_role"}}
    given = {"connect_args": asyncpg if driver == "asyncpg" else libpq}
    name = "async_engine_options" if is_on_loop(driver) else "engine_options"
    began = time.monotonic()
    with (
        pytest.raises(ConfigurationError, match="refuses the server setting role: ") as refused,
        client_of(driver, limited, arguments={name: given}),
    ):
        pass

    assert "connect_args" in told_of(refused, began)


def test_a_setting_that_is_refused_later_is_named_too(limited: Settings, driver: str, admin: Any) -> None:
    """A role that is taken from a running service is no reason to look for another password."""
    admin.execute("DROP ROLE IF EXISTS borrowed")
    admin.execute("CREATE ROLE borrowed")
    admin.execute("GRANT borrowed TO limited")
    with client_of(driver, limited, server_settings={"role": "borrowed"}, pool="none") as client:
        who = client.session(lambda session: session.scalar(text("SELECT current_user")))
        admin.execute("DROP ROLE borrowed")
        began = time.monotonic()
        with pytest.raises(ConfigurationError, match="refuses the server setting role: ") as refused:
            client.session(lambda session: session.scalar(text("SELECT 1")))

    assert who == "borrowed"
    told_of(refused, began)
