"""What is a driver told beside who logs in, and what is refused before it could be told?"""

from typing import Any

import pytest

from ledger_db import ConfigurationError, Settings
from ledger_db.connections.driver_arguments import driver_arguments
from ledger_db.connections.engine_arguments import EngineArguments
from ledger_db.connections.engines import EngineOptions

ODD = EngineOptions(server_settings={"search_path": r"a b\c", "work_mem": "8MB"})


def options_of(made_with: EngineOptions, **driver: Any) -> object:
    """Return the command line that libpq is given."""
    return driver_arguments("psycopg2", made_with, EngineArguments(driver=driver)).get("options")


def test_a_value_may_hold_what_a_command_line_ends_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """White space and backslashes arrive as they are."""
    monkeypatch.delenv("PGOPTIONS", raising=False)

    assert options_of(ODD) == r"-c search_path=a\ b\\c -c work_mem=8MB"
    assert options_of(EngineOptions()) is None


def test_what_is_given_or_inherited_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """PGOPTIONS holds as it does without settings; what the program gives goes before both."""
    monkeypatch.setenv("PGOPTIONS", "-c geqo=off")

    assert str(options_of(ODD)).startswith("-c geqo=off -c search_path=")
    assert str(options_of(ODD, options="-c work_mem=1MB")).endswith("-c work_mem=8MB -c work_mem=1MB")


def test_asyncpg_has_the_same_by_its_own_name() -> None:
    """One setting for every driver."""
    given = EngineArguments(driver={"server_settings": {"work_mem": "1MB"}})

    assert driver_arguments("asyncpg", ODD, given)["server_settings"] == {
        "application_name": "ledger_db",
        "search_path": r"a b\c",
        "work_mem": "1MB",
    }


@pytest.mark.parametrize(
    ("driver", "name"), [("asyncpg", "statement_cache_size"), ("psycopg", "prepare_threshold")]
)
def test_what_a_pooler_would_break_is_refused(driver: str, name: str) -> None:
    """Prepared statements stay on another connection of the pooler."""
    options, given = EngineOptions(pooler="transaction", target="any"), EngineArguments(driver={name: 5})

    with pytest.raises(ConfigurationError, match=f"'{name}' does not hold with LEDGER_DB_POOLER"):
        driver_arguments(driver, options, given)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"server_settings": {"application_name": "x"}}, "set LEDGER_DB_APPLICATION_NAME"),
        ({"server_settings": {"Lock_Timeout": "1s"}}, "set LEDGER_DB_LOCK_TIMEOUT_SECONDS"),
        ({"server_settings": {"a b": "canary"}}, "LEDGER_DB_SERVER_SETTINGS: names are those"),
        ({"server_settings": {"a": "canary\0"}}, "no value holds the character NUL"),
        ({"pooler": "session", "lock_timeout_seconds": 1}, r"\(lock_timeout\) exclude each other"),
        ({"pooler": "transaction", "server_settings": {"search_path": "canary"}}, "use ALTER ROLE"),
        ({"application_name": "x" * 58}, "LEDGER_DB_APPLICATION_NAME"),
        ({"statement_timeout_seconds": 0}, "LEDGER_DB_STATEMENT_TIMEOUT_SECONDS"),
    ],
)
def test_a_server_setting_that_cannot_hold_is_refused(values: dict[str, Any], words: str) -> None:
    """By its name, with what to do instead, and without its value."""
    with pytest.raises(ConfigurationError, match=words) as refused:
        Settings(**values)

    assert "canary" not in str(refused.value)


def test_server_settings_that_are_no_json_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every other mistake in the environment."""
    monkeypatch.setenv("LEDGER_DB_SERVER_SETTINGS", "search_path=canary")

    with pytest.raises(ConfigurationError, match="SERVER_SETTINGS: is no JSON object") as refused:
        Settings()
    assert "canary" not in str(refused.value)


def test_settings_can_be_hashed() -> None:
    """Whoever caches by them may go on."""
    one, same = (Settings(server_settings={"work_mem": "8MB"}) for _ in range(2))

    assert hash(one) == hash(same)
