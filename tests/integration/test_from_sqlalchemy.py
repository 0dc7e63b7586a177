"""Is what the page for those who come from SQLAlchemy says true, on every driver?"""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Text, cast, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from ledger_db import ConfigurationError, ConnectionManager, Settings
from ledger_db.connections import engine_arguments
from tests.integration.test_guides import DOCS
from tests.support.any_driver import DRIVERS, client_of
from tests.test_docs import run_script

PAGE: Path = DOCS / "from-sqlalchemy.md"


class Own(Session):
    """A session with a method more, as SQLModel's."""

    def exec(self, statement: str) -> Any:
        """Ask for one value."""
        return self.scalar(text(statement))


class Ways:
    """
    What a line of the page gives: to the settings, to the manager, to a session.

    Args:
        line: As it stands there.
    """

    def __init__(self, line: str) -> None:
        self.settings: dict[str, Any] = {}
        self.manager: dict[str, Any] = {}
        self.session: dict[str, Any] = {}
        names = {
            "Settings": self.settings.update,
            "ConnectionManager": self.manager.update,
            "db": type("db", (), {"session": staticmethod(self.session.update)}),
            "dumps": partial(json.dumps, default=str),
            "Own": Own,
        }
        eval(line, names)


def rows() -> list[tuple[str, ...]]:
    """List the table: what is given, on which drivers, what is asked, what the answer is."""
    lines = re.findall(
        r"^\| .* \| `(.*?)` \| (.*?) \| `(.*?)` \| `(.*?)` \|$", PAGE.read_text(), re.MULTILINE
    )
    return [tuple(line) for line in lines]


def cases() -> list[Any]:
    """List each row with each of its drivers."""
    return [
        pytest.param(driver, here, ask, answer, id=f"{driver}-{number}")
        for number, (here, on, ask, answer) in enumerate(rows())
        for driver in (DRIVERS if on == "all" else on.split(", "))
    ]


def asked(question: str) -> Callable[[Session], str]:
    """Return work that finds out the answer to *question*, which is SQL or Python."""

    def work(session: Session) -> str:
        if question.startswith(("SHOW", "SELECT")):
            return str(session.scalar(text(question)))
        names = {
            "select": select,
            "cast": cast,
            "Decimal": Decimal,
            "JSONB": JSONB,
            "Text": Text,
            "text": text,
        }
        return str(eval(question, names, {"session": session}))

    return work


@pytest.mark.parametrize(("driver", "here", "ask", "answer"), cases())
def test_each_way_in_leads_there(direct: Settings, driver: str, here: str, ask: str, answer: str) -> None:
    """What was given to SQLAlchemy or a driver has its place here, and the server sees it."""
    given = Ways(here)
    with client_of(driver, direct, arguments=given.manager, **given.settings) as client:
        assert client.session(asked(ask), **given.session) == answer
        if given.session:
            return
        # And in each session, however many there are.
        assert client.session(asked(ask)) == answer


def test_the_table_is_read() -> None:
    """A row that is written in another way would be tested by nobody."""
    section = PAGE.read_text().split("## What goes where")[1].split("##")[0]

    assert len(rows()) == section.count("\n| ") - 1


def test_the_program_of_the_page_runs(environment: Any, tmp_path: Path) -> None:
    """Its first block is a whole program, whose listener sees each connection."""
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None

    assert run_script(block[1], box=environment, folder=tmp_path) == (
        "a new connection\na new connection\nbilling\n"
    )


