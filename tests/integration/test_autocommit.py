"""
Is what is told of a COMMIT told only where one is sent?

Under AUTOCOMMIT each statement is stored when it is answered, and a transaction in which nothing was executed
has nothing to store.  Each driver, and each way to ask for AUTOCOMMIT.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from ledger_db import OutcomeUnknown, Settings
from ledger_db.fastapi import AsyncSessionDep, SessionDep, install_error_handlers, lifespan
from ledger_db.sandbox import Sandbox
from ledger_db.transactions.meaning import Meaning, may_be_stored, meaning_of
from tests.support.any_driver import Client, choice_of, client_of, is_on_loop
from tests.support.asgi import serving
from tests.support.commit_cutter import CommitCutter

INSERT = text("INSERT INTO at_once VALUES (1)")
AT_ONCE = {"isolation_level": "AUTOCOMMIT"}
CONFLICT = "DO 'BEGIN RAISE SQLSTATE ''40001''; END'"
LATE = "DO 'BEGIN RAISE SQLSTATE ''57014''; END'"


def on_the_engine(session: Session) -> Session:
    """Return a session of another face of the engine."""
    return Session(session.get_bind().execution_options(**AT_ONCE))


def on_the_connection(session: Session) -> Session:
    """Return a session whose first connection is asked for so."""
    session.connection(execution_options=AT_ONCE)
    return session


WAYS = {"the engine": on_the_engine, "the connection": on_the_connection}


@pytest.fixture(scope="module")
def admin(box: Sandbox) -> Iterator[Any]:
    """A superuser's cursor, in a database with an empty table."""
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE at_once (i int UNIQUE); GRANT ALL ON at_once TO PUBLIC")
        try:
            yield cursor
        finally:
            cursor.execute("DROP TABLE at_once")


@pytest.fixture
def client(driver: str, direct: Settings, admin: Any) -> Iterator[Client]:
    """A manager on each of the drivers, and an empty table."""
    admin.execute("DELETE FROM at_once")
    with client_of(driver, direct) as client:
        yield client


def rows(admin: Any) -> int:
    """Count what is stored."""
    admin.execute("SELECT count(*) FROM at_once")
    return int(admin.fetchone()[0])


def kill(admin: Any, pid: int) -> None:
    """End a server process."""
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


def pid_of(session: Session) -> int:
    """Return the server process of a session."""
    return int(session.scalar(text("SELECT pg_backend_pid()")) or 0)


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_that_breaks_after_the_last_statement_has_lost_nothing(
    client: Client, admin: Any, way: str
) -> None:
    """The row is stored, and commit() sends nothing that could fail."""

    def store(session: Session) -> None:
        with WAYS[way](session) as own:
            pid = pid_of(own)
            own.execute(INSERT)
            kill(admin, pid)
            own.commit()

    client.session(store)

    assert rows(admin) == 1
    client.begin(lambda session: session.execute(text("SELECT 1")))


def test_a_block_that_breaks_after_the_last_statement_has_lost_nothing(client: Client, admin: Any) -> None:
    """The same at the end of a block of the engine's, and with a transaction that is the driver's idea."""

    def store(session: Session) -> None:
        with session.get_bind().engine.execution_options(**AT_ONCE).begin() as connection:
            pid = int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)
            connection.execute(INSERT)
            kill(admin, pid)

    client.session(store)

    assert rows(admin) == 1


def test_a_connection_that_has_broken_below_sqlalchemy_is_not_told_as_undone(
    client: Client, admin: Any
) -> None:
    """Whoever has caught that may hear that nobody knows, and never that nothing was done."""

    def store(session: Session) -> None:
        with on_the_engine(session) as own:
            own.execute(INSERT)
            with suppress(Exception):
                own.connection().connection.cursor().execute("SELECT pg_terminate_backend(pg_backend_pid())")
            own.commit()

    met: list[Meaning] = []
    try:
        client.run(store)
    except (OutcomeUnknown, SQLAlchemyError) as error:
        met.append(meaning_of(error))

    assert met in ([], [Meaning.UNKNOWN])
    assert rows(admin) == 1


def test_a_transaction_in_which_nothing_was_executed_has_nothing_to_lose(client: Client, admin: Any) -> None:
    """It has a connection, which breaks; and no COMMIT is sent."""

    def idle(session: Session) -> None:
        connection = session.connection()
        kill(admin, connection.connection.info["pid"])

    def note_pid(session: Session) -> None:
        session.connection().connection.info["pid"] = pid_of(session)

    client.begin(note_pid)
    client.begin(idle)


