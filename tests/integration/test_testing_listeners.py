"""Does what a service hangs on its engine hold in an isolated test?"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from ledger_db import ConnectionManager
from ledger_db.sandbox import Sandbox
from ledger_db.testing import async_isolated, isolated
from tests.support.own_databases import DATABASES, manager_on

ONE = text("SELECT 1")
WRONG = text("SELECT nothing FROM nowhere")


@pytest.fixture(params=DATABASES)
def db(
    box: Sandbox, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConnectionManager]:
    """An open manager for each driver, whose engines nobody has used."""
    with manager_on(request.param, box, tmp_path_factory.mktemp("sqlite")) as manager:
        yield manager


POSTGRES_ONLY = pytest.mark.parametrize("db", ["psycopg2 and asyncpg", "psycopg"], indirect=True)


@contextmanager
def listening(target: Any, name: str, listener: Callable[..., Any], **options: Any) -> Iterator[None]:
    """Listen for as long as the block: what listens to a class would hear every other test."""
    event.listen(target, name, listener, **options)
    try:
        yield
    finally:
        event.remove(target, name, listener)


@contextmanager
def heard_by(target: Any, *names: str) -> Iterator[Counter[str]]:
    """Count what is heard of each of these events, for as long as the block."""
    counts: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., None]:
        def count(*given: object) -> None:
            counts[name] += 1

        return count

    with ExitStack() as stack:
        for name in names:
            stack.enter_context(listening(target, name, counting(name)))
        yield counts


STATEMENT = ("before_execute", "after_execute", "after_cursor_execute", "do_execute")
TRANSACTION = ("begin", "commit", "rollback", "engine_connect")
LENDING = ("checkout", "reset", "checkin")


@pytest.mark.parametrize("early", [True, False], ids=["before the test", "in the test"])
def test_each_listener_of_the_engine_is_called(db: ConnectionManager, *, early: bool) -> None:
    """Statements, transactions, errors and lending are heard, whenever the listener came."""
    names = (*STATEMENT, *TRANSACTION, *LENDING, "handle_error")
    with ExitStack() as stack:
        if early:
            heard = stack.enter_context(heard_by(db.engine, *names))
        with isolated(db) as one:
            if not early:
                heard = stack.enter_context(heard_by(db.engine, *names))
            with one.begin() as session:
                session.execute(ONE)
            with pytest.raises(DBAPIError), one.session() as session:
                session.execute(WRONG)

    assert set(heard) == set(names)


async def test_each_listener_of_the_asynchronous_engine_is_called(db: ConnectionManager) -> None:
    """They hang on its synchronous core, in a test as in production."""
    names = (*STATEMENT, *TRANSACTION, *LENDING, "handle_error")
    with heard_by(db.async_engine.sync_engine, *names) as heard:
        async with async_isolated(db) as one:
            async with one.async_begin() as session:
                await session.execute(ONE)
            with pytest.raises(DBAPIError):
                async with one.async_session() as session:
                    await session.execute(WRONG)

    assert set(heard) == set(names)


@pytest.mark.parametrize("target", ["the engine", "every engine"])
def test_a_statement_is_heard_once(db: ConnectionManager, target: str) -> None:
    """A listener that counts, or writes an audit trail, is called as often as in production."""
    seen: list[str] = []

    def note(*given: Any) -> None:
        seen.append(given[2])

    with (
        listening(db.engine if target == "the engine" else Engine, "before_cursor_execute", note),
        isolated(db) as one,
        one.session() as session,
    ):
        session.execute(text("SELECT 42"))

    assert seen.count("SELECT 42") == 1


def test_a_guard_can_refuse_and_change_a_statement(db: ConnectionManager) -> None:
    """What a tenant guard does to a statement happens to those of a test."""

    def guard(*given: Any) -> tuple[str, Any]:
        if "forbidden" in given[2]:
            raise PermissionError("no tenant")
        return given[2].replace("41", "42"), given[3]

    with (
        listening(db.engine, "before_cursor_execute", guard, retval=True),
        isolated(db) as one,
        one.session() as session,
    ):
        assert session.execute(text("SELECT 41")).scalar_one() == 42
        with pytest.raises(PermissionError):
            session.execute(text("SELECT 1 AS forbidden"))


def test_a_guard_hears_nothing_of_the_isolation(db: ConnectionManager) -> None:
    """A guard that knows each statement of the service is not asked about one of ours."""
    seen: list[str] = []

    def note(*given: Any) -> None:
        seen.append(given[2])

    with listening(db.engine, "before_cursor_execute", note), isolated(db) as one:
        with one.begin() as session:
            session.execute(ONE)
        with one.begin(read_only=True) as session:
            session.execute(ONE)

    # Those of SQLite's engine are sent in production too.
    assert [each for each in seen if not each.startswith(("BEGIN", "PRAGMA query_only"))] == ["SELECT 1"] * 2


@pytest.mark.parametrize("target", ["the engine", "every engine"])
def test_a_new_connection_is_announced_once(db: ConnectionManager, target: str) -> None:
    """What prepares a connection meets it before the test's transaction, however many sessions there are."""
    seen: list[object] = []

    def prepare(dbapi: Any, record: Any) -> None:
        seen.append(dbapi)
        if db.engine.dialect.driver == "psycopg2":
            # As SQLAlchemy's manual sets a search_path; inside of a transaction the driver refuses it.
            dbapi.autocommit = True
            dbapi.autocommit = False
        record.info["prepared"] = dbapi

    def look(dbapi: Any, record: Any, proxy: Any) -> None:
        assert record.info["prepared"] is dbapi

    with (
        listening(db.engine if target == "the engine" else Engine, "connect", prepare),
        listening(db.engine, "checkout", look),
        isolated(db) as one,
    ):
        for _ in range(3):
            with one.begin() as session:
                session.execute(ONE)

    assert len(seen) == 1


