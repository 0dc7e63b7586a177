"""Do transactions keep what they promise: options that hold and do not leak, and a COMMIT that tells?"""

import asyncio
import gc
import logging
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, InvalidRequestError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from ledger_db import ConnectionManager, Settings
from ledger_db.connections.hangup import LINE
from ledger_db.errors import OutcomeUnknown
from ledger_db.sandbox import Sandbox
from ledger_db.transactions.meaning import Meaning, constraint_of, meaning_of
from ledger_db.transactions.sessions import commit
from tests.support.any_driver import DRIVERS, Client, client_of, direct_settings
from tests.support.commit_cutter import CommitCutter, Cut
from tests.support.waiting import eventually

TABLE = """
CREATE TABLE session_rows (id int PRIMARY KEY, parent int CONSTRAINT session_parent
    REFERENCES session_rows DEFERRABLE INITIALLY DEFERRED);
GRANT ALL ON session_rows TO PUBLIC;
"""
STATE = text(
    "SELECT current_setting('transaction_read_only'), current_setting('transaction_isolation'),"
    " current_setting('statement_timeout')"
)
PLAIN = ("off", "read committed", "0")
ONE_CONNECTION = {"pool_size": 1, "max_overflow": 0}


class Base(DeclarativeBase):
    """The tables of this module."""


class Row(Base):
    """A row with nothing but its key."""

    __tablename__ = "session_rows"

    id: Mapped[int] = mapped_column(primary_key=True)
    parent: Mapped[int | None]


@pytest.fixture
def admin(box: Sandbox) -> Iterator[Any]:
    """A superuser's cursor, in a database with an empty table."""
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(TABLE)
        try:
            yield cursor
        finally:
            cursor.execute("DROP TABLE session_rows")


@pytest.fixture
def client(driver: str, direct: Settings, admin: object) -> Iterator[Client]:
    """A manager on each of the drivers, with one connection: the next borrower gets the last one's."""
    with client_of(driver, direct, **ONE_CONNECTION) as client:
        yield client


@pytest.fixture
def far_client(driver: str, direct: Settings, admin: object, cutter: CommitCutter) -> Iterator[Client]:
    """Same as *client*, behind the proxy."""
    with client_of(driver, direct, database_port=cutter.port, **ONE_CONNECTION) as client:
        yield client


def rows(admin: Any) -> list[int]:
    """List what is committed."""
    admin.execute("SELECT id FROM session_rows ORDER BY id")
    return [row[0] for row in admin.fetchall()]


def state(session: Session) -> tuple[object, ...]:
    """Ask the server how it takes the present transaction."""
    return tuple(session.execute(STATE).one())


def insert(session: Session, key: int) -> None:
    """Write a row."""
    session.execute(text("INSERT INTO session_rows VALUES (:id)"), {"id": key})


def test_options_hold_in_each_transaction_and_in_no_other_session(client: Client) -> None:
    """The next borrower of the same connection finds it as if nothing had been."""

    def twice(session: Session) -> list[tuple[object, ...]]:
        states = [state(session)]
        session.commit()
        return [*states, state(session)]

    options = {"read_only": True, "isolation_level": "SERIALIZABLE", "statement_timeout_seconds": 1.5}
    special = ("on", "serializable", "1500ms")

    assert client.session(twice, **options) == [special, special]
    assert client.session(twice) == [PLAIN, PLAIN]
    assert client.begin(state, **options) == special
    assert client.begin(state) == PLAIN


def test_options_do_not_outlive_an_error(client: Client) -> None:
    """A transaction that fails leaves nothing behind either."""
    with pytest.raises(SQLAlchemyError):
        client.begin(
            lambda session: insert(session, 1),
            read_only=True,
            isolation_level="REPEATABLE READ",
            statement_timeout_seconds=0.5,
        )

    assert client.begin(state) == PLAIN


def test_serializable_is(client: Client, admin: Any) -> None:
    """Two that each write what the other has counted cannot both commit."""

    def count_then_write(session: Session) -> None:
        session.execute(text("SELECT count(*) FROM session_rows")).scalar_one()
        admin.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        admin.execute("SELECT count(*) FROM session_rows")
        admin.execute("INSERT INTO session_rows VALUES (1)")
        admin.execute("COMMIT")
        insert(session, 2)

    with pytest.raises(SQLAlchemyError) as caught:
        client.begin(count_then_write, isolation_level="SERIALIZABLE")

    assert meaning_of(caught.value) is Meaning.CONFLICT
    assert rows(admin) == [1]