@pytest.mark.parametrize("way", WAYS)
def test_a_statement_whose_answer_is_lost_may_be_stored(
    direct: Settings, admin: Any, driver: str, way: str
) -> None:
    """Nobody knows, and it is said so; `run` does not do it again."""
    attempts: list[object] = []

    def store(session: Session) -> None:
        attempts.append(session.info.get("attempt"))
        bind = session.get_bind().engine
        with WAYS[way](Session(bind)) as own:
            own.execute(text("SELECT 1"))
            pid = pid_of(own)
            event.listen(bind, "before_cursor_execute", lambda *_: kill(admin, pid), once=True)
            own.execute(INSERT)

    with client_of(driver, direct, pool_size=2) as client:
        for use in (client.session, client.run):
            with pytest.raises(OutcomeUnknown, match=r"stored at once \(AUTOCOMMIT\) was sent") as caught:
                use(store)
            assert meaning_of(caught.value) is Meaning.UNKNOWN

    assert len(attempts) == 2


def test_a_read_whose_answer_is_lost_is_a_lost_connection(client: Client, admin: Any) -> None:
    """Where PostgreSQL takes no writes nothing can be stored."""

    def read(session: Session) -> None:
        bind = session.get_bind().execution_options(**AT_ONCE, postgresql_readonly=True)
        with Session(bind) as own:
            kill(admin, pid_of(own))
            own.execute(text("SELECT 1"))

    with pytest.raises(DBAPIError) as caught:
        client.session(read)

    assert meaning_of(caught.value) is Meaning.LOST
    assert not may_be_stored(caught.value)


@pytest.mark.parametrize("failure", [CONFLICT, LATE])
def test_what_came_before_a_failure_stays_and_is_not_done_again(
    client: Client, admin: Any, failure: str
) -> None:
    """The statement that has failed is undone; who repeats it all would store the others twice."""

    def store(session: Session) -> None:
        with on_the_engine(session) as own:
            own.execute(INSERT)
            own.execute(text(failure))

    with pytest.raises(DBAPIError) as caught:
        client.run(store)

    assert may_be_stored(caught.value)
    assert rows(admin) == 1


def test_work_of_an_engine_that_stores_at_once_is_not_repeated(client: Client, admin: Any) -> None:
    """Also if what fails is not the server's to tell."""

    def store(session: Session) -> None:
        session.execute(INSERT)
        session.execute(text(CONFLICT))

    client.session(lambda session: event.listen(session.get_bind(), "engine_connect", _at_once))
    with pytest.raises(DBAPIError):
        client.run(store)

    assert rows(admin) == 1


def _at_once(connection: Any) -> None:
    connection.execution_options(**AT_ONCE)


def test_a_commit_that_was_written_out_is_not_undone_by_what_fails_after_it(
    client: Client, admin: Any
) -> None:
    """It is stored, so `run` does not begin again."""

    def store(session: Session) -> None:
        session.execute(INSERT)
        session.execute(text("COMMIT"))
        session.execute(text(CONFLICT))

    with suppress(SQLAlchemyError):
        client.begin(store)
    assert rows(admin) == 1
    admin.execute("DELETE FROM at_once")
    with pytest.raises(DBAPIError) as caught:
        client.run(store)

    assert may_be_stored(caught.value)
    assert rows(admin) == 1


def test_a_commit_that_was_written_out_and_has_no_answer_is_unknown(
    direct: Settings, admin: Any, driver: str, cutter: CommitCutter
) -> None:
    """As any other: it was done, or, as here, it was not."""
    admin.execute("DELETE FROM at_once")

    def store(session: Session) -> None:
        session.execute(INSERT)
        cutter.arm("before")
        session.execute(text("COMMIT"))

    with (
        client_of(driver, direct, database_port=cutter.port) as client,
        pytest.raises(OutcomeUnknown, match="COMMIT was sent"),
    ):
        client.run(store)

    assert rows(admin) == 0


def test_a_transaction_after_another_knows_nothing_of_it(client: Client, admin: Any) -> None:
    """A conflict on a connection whose last borrower has stored something is repeated as ever."""

    def store(session: Session) -> None:
        session.execute(text("COMMIT"))

    def conflict_once(session: Session) -> object:
        if session.info["attempt"] == 1:
            session.execute(text(CONFLICT))
        return session.info["attempt"]

    client.begin(store)

    assert client.run(conflict_once) == 2


def test_a_mistake_of_the_clients_is_its_own(client: Client, admin: Any) -> None:
    """A row that is there already is told as in any transaction."""

    def store(session: Session) -> None:
        with on_the_engine(session) as own:
            own.execute(INSERT)
            own.execute(INSERT)

    with pytest.raises(IntegrityError) as caught:
        client.session(store)

    assert meaning_of(caught.value) is Meaning.DUPLICATE