@POSTGRES_ONLY
def test_what_is_set_at_checkout_holds_for_the_session(db: ConnectionManager) -> None:
    """A tenant that is set when a connection is lent is the one of each session, not of the first."""
    tenant = ["none"]

    def enter(dbapi: Any, record: Any, proxy: Any) -> None:
        cursor = dbapi.cursor()
        cursor.execute(f"SET app.tenant = '{tenant[0]}'")
        cursor.close()

    seen = []
    with listening(db.engine, "checkout", enter), isolated(db) as one:
        for tenant[0] in ("red", "blue"):
            with one.session() as session:
                seen.append(session.execute(text("SHOW app.tenant")).scalar_one())

    assert seen == ["red", "blue"]


def test_listeners_are_left_as_they_were(db: ConnectionManager) -> None:
    """What listens to a test's engine alone is gone with the test."""
    with isolated(db) as one:
        with heard_by(one.engine, "before_execute") as heard, one.session() as session:
            session.execute(ONE)
        event.listen(one.engine, "before_execute", lambda *given: pytest.fail("of another test"))
    with db.session() as real:
        real.execute(ONE)

    assert heard == {"before_execute": 1}


def test_code_that_disposes_of_its_engine_changes_nothing(db: ConnectionManager) -> None:
    """A service that ends in a test does not take the test's rows with it."""
    with isolated(db) as one:
        with one.begin() as session:
            session.execute(text("CREATE TABLE disposed_rows (id int)"))
        one.engine.dispose()
        with one.session() as session:
            assert session.execute(text("SELECT count(*) FROM disposed_rows")).scalar_one() == 0


@POSTGRES_ONLY
def test_a_limit_of_a_statement_ends_it(db: ConnectionManager) -> None:
    """The listeners of our own engines hold as well."""
    with (
        isolated(db) as one,
        one.session(statement_timeout_seconds=0.1) as session,
        pytest.raises(DBAPIError, match="statement timeout"),
    ):
        session.execute(text("SELECT pg_sleep(60)"))


@pytest.mark.parametrize("db", ["SQLite in memory"], indirect=True)
def test_a_limit_of_a_statement_ends_it_on_sqlite(db: ConnectionManager) -> None:
    """SQLite's limit is made of listeners, and holds in a test too."""
    endless = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
    with (
        isolated(db) as one,
        one.session(statement_timeout_seconds=0.1) as session,
        pytest.raises(DBAPIError, match="interrupted"),
    ):
        session.execute(endless)
