"""Are settings read, checked, and kept to themselves?"""

import math
import re
from pathlib import Path

import pytest

from ledger_db import ConfigurationError, Settings
from ledger_db.variables import OTHERS
from tests.support.events import fields_of

PROJECT = Path(__file__).resolve().parents[2]


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """LEDGER_DB_<NAME> is read, and an empty value means not set."""
    monkeypatch.setenv("LEDGER_DB_DATABASE_SECRET_ID", "prod/ledger")
    monkeypatch.setenv("LEDGER_DB_POOL_SIZE", "7")
    monkeypatch.setenv("LEDGER_DB_REDIS_HOST", "")

    settings = Settings()

    assert (settings.database_secret_id, settings.pool_size, settings.redis_host) == ("prod/ledger", 7, None)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"pool_size": 0}, "LEDGER_DB_POOL_SIZE"),
        ({"pool_timeout_seconds": "soon"}, "LEDGER_DB_POOL_TIMEOUT_SECONDS"),
        ({"silence_timeout_seconds": 0.5}, "LEDGER_DB_SILENCE_TIMEOUT_SECONDS"),
        ({"silence_timeout_seconds": float("inf")}, "LEDGER_DB_SILENCE_TIMEOUT_SECONDS"),
        ({"silence_timeout_seconds": float("nan")}, "LEDGER_DB_SILENCE_TIMEOUT_SECONDS"),
        ({"database_port": 70000}, "LEDGER_DB_DATABASE_PORT"),
        ({"database_sslmode": "maybe"}, "LEDGER_DB_DATABASE_SSLMODE"),
        ({"pool_siez": 5}, "LEDGER_DB_POOL_SIEZ"),
        ({"profile": "staging"}, "LEDGER_DB_PROFILE"),
        ({"profile": ["test"]}, "LEDGER_DB_PROFILE"),
        ({"database_url": "sqlite:/dev.db"}, "LEDGER_DB_DATABASE_URL"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, object], named: str) -> None:
    """The message names the variable to mend; a typing error in a name is one too."""
    with pytest.raises(ConfigurationError, match=named):
        Settings(**values)


@pytest.mark.parametrize("seconds", [math.inf, -math.inf, math.nan, 3e10, 1e308, -1.0, "inf", "nan", "1e999"])
@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.endswith("_seconds")])
def test_a_duration_without_an_end_is_refused_by_name(name: str, seconds: object) -> None:
    """No clock, socket or driver can count it, and a thread that waits for it would die of that."""
    with pytest.raises(ConfigurationError, match=f"LEDGER_DB_{name.upper()}: "):
        Settings(**{name: seconds})


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("LEDGER_DB_POOL_SIEZ", "LEDGER_DB_POOL_SIZE"),
        ("LEDGER_DB_DATABASE_SECRET", "LEDGER_DB_DATABASE_SECRET_ID"),
        ("LEDGER_DB_CONNECT_TIMEOUT", "LEDGER_DB_CONNECT_TIMEOUT_SECONDS"),
        ("LEDGER_DB_ROTATION_SECRET", "LEDGER_DB_ROTATION_SECRETS"),
        ("LEDGER_DB__REDIS_TLS", "LEDGER_DB_REDIS_TLS"),
        ("ledger_db_redis_tsl", "LEDGER_DB_REDIS_TLS"),
        ("LEDGER_DB_QUUX", None),
    ],
)
def test_a_misspelt_variable_is_told_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, nearest: str | None
) -> None:
    """A default that is taken in its place is not taken without a word; the value is not repeated."""
    monkeypatch.setenv(variable, "c4nary!")
    Settings()

    (record,) = caplog.records
    told = fields_of(record)
    assert (told["event"], told["variable"], told["nearest"]) == ("settings.unknown", variable, nearest)
    assert record.levelname == "WARNING"
    assert nearest is None or nearest in record.getMessage()
    assert "c4nary" not in record.getMessage()