def test_a_statement_timeout_holds_inside_of_a_savepoint(client: Client) -> None:
    """It is the transaction's, and a savepoint that is rolled back does not take it away."""

    def inside(session: Session) -> list[tuple[object, ...]]:
        states = []
        with session.begin_nested() as savepoint:
            states.append(state(session))
            savepoint.rollback()
        return [*states, state(session)]

    assert client.begin(inside, statement_timeout_seconds=2) == [("off", "read committed", "2s")] * 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"isolation_level": "SNAPSHOT"}, "no isolation level 'SNAPSHOT'; use one of READ COMMITTED"),
        ({"isolation_level": "autocommit"}, "no isolation level 'autocommit'; use one of .*AUTOCOMMIT"),
        ({"deferrable": True}, "a meaning for isolation_level='SERIALIZABLE' with read_only=True"),
        ({"isolation_level": "AUTOCOMMIT", "read_only": True}, "AUTOCOMMIT has no transaction"),
        ({"isolation_level": "AUTOCOMMIT", "statement_timeout_seconds": 1}, "AUTOCOMMIT has no transaction"),
        ({"statement_timeout_seconds": 0}, "no statement timeout of 0 s; use more than 0"),
        ({"statement_timeout_seconds": -1.0}, "no statement timeout of -1.0 s"),
        ({"statement_timeout_seconds": 1e10}, "at most 2147483 s"),
        ({"statement_timeout_seconds": float("nan")}, "no statement timeout of nan s"),
    ],
)
def test_an_option_that_does_not_exist_is_refused_at_once(
    direct: Settings, options: dict[str, Any], words: str
) -> None:
    """Nothing is borrowed, and the message says what there is instead."""
    with ConnectionManager(direct) as db:
        for ask in (db.session, db.begin, db.async_session, db.async_begin):
            with pytest.raises(ValueError, match=words):
                ask(**options)


def test_savepoints_are_undone_alone(client: Client, admin: Any) -> None:
    """One part of a transaction may fail, and the rest is committed."""

    def parts(session: Session) -> None:
        insert(session, 1)
        with pytest.raises(IntegrityError), session.begin_nested():
            insert(session, 1)
        with session.begin_nested():
            insert(session, 2)

    client.begin(parts)

    assert rows(admin) == [1, 2]


def test_a_failure_that_was_caught_is_told_at_commit(client: Client, admin: Any) -> None:
    """PostgreSQL would answer COMMIT with a rollback and no driver would say so: nobody hears of success."""

    def careless(session: Session) -> None:
        insert(session, 1)
        with pytest.raises(IntegrityError):
            insert(session, 1)

    for attempt in (client.begin, client.run):
        with pytest.raises(PendingRollbackError, match="savepoint"):
            attempt(careless)

    assert rows(admin) == []
    # The same connection, and a transaction of its own.
    client.begin(lambda session: insert(session, 2))
    assert rows(admin) == [2]


def test_a_flush_that_failed_is_told_at_the_end_of_the_block(client: Client, admin: Any) -> None:
    """Its error was caught, and SQLAlchemy has given the transaction up: nobody hears of success."""

    def careless(session: Session) -> None:
        insert(session, 1)
        session.add(Row(id=1))
        with pytest.raises(IntegrityError):
            session.flush()

    for attempt in (client.begin, client.run):
        with pytest.raises(PendingRollbackError):
            attempt(careless)

    assert rows(admin) == []


def test_a_failure_inside_of_a_savepoint_that_is_kept_is_told_too(client: Client, admin: Any) -> None:
    """A savepoint is no help if the error does not get out of it: then it is released and not rolled back."""

    def careless(session: Session) -> None:
        insert(session, 1)
        with suppress(SQLAlchemyError), session.begin_nested(), pytest.raises(IntegrityError):
            insert(session, 1)

    for attempt in (client.begin, client.run):
        with pytest.raises(PendingRollbackError):
            attempt(careless)

    assert rows(admin) == []


