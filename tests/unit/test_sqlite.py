"""Does SQLite behave as the database of a service does, as far as it can?"""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from ledger_db import ConfigurationError, ConnectionManager, ManagerClosed, Settings
from tests.support.events import event_of

COUNT = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r {}) SELECT max(n) FROM r"
COUNT_FOR_EVER = text(COUNT.format(""))
COUNT_FOR_LONG = text(COUNT.format("LIMIT 300000"))


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own."""
    return f"sqlite:///{tmp_path}/dev.db" if request.param == "file" else "sqlite://"


@pytest.fixture(params=["queue", "none"])
def settings(request: pytest.FixtureRequest, url: str) -> Settings:
    """It, with each kind of pool."""
    return Settings(profile="development", echo=False, database_url=url, pool=request.param)


def make_table(db: ConnectionManager) -> None:
    """Make a table for accounts, and one that refers to it."""
    with db.begin() as session:
        session.execute(text("CREATE TABLE account (id int PRIMARY KEY, amount int NOT NULL DEFAULT 0)"))
        session.execute(text("CREATE TABLE entry (account int NOT NULL REFERENCES account (id))"))


def ids(db: ConnectionManager) -> list[int]:
    """Return the accounts that are there."""
    with db.session(read_only=True) as session:
        return list(session.execute(text("SELECT id FROM account ORDER BY id")).scalars())


def add(db: ConnectionManager, account: int, **options: Any) -> None:
    """Add an account in a transaction of its own."""
    with db.begin(**options) as session:
        session.execute(text("INSERT INTO account (id) VALUES (:id)"), {"id": account})


def test_begin_commits_and_rolls_back(settings: Settings) -> None:
    """A transaction is done as a whole or not at all, tables that it made included."""
    with ConnectionManager(settings) as db:
        make_table(db)
        add(db, 1)
        with pytest.raises(RuntimeError), db.begin() as session:
            session.execute(text("INSERT INTO account (id) VALUES (2)"))
            session.execute(text("CREATE TABLE half (n int)"))
            raise RuntimeError
        with db.session() as session:
            session.execute(text("INSERT INTO account (id) VALUES (3)"))
            assert (
                session.execute(text("SELECT count(*) FROM sqlite_master WHERE name = 'half'")).scalar() == 0
            )

        assert ids(db) == [1]


def test_savepoints_nest(settings: Settings) -> None:
    """What an inner block did is undone alone, and what surrounds it stays."""
    with ConnectionManager(settings) as db:
        make_table(db)
        with db.begin() as session:
            session.execute(text("INSERT INTO account (id) VALUES (1)"))
            with session.begin_nested():
                session.execute(text("INSERT INTO account (id) VALUES (2)"))
                with pytest.raises(RuntimeError), session.begin_nested():
                    session.execute(text("INSERT INTO account (id) VALUES (3)"))
                    raise RuntimeError

        assert ids(db) == [1, 2]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"isolation_level": "READ COMMITTED"},
        {"isolation_level": "REPEATABLE READ"},
        {"isolation_level": "SERIALIZABLE"},
        {"statement_timeout_seconds": 5},
        {"isolation_level": "SERIALIZABLE", "statement_timeout_seconds": 5},
    ],
)
def test_every_option_of_a_session_is_taken(settings: Settings, options: dict[str, Any]) -> None:
    """What was written for PostgreSQL runs unchanged, and transactions work the same after it."""
    with ConnectionManager(settings) as db:
        make_table(db)
        add(db, 1, **options)
        with pytest.raises(RuntimeError), db.begin(**options) as session:
            session.execute(text("INSERT INTO account (id) VALUES (2)"))
            raise RuntimeError

        assert ids(db) == [1]


def test_read_only_refuses_writes_and_only_there(settings: Settings) -> None:
    """A session that said it would only read is held to it; the next one may write."""
    with ConnectionManager(settings) as db:
        make_table(db)
        with pytest.raises(OperationalError, match="readonly"):
            add(db, 1, read_only=True)
        with db.engine.connect().execution_options(postgresql_readonly=True) as connection:
            assert connection.execute(text("SELECT count(*) FROM account")).scalar_one() == 0
            connection.rollback()
            connection.execution_options(postgresql_readonly=False)
            connection.execute(text("INSERT INTO account (id) VALUES (2)"))
            connection.commit()
        add(db, 3)

        assert ids(db) == [2, 3]


def test_a_statement_ends_in_time(settings: Settings) -> None:
    """The limit is one for each statement of a transaction, and none of it is left for the next one."""
    with ConnectionManager(settings) as db:
        with db.session(statement_timeout_seconds=0.05) as session:
            for _ in range(2):
                with pytest.raises(OperationalError, match="interrupted"):
                    session.execute(COUNT_FOR_EVER)
                session.rollback()
        with db.session() as session:
            assert session.execute(COUNT_FOR_LONG).scalar_one() == 300_000
        with db.engine.connect() as connection:
            connection.execute(text("SELECT set_config('statement_timeout', '1', true)"))
            connection.rollback()
            assert connection.execute(COUNT_FOR_LONG).scalar_one() == 300_000


async def test_a_statement_ends_in_time_on_an_event_loop(settings: Settings) -> None:
    """The asynchronous engine keeps to it too, and the loop goes on meanwhile."""
    async with ConnectionManager(settings) as db, db.async_session(statement_timeout_seconds=0.05) as session:
        with pytest.raises(OperationalError, match="interrupted"):
            await session.execute(COUNT_FOR_EVER)


def test_foreign_keys_are_enforced(settings: Settings) -> None:
    """An entry of nobody is refused, as PostgreSQL would."""
    with ConnectionManager(settings) as db:
        make_table(db)
        with pytest.raises(IntegrityError, match="FOREIGN KEY"), db.begin() as session:
            session.execute(text("INSERT INTO entry VALUES (9)"))


async def test_both_engines_have_one_database(settings: Settings) -> None:
    """What one half has committed the other half reads, in memory too."""
    async with ConnectionManager(settings) as db:
        await asyncio.to_thread(make_table, db)
        async with db.async_begin() as session:
            await session.execute(text("INSERT INTO account (id) VALUES (1)"))
        async with db.async_session(read_only=True) as session:
            assert (await session.execute(text("SELECT id FROM account"))).scalars().all() == [1]

        assert await asyncio.to_thread(ids, db) == [1]


def test_memory_lasts_as_long_as_the_manager_and_is_its_own() -> None:
    """Two managers do not meet in memory, and a new one starts with nothing."""
    settings = Settings(profile="test", database_url="sqlite://")
    with ConnectionManager(settings) as one, ConnectionManager(settings) as other:
        make_table(one)
        make_table(other)
        add(one, 1)

        assert (ids(one), ids(other)) == ([1], [])


def test_the_asynchronous_half_works_in_one_loop_after_the_other(settings: Settings) -> None:
    """No connection outlives its work, so a second event loop takes nothing over from the first."""
    with ConnectionManager(settings) as db:
        make_table(db)

        async def insert(account: int) -> None:
            async with db.async_begin() as session:
                await session.execute(text("INSERT INTO account (id) VALUES (:id)"), {"id": account})

        asyncio.run(insert(1))
        asyncio.run(insert(2))

        assert ids(db) == [1, 2]


def test_autocommit_is_what_it_says(settings: Settings) -> None:
    """A connection in autocommit keeps what it did without a commit, and the next one is usual again."""
    with ConnectionManager(settings) as db:
        make_table(db)
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("INSERT INTO account (id) VALUES (1)"))
        with db.engine.connect() as connection:
            connection.execute(text("INSERT INTO account (id) VALUES (2)"))

        assert ids(db) == [1]


def test_health_and_probe_know_it(settings: Settings) -> None:
    """It is a server like the others to whoever asks how things are."""
    with ConnectionManager(settings) as db:
        report, answer = db.health(), db.probe()

    assert [(server.name, server.ok) for server in report.servers] == [("SQLite", True)]
    assert [(server.name, server.ok) for server in answer.servers] == [("SQLite", True)]
    assert not db.health().ok


def test_a_closed_manager_opens_nothing(settings: Settings) -> None:
    """Whoever kept an engine hears that it is closed; what was borrowed is finished."""
    with ConnectionManager(settings) as db:
        engine, on_loop = db.engine, db.async_engine
        borrowed = engine.connect()
    assert borrowed.execute(text("SELECT 1")).scalar_one() == 1
    borrowed.close()
    with pytest.raises(ManagerClosed):
        engine.connect()

    async def use() -> None:
        async with on_loop.connect():
            pass

    with pytest.raises(ManagerClosed):
        asyncio.run(use())


@pytest.mark.parametrize(
    ("content", "what"), [(None, "unable to open database file"), (b"no database" * 100, "not a database")]
)
def test_what_cannot_be_opened_fails_at_the_start(tmp_path: Path, content: bytes | None, what: str) -> None:
    """A folder that is missing or a file of another kind is said at once, with the file's name."""
    file = tmp_path / "missing" / "dev.db" if content is None else tmp_path / "dev.db"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"SQLite at {file} cannot be used.*{what}"):
        ConnectionManager(Settings(profile="test", database_url=f"sqlite:///{file}")).open()