@pytest.mark.parametrize("name", sorted({*engine_arguments.OF_ENGINE, *engine_arguments.OF_DRIVER}))
def test_what_is_refused_is_told(name: str) -> None:
    """Nothing is refused that the page does not know."""
    assert f"`{name}" in PAGE.read_text().split("## What is refused")[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"creator": object}, "past the logins that follow a rotation"),
        ({"poolclass": object}, "set LEDGER_DB_POOL"),
        ({"pool_size": 3}, "set LEDGER_DB_POOL_SIZE"),
        ({"hide_parameters": False}, "which may be secret"),
        ({"pool_reset_on_return": None}, "the next borrower"),
        ({"isolation_level": "AUTOCOMMIT"}, "nor would COMMIT say anything"),
        ({"execution_options": {"isolation_level": "AUTOCOMMIT"}}, "nor would COMMIT say anything"),
        ({"connect_args": {"password": "x"}}, "would not follow a rotation"),
        ({"connect_args": {"host": "a,b"}}, "would not follow a rotation"),
        ({"connect_args": {"sslkey": "x"}}, "set LEDGER_DB_DATABASE_SSLKEY"),
        ({"connect_args": {"server_settings": {"Application_Name": "a canary"}}}, "DB_APPLICATION_NAME"),
        ({"connect_args": {"options": "-c work_mem=8MB -c application_name=x"}}, "DB_APPLICATION_NAME"),
        ({"connect_args": {"options": "--application-name='a canary'"}}, "DB_APPLICATION_NAME"),
        ({"connect_args": {"server_settings": {"application_name": "a canary"}}}, "APPLICATION_NAME"),
        ({"connect_args": {"server_settings": {"user": "a canary"}}}, "would not follow a rotation"),
        ({"connect_args": {"server_settings": {"database": "a canary"}}}, "would not follow a rotation"),
        ({"connect_args": {"server_settings": {"options": "-c application_name=a"}}}, "APPLICATION_NAME"),
        ({"connect_args": {"options": "-c application_name=canary"}}, "APPLICATION_NAME"),
        ({"connect_args": {"options": "-c lock_timeout=2s -cApplication_Name=x"}}, "APPLICATION_NAME"),
        ({"connect_args": {"options": "--application-name=x"}}, "APPLICATION_NAME"),
        ("a canary", "is to be a dictionary"),
        ([], "is to be a dictionary"),
        ({1: "a canary"}, "is to be a dictionary"),
        ({"execution_options": "a canary"}, "is to be a dictionary"),
        ({"connect_args": "a canary"}, "is to be a dictionary"),
        ({"connect_args": {"server_settings": ["a canary"]}}, "is to be a dictionary"),
    ],
)
@pytest.mark.parametrize("name", ["engine_options", "async_engine_options"])
def test_what_would_break_a_promise_is_refused_when_the_manager_is_made(
    direct: Settings, name: str, options: Any, words: str
) -> None:
    """The message says which promise, and what there is instead; it repeats no value."""
    arguments: dict[str, Any] = {name: options}
    with pytest.raises(ConfigurationError, match=words) as refused:
        ConnectionManager(direct, **arguments)

    assert str(refused.value).startswith(name)
    assert "a canary" not in str(refused.value)


def test_an_option_of_nobody_is_told(direct: Settings) -> None:
    """What SQLAlchemy does not know is named as what was given, and not as a mistake of ours."""
    db = ConnectionManager(direct, engine_options={"executemany": 1})

    with pytest.raises(ConfigurationError, match=r"what was given for it \(executemany\)"):
        _ = db.engine


def test_an_option_of_one_driver_is_told_where_it_goes(direct: Settings) -> None:
    """What psycopg2 alone knows leaves the asynchronous engine usable, in the way that the message says."""
    only_psycopg2 = {"executemany_mode": "values_plus_batch"}
    with pytest.raises(ConfigurationError, match=r"async_engine_options, which are both given then"):
        _ = ConnectionManager(direct, engine_options=only_psycopg2).async_engine

    db = ConnectionManager(direct, engine_options=only_psycopg2, async_engine_options={})
    assert db.async_engine.driver == "asyncpg"


def test_a_class_that_is_none_of_sessions_is_refused(direct: Settings) -> None:
    """A sessionmaker, or the class of the other half, is told when the manager is made."""
    wrong: Any
    for wrong in ({"session_class": dict}, {"async_session_class": Own}):
        with pytest.raises(ConfigurationError, match="a class derived from"):
            ConnectionManager(direct, **wrong)
