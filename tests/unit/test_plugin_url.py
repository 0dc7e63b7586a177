"""What may a URL with the plugin say, and who says what is wrong with it?"""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import StaticPool, create_engine, make_url
from sqlalchemy.engine import URL

from ledger_db.errors import ConfigurationError
from ledger_db.integrations.url import asked_by
from tests.support.events import event_of

PLAIN = "postgresql+psycopg2://?plugin=ledger_db&secret_id=prod/db"


@pytest.mark.parametrize(
    ("url", "arguments", "words"),
    [
        ("postgresql+psycopg2://u:pw@h/db?plugin=ledger_db", {}, "take the password out of the URL"),
        (f"{PLAIN}&password=pw", {}, "take 'password' out"),
        (PLAIN, {"connect_args": {"password": "pw"}}, "take 'password' out"),
        (PLAIN, {"connect_args": {"hostaddr": "10.0.0.1"}}, "take 'hostaddr' out"),
        (PLAIN, {"creator": lambda: None}, "creator= cannot be given"),
        (PLAIN, {"pool": StaticPool(lambda: None)}, "pool= cannot be given"),  # type: ignore[arg-type]
        (f"{PLAIN}&secret_id=another", {}, "secret_id is given twice"),
        (f"{PLAIN}&host=a&host=b", {}, "host is given twice"),
        (f"{PLAIN}&secretid=x", {}, "was secret_id meant"),
        (f"{PLAIN}&database_secret_id=x", {}, "was secret_id meant"),
        (f"{PLAIN}&refresh_interval=3", {}, "was refresh_interval_seconds meant"),
        (f"{PLAIN}&refresh_interval_seconds=soon", {}, "LEDGER_DB_REFRESH_INTERVAL_SECONDS"),
        (f"{PLAIN}&host=db.example:5432", {}, "LEDGER_DB_DATABASE_HOST"),
        ("postgresql+psycopg2://?plugin=ledger_db", {}, "LEDGER_DB_DATABASE_SECRET_ID"),
        ("postgresql+psycopg2://?plugin=ledger_db&iam_auth=true", {}, "database_user and database_host"),
        ("postgresql+pg8000://?plugin=ledger_db&secret_id=x", {}, "serves the drivers psycopg2"),
        ("sqlite://?plugin=ledger_db", {}, "serves postgresql, not sqlite"),
        ("mysql+pymysql://?plugin=ledger_db", {}, "serves postgresql, not mysql"),
    ],
)
def test_what_cannot_be_followed_is_refused(url: str, arguments: dict[str, Any], words: str) -> None:
    """When the engine is made, by name, with what to do, and without a value that may be secret."""
    with pytest.raises(ConfigurationError, match=words) as refused:
        create_engine(url, **arguments)

    assert "pw" not in str(refused.value)


@pytest.mark.parametrize(
    "copied",
    [
        lambda url: url,
        lambda url: make_url(str(url)),
        lambda url: make_url(url.render_as_string(hide_password=False)),
        lambda url: url.set(drivername="postgresql+psycopg", database="another"),
        lambda url: pickle.loads(pickle.dumps(url)),
        copy.deepcopy,
    ],
)
def test_a_copy_of_an_engine_s_url_asks_for_the_same(copied: Callable[[URL], URL]) -> None:
    """Tools make a second engine of the first one's URL, and that has to log in as well."""
    engine = create_engine(PLAIN)

    again = create_engine(copied(engine.url))

    assert again.url.query["secret_id"] == "prod/db"
    assert again.url.query["plugin"] == "ledger_db"


def test_the_word_may_be_an_argument() -> None:
    """``plugins=`` does the same, and a copy of the URL has the word in it."""
    engine = create_engine("postgresql+psycopg2://?secret_id=prod/db", plugins=["ledger_db"])

    assert engine.url.query["plugin"] == "ledger_db"


def test_the_driver_hears_nothing_of_ours() -> None:
    """What is ours is taken out, what is the driver's stays, and an address goes before the secret's."""
    url = make_url(f"{PLAIN}&sslmode=require&options=-c%20work_mem%3D8MB&host=/tmp&port=6000&dbname=d")

    asked = asked_by(url, {"keepalives": 0, "database": "e"})

    assert dict(asked.plain.query) == {"sslmode": "require", "options": "-c work_mem=8MB"}
    assert (asked.plain.host, asked.plain.port, asked.plain.database) == (None, None, None)
    assert set(asked.driver) == {"sslmode", "options", "keepalives"}
    assert asked.has_own_tls
    assert asked.settings.database_host == "/tmp"
    assert asked.settings.database_port == 6000
    assert asked.settings.database_name == "e"


def test_the_url_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the two exclude each other."""
    monkeypatch.setenv("LEDGER_DB_DATABASE_SECRET_ID", "another")
    monkeypatch.setenv("LEDGER_DB_REFRESH_INTERVAL_SECONDS", "60")

    by_secret = asked_by(make_url(PLAIN), {}).settings
    by_token = asked_by(make_url("postgresql+psycopg2://u@h/d?plugin=ledger_db&iam_auth=1"), {}).settings

    assert by_secret.database_secret_id == "prod/db"
    assert by_secret.refresh_interval_seconds == 60
    assert by_token.database_secret_id is None
    assert by_token.database_iam_auth


@pytest.mark.parametrize(("said", "target"), [(None, "any"), ("primary", "primary")])
def test_a_replica_will_do_unless_somebody_wants_a_primary(
    monkeypatch: pytest.MonkeyPatch, said: str | None, target: str
) -> None:
    """A program's engine goes where its URL says."""
    if said is not None:
        monkeypatch.setenv("LEDGER_DB_DATABASE_TARGET", said)

    assert asked_by(make_url(PLAIN), {}).settings.database_target == target


def test_a_user_beside_a_secret_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """A line that was moved from another program may still name one."""
    create_engine("postgresql+psycopg2://old@/d?plugin=ledger_db&secret_id=prod/db")

    assert [event_of(record) for record in caplog.records] == ["plugin.user_ignored"]


def test_one_connection_for_all_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """What several use at once cannot be replaced under one of them."""
    create_engine(PLAIN, poolclass=StaticPool)

    (record,) = caplog.records
    assert event_of(record) == "plugin.not_renewed"
    assert "StaticPool" in caplog.text