def test_what_others_read_is_no_mistake(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is a setting in small letters, nor a variable that is empty, nor one of another prefix."""
    for name in OTHERS:
        monkeypatch.setenv(f"LEDGER_DB_{name}", "x")
    for name, value in {"ledger_db_pool_size": "3", "LEDGER_DB_NONE": "", "LEDGER_DBA": "x"}.items():
        monkeypatch.setenv(name, value)
    Settings()

    assert caplog.records == []


def test_every_variable_that_is_read_is_known() -> None:
    """Whatever names a variable, the documents and deployments too, names one that is read."""
    known = {f"LEDGER_DB_{name}" for name in (*OTHERS, *map(str.upper, Settings.model_fields))}
    files = [
        path
        for folder in ("ledger_db", "docs", "infra", "localstack", "examples", "benchmarks")
        for path in (PROJECT / folder).rglob("*")
        if path.suffix in {".py", ".md", ".yaml", ".yml", ".tf", ".sh"}
    ]
    named = {
        name
        for path in (*files, PROJECT / "README.md", PROJECT / "Makefile")
        for name in re.findall(r"\bLEDGER_DB_(?:[A-Z]+_)*[A-Z]+\b(?!_)", path.read_text(encoding="utf-8"))
    }

    assert named - known == set()
    assert {f"LEDGER_DB_{name}" for name in ("PG_BIN", "ROTATION_SECRETS", "POOL_SIZE")} <= named


@pytest.mark.parametrize(
    "name", ["database_secret_id", "database_name", "redis_user", "database_sslrootcert"]
)
def test_white_space_around_a_text_is_refused_by_name(name: str) -> None:
    """A name that looks right in every message would be looked for in vain."""
    with pytest.raises(ConfigurationError, match=f"LEDGER_DB_{name.upper()}: has white space around it"):
        Settings(**{name: "ledger "})


@pytest.mark.parametrize(
    "name", ["database_secret_id", "database_user", "database_password", "redis_password"]
)
def test_the_character_nul_is_refused_by_name(name: str) -> None:
    """No variable can hold it; an argument can."""
    with pytest.raises(ConfigurationError, match=f"LEDGER_DB_{name.upper()}: .*NUL"):
        Settings(**{name: "a\x00b"})


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"database_secret_id": "s", "database_password": "p"}, "exclude each other"),
        ({"database_iam_auth": True}, "database_user and database_host are needed"),
        ({"database_password": "p", "database_user": "u"}, "database_user and database_host are needed"),
        ({"redis_secret_id": "s", "redis_password": "p"}, "exclude each other"),
        ({"redis_password": "p"}, "redis_host is needed"),
        (
            {"database_url": "sqlite://", "database_secret_id": "s"},
            "remove it, or LEDGER_DB_DATABASE_SECRET_ID",
        ),
        (
            {"database_url": "sqlite://", "database_user": "u", "database_host": "h"},
            "remove it, or LEDGER_DB_DATABASE_USER, LEDGER_DB_DATABASE_HOST",
        ),
    ],
)
def test_there_is_one_way_to_log_in(values: dict[str, object], what: str) -> None:
    """Two ways at once, or half of one, is refused before anything is connected."""
    with pytest.raises(ConfigurationError, match=what):
        Settings(**values)


def test_a_pooler_by_transaction_changes_what_it_has_to() -> None:
    """No login can find a server that takes writes for later, and whoever keeps an old one is in the way."""
    behind = Settings(pooler="transaction")

    assert (behind.database_target, behind.renewal_spread_seconds) == ("any", 2.0)
    assert Settings(pooler="transaction", profile="development").renewal_spread_seconds == 0.0
    assert Settings(pooler="transaction", renewal_spread_seconds=0.5).renewal_spread_seconds == 0.5
    assert Settings(pooler="session").model_dump() == {**Settings().model_dump(), "pooler": "session"}


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"database_target": "primary"}, "LEDGER_DB_DATABASE_TARGET=primary does not hold"),
        ({"renewal_spread_seconds": 2.5}, "LEDGER_DB_RENEWAL_SPREAD_SECONDS: at most 2 "),
        ({"database_url": "sqlite://"}, "remove it, or LEDGER_DB_POOLER"),
    ],
)
def test_what_a_pooler_by_transaction_cannot_do_is_refused(values: dict[str, object], what: str) -> None:
    """With a sentence that names the setting and the way out, before anything is connected."""
    with pytest.raises(ConfigurationError, match=what):
        Settings(pooler="transaction", **values)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:c4nary!@h/db",
        "postgresql+psycopg2://u:c4nary!@h/db",
        "sqlite://u:c4nary!@h/dev.db",
        "sqlite:///dev.db?key=c4nary!",
        "sqlite+pysqlcipher://:c4nary!@/dev.db",
        "c4nary!",
    ],
)
def test_a_url_of_a_server_is_refused_and_not_repeated(url: str) -> None:
    """A password in a URL never rotates: the message says what to use instead, and does not print it."""
    with pytest.raises(ConfigurationError, match=r"LEDGER_DB_DATABASE_URL: .*database_secret_id") as caught:
        Settings(database_url=url)

    assert "c4nary" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///dev.db", "sqlite+aiosqlite:////data/dev.db"],
)
def test_a_url_of_sqlite_is_accepted(url: str) -> None:
    """Whatever driver it names: both engines are made from it."""
    assert Settings(database_url=url).database_url == url


def test_a_password_in_the_settings_does_not_show() -> None:
    """Neither the settings nor an error about them prints it."""
    canary = "c4nary!"
    settings = Settings(database_user="u", database_host="h", database_password=canary)
    with pytest.raises(ConfigurationError) as caught:
        Settings(database_password=canary, pool_size=canary)

    assert canary not in repr(settings)
    assert canary not in str(caught.value)
    assert caught.value.__cause__ is None