def test_every_way_to_commit_is_told_about(client: Client, admin: Any) -> None:
    """A block of the session's own ends as `begin` does."""

    def in_a_block(session: Session) -> None:
        with session.begin():
            insert(session, 1)
            with pytest.raises(IntegrityError):
                insert(session, 1)

    with pytest.raises(PendingRollbackError):
        client.session(in_a_block)
    assert rows(admin) == []


def test_what_was_rolled_back_to_by_hand_is_no_failure(client: Client, admin: Any) -> None:
    """The server is asked, so a savepoint of one's own SQL is as good as SQLAlchemy's."""

    def careful(session: Session) -> None:
        insert(session, 1)
        session.execute(text("SAVEPOINT by_hand"))
        with pytest.raises(IntegrityError):
            insert(session, 1)
        session.execute(text("ROLLBACK TO SAVEPOINT by_hand"))
        insert(session, 2)

    client.begin(careful)

    assert rows(admin) == [1, 2]


def test_a_connection_that_was_dropped_after_a_failure_comes_back(direct: Settings, admin: Any) -> None:
    """Nothing that remembers the failure keeps a session alive that nobody closes."""
    with client_of("psycopg2", direct) as client:
        session = client.db.session()
        insert(session, 1)
        with pytest.raises(IntegrityError):
            insert(session, 1)
        del session
        gc.collect()

        assert client.db.health().servers[0].pools[0].checked_out == 0


def test_a_value_that_the_driver_refuses_aborts_nothing(client: Client, admin: Any) -> None:
    """The server has not heard of it, so the rest of the transaction is good."""

    def odd(session: Session) -> None:
        insert(session, 1)
        with pytest.raises(Exception, match=r"adapt|range|int|expected"):
            session.execute(text("SELECT CAST(:it AS integer)"), {"it": object()})

    client.begin(odd)

    assert rows(admin) == [1]


def test_a_deferred_constraint_fails_the_commit_and_is_no_riddle(client: Client, admin: Any) -> None:
    """The server said no: that is known, and SQLAlchemy's error."""
    with pytest.raises(IntegrityError) as caught:
        client.begin(lambda session: session.add_all([Row(id=1, parent=None), Row(id=2, parent=99)]))

    assert constraint_of(caught.value) == "session_parent"
    assert rows(admin) == []


def test_a_body_that_ends_its_transaction_itself_is_let(client: Client, admin: Any) -> None:
    """As in SQLAlchemy: what it committed is committed, and nothing can be done after it."""

    def commit_early(session: Session) -> None:
        insert(session, 1)
        session.commit()

    def go_on(session: Session) -> None:
        session.rollback()
        insert(session, 3)

    client.begin(commit_early)
    client.begin(lambda session: session.rollback())
    with pytest.raises(InvalidRequestError, match="closed transaction"):
        client.begin(go_on)

    assert rows(admin) == [1]


def test_a_transaction_that_does_nothing_needs_no_connection(client: Client) -> None:
    """An endpoint that answers from a cache leaves the pool alone."""
    pools = client.db.health().servers[0].pools
    client.begin(lambda session: None)

    assert client.db.health().servers[0].pools == pools


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_commit_without_an_answer_is_unknown(
    far_client: Client, cutter: CommitCutter, admin: Any, cut: Cut
) -> None:
    """It was done, or it was not: nobody but the application can find out, and it is told so."""
    far_client.begin(lambda session: insert(session, 1))
    cutter.arm(cut)
    with pytest.raises(
        OutcomeUnknown, match=r"COMMIT was sent .* look for what it should have written"
    ) as caught:
        far_client.begin(lambda session: session.add(Row(id=2)))
    if cut == "after":
        eventually(lambda: rows(admin) == [1, 2], "the server has done it")

    assert rows(admin) == ([1, 2] if cut == "after" else [1])
    assert meaning_of(caught.value) is Meaning.UNKNOWN
    assert caught.value.__cause__ is not None
    # The pool has replaced the connection.
    far_client.begin(lambda session: insert(session, 3))


def test_a_commit_by_a_block_is_told_about_too(far_client: Client, cutter: CommitCutter) -> None:
    """`with session.begin()` commits without `session.commit()`, and its client must not repeat it either."""

    def in_a_block(session: Session) -> None:
        with session.begin():
            insert(session, 1)
            cutter.arm("after")

    with pytest.raises(OutcomeUnknown):
        far_client.session(in_a_block)