def create_service(settings: Settings, driver: str, admin: Any) -> FastAPI:
    """Return a service with an endpoint for each way to fail under AUTOCOMMIT."""
    app = FastAPI(lifespan=lifespan(settings))
    install_error_handlers(app)

    def store(session: Session, then: str) -> None:
        session.connection(execution_options=AT_ONCE)
        pid = pid_of(session)
        session.execute(INSERT)
        if then == "stale":
            raise StaleDataError
        if then in {"break", "break and go on"}:
            kill(admin, pid)
        if then == "break and go on":
            session.execute(text("SELECT 1"))
        elif then != "break":
            session.execute(text(then))

    if is_on_loop(driver):

        @app.post("/")
        async def on_a_loop(session: AsyncSessionDep, then: str) -> None:
            await session.run_sync(store, then)
    else:

        @app.post("/")
        def on_a_thread(session: SessionDep, then: str) -> None:
            store(session, then)

    return app


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ("break", (200, None, None)),
        ("break and go on", (500, "outcome-unknown", None)),
        (CONFLICT, (500, "partly-done", None)),
        (LATE, (500, "partly-done", None)),
        ("stale", (500, "partly-done", None)),
        ("DO 'BEGIN RAISE SQLSTATE ''55P03''; END'", (500, "partly-done", None)),
        ("DO 'BEGIN RAISE SQLSTATE ''53200''; END'", (500, "partly-done", None)),
        ("INSERT INTO at_once VALUES (1)", (409, "duplicate", None)),
        ("SELEC 1", (500, "fault", None)),
    ],
)
async def test_a_client_is_told_to_send_nothing_again_that_is_stored(
    direct: Settings, admin: Any, driver: str, then: str, expected: tuple[int, str | None, str | None]
) -> None:
    """And nothing is called undone that is not."""
    admin.execute("DELETE FROM at_once")
    settings = Settings(**{**direct.model_dump(exclude_unset=True), **choice_of(driver)})
    async with serving(create_service(settings, driver, admin)) as served:
        answer = await served.client.post("/", params={"then": then})

    kind = None if answer.status_code == 200 else answer.json()["type"].rpartition(":")[2]
    assert (answer.status_code, kind, answer.headers.get("retry-after")) == expected
    assert "undone" not in answer.text
    assert rows(admin) == 1


HOW_TO_COMMIT: dict[str, Callable[[Session], object]] = {
    "commit()": lambda session: session.commit(),
    "the transaction's own": lambda session: (session.get_transaction() or session.begin()).commit(),
    "a statement": lambda session: session.execute(text("COMMIT")),
    "nothing": lambda session: None,
}


def create_service_that_commits(settings: Settings, driver: str) -> FastAPI:
    """Return a service whose endpoint commits one row, and then fails."""
    app = FastAPI(lifespan=lifespan(settings))
    install_error_handlers(app)

    def store(session: Session, how: str, then: str) -> None:
        session.execute(INSERT)
        HOW_TO_COMMIT[how](session)
        if then == "at the end":
            session.execute(text("INSERT INTO late VALUES (1)"))
        elif then == "in the program":
            raise StaleDataError
        else:
            session.execute(text(then))

    if is_on_loop(driver):

        @app.post("/")
        async def on_a_loop(session: AsyncSessionDep, how: str, then: str) -> None:
            await session.run_sync(store, how, then)
    else:

        @app.post("/")
        def on_a_thread(session: SessionDep, how: str, then: str) -> None:
            store(session, how, then)

    return app


@pytest.fixture
def late(admin: Any) -> Iterator[None]:
    """A table that refuses a row when it is committed, as a conflict would."""
    admin.execute(
        "CREATE TABLE late (i int); GRANT ALL ON late TO PUBLIC;"
        "CREATE FUNCTION be_late() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RAISE SQLSTATE ''40001''; END';"
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION be_late()"
    )
    yield
    admin.execute("DROP TABLE late; DROP FUNCTION be_late")


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize(
    ("how", "then"),
    [
        (how, then)
        for how in HOW_TO_COMMIT
        for then in (CONFLICT, LATE, "at the end", "in the program")
        # Of a COMMIT that was written out the connection knows, which has no part in what a program raises.
        if (how, then) != ("a statement", "in the program")
    ],
)
async def test_a_client_is_not_told_to_send_again_what_was_committed_before(
    direct: Settings, admin: Any, driver: str, how: str, then: str
) -> None:
    """What an endpoint has committed stays, whatever its second transaction meets; else all is undone."""
    admin.execute("DELETE FROM at_once")
    settings = Settings(**{**direct.model_dump(exclude_unset=True), **choice_of(driver)})
    async with serving(create_service_that_commits(settings, driver)) as served:
        answer = await served.client.post("/", params={"how": how, "then": then})

    kind = answer.json()["type"].rpartition(":")[2]
    stored = how != "nothing"
    assert rows(admin) == int(stored)
    assert (kind == "partly-done", answer.status_code == 500) == (stored, stored)
    assert ("retry-after" in answer.headers or answer.status_code == 504) is not stored
    assert ("undone" in answer.text) is not stored