def test_a_relative_file_stays_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that changes its folder goes on with its database."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    manager = ConnectionManager(Settings(profile="test", database_url="sqlite:///dev.db"))
    monkeypatch.chdir(elsewhere)
    with manager as db:
        make_table(db)
        assert db.probe().ok

    assert (tmp_path / "dev.db").stat().st_size > 0
    assert list(elsewhere.iterdir()) == []


def test_the_log_of_a_file_stays_for_as_long_as_the_manager(tmp_path: Path) -> None:
    """A small transaction is not followed by a large one that folds the log back into the file."""
    with ConnectionManager(Settings(profile="test", database_url=f"sqlite:///{tmp_path}/dev.db")) as db:
        make_table(db)
        kept = {path.name for path in tmp_path.iterdir()}

    assert kept == {"dev.db", "dev.db-wal", "dev.db-shm"}
    assert [path.name for path in tmp_path.iterdir()] == ["dev.db"]


@pytest.mark.parametrize(("profile", "expected"), [("production", 1), ("development", 0), ("test", 0)])
def test_sqlite_in_production_is_said_once(
    profile: str, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It works, and one line tells whoever deployed it by mistake."""
    with ConnectionManager(Settings(profile=profile, echo=False, database_url="sqlite://")) as db:
        make_table(db)

    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [event_of(record) for record in warnings] == ["sqlite.in_production"] * expected


def test_without_aiosqlite_only_the_asynchronous_engine_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who needs no event loop needs no extra; who does is told what to install."""
    find = "ledger_db.{}.find_spec"
    for module in ("connections.engines", "sqlite.server"):
        monkeypatch.setattr(find.format(module), lambda name: None)

    async def use() -> None:
        async with ConnectionManager(Settings(profile="test", database_url="sqlite://")) as db:
            make_table(db)
            with pytest.raises(ConfigurationError, match=r"pip install 'ledger-db\[sqlite\]'"):
                _ = db.async_engine

    asyncio.run(use())