def test_a_commit_by_hand_is_told_about_too(far_client: Client, cutter: CommitCutter) -> None:
    """`session.commit()` is the same as the end of `begin`."""

    def by_hand(session: Session) -> None:
        insert(session, 1)
        cutter.arm("before")
        session.commit()

    with pytest.raises(OutcomeUnknown):
        far_client.session(by_hand)


def test_any_session_can_be_committed_like_this(
    direct: Settings, admin: object, cutter: CommitCutter
) -> None:
    """One that an application has made itself is served as well."""
    changed = Settings(**{**direct.model_dump(exclude_unset=True), "database_port": cutter.port})
    with ConnectionManager(changed) as db, Session(db.engine) as session:
        insert(session, 1)
        cutter.arm("before")
        with pytest.raises(OutcomeUnknown):
            commit(session)


def test_a_read_only_commit_without_an_answer_has_lost_nothing(
    far_client: Client, cutter: CommitCutter
) -> None:
    """It is a lost connection, which may be tried again."""
    cutter.arm("after")
    with pytest.raises(SQLAlchemyError) as caught:
        far_client.begin(state, read_only=True)

    assert cutter.cut == 1
    assert meaning_of(caught.value) is Meaning.LOST


def test_a_connection_that_broke_before_commit_is_no_riddle(client: Client, admin: Any) -> None:
    """COMMIT is not sent to a server that has left already, so it is known that nothing was done."""

    def be_killed(session: Session) -> None:
        insert(session, 1)
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    def be_killed_then_commit(session: Session) -> None:
        be_killed(session)
        session.commit()

    for use, work in ((client.begin, be_killed), (client.session, be_killed_then_commit)):
        with pytest.raises(SQLAlchemyError) as caught:
            use(work)

        assert meaning_of(caught.value) is Meaning.LOST
        assert rows(admin) == []


def test_a_goodbye_over_tls_is_heard_before_commit() -> None:
    """It is words at first and no end of the line, and counts all the same."""
    with Sandbox(tls=True) as own, closing(own.postgres.connect()) as connection:

        def be_killed(session: Session) -> None:
            pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            eventually(
                session.connection().connection.info[LINE].may_have_hung_up,
                "the goodbye has arrived",
            )

        for driver in DRIVERS:
            with client_of(driver, direct_settings(own)) as client, pytest.raises(SQLAlchemyError) as caught:
                client.begin(be_killed)

            assert meaning_of(caught.value) is Meaning.LOST, driver


def test_a_connection_that_broke_in_the_flush_is_no_riddle(client: Client, admin: Any) -> None:
    """What is written at the last moment is still written before COMMIT."""

    def be_killed(session: Session) -> None:
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        session.add(Row(id=1))
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    with pytest.raises(SQLAlchemyError) as caught:
        client.begin(be_killed)

    assert meaning_of(caught.value) is Meaning.LOST
    assert rows(admin) == []


async def test_a_cancelled_commit_stays_cancelled(
    direct: Settings, admin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Who cancels a request gets a cancellation, and the pool gets its connection back."""
    # A deferred trigger that waits for a lock stops the COMMIT for as long as the test needs.
    admin.execute(
        "CREATE FUNCTION session_wait() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END';"
        "CREATE CONSTRAINT TRIGGER session_wait AFTER INSERT ON session_rows DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION session_wait();"
        "SELECT pg_advisory_lock(4711)"
    )
    try:
        async with ConnectionManager(
            Settings(**{**direct.model_dump(exclude_unset=True), **ONE_CONNECTION})
        ) as db:

            async def write() -> None:
                async with db.async_begin() as session:
                    await session.run_sync(insert, 1)

            task = asyncio.create_task(write())
            await asyncio.to_thread(eventually, lambda: has_waiter(admin), "COMMIT waits for the lock")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            admin.execute("SELECT pg_advisory_unlock(4711)")
            async with db.async_begin() as session:
                await session.run_sync(insert, 2)
    finally:
        admin.execute("SELECT pg_advisory_unlock_all(); DROP FUNCTION session_wait CASCADE")

    assert 2 in rows(admin)
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


def has_waiter(admin: Any) -> bool:
    """Say whether a COMMIT waits."""
    admin.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
    return bool(admin.fetchone()[0])
