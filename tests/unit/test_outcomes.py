"""Is every error of a statement understood?  One test a row of the tables; SQLite's errors are real ones."""

import errno
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy.exc
from sqlalchemy import create_engine
from sqlalchemy.orm.exc import StaleDataError

from ledger_db import errors
from ledger_db.transactions.meaning import SQLSTATES, Meaning, constraint_of, is_lost, meaning_of

M = Meaning


class DriverError(Exception):
    """What a driver raises: a text, and perhaps a code."""

    def __init__(self, text: str = "Meldung in einer anderen Sprache", **fields: Any) -> None:
        super().__init__(text)
        self.__dict__.update(fields)


def wrapped(
    inner: Exception,
    kind: type[sqlalchemy.exc.DBAPIError] = sqlalchemy.exc.OperationalError,
    *,
    invalidated: bool = False,
) -> sqlalchemy.exc.DBAPIError:
    """Wrap a driver's error as SQLAlchemy does, around a statement with misleading words in it."""
    return kind("SELECT 'Connection refused'", {}, inner, connection_invalidated=invalidated)


def caused_by(network: OSError) -> DriverError:
    """Return what a login makes of an error of the network."""
    error = DriverError("the login failed")
    error.__cause__ = network
    return error


@pytest.mark.parametrize(("code", "meaning"), sorted(SQLSTATES.items()))
def test_a_sqlstate_decides_whatever_the_class_and_the_language(code: str, meaning: Meaning) -> None:
    """The same SQLSTATE means the same from every driver; two letters stand for the rest of a class."""
    whole = code if len(code) == 5 else f"{code}0ZZ"
    adapted = DriverError()
    adapted.__cause__ = DriverError(sqlstate=whole)

    assert meaning_of(wrapped(DriverError(pgcode=whole))) is meaning
    assert meaning_of(wrapped(DriverError(sqlstate=whole), sqlalchemy.exc.InternalError)) is meaning
    assert meaning_of(wrapped(adapted, sqlalchemy.exc.DBAPIError)) is meaning


@pytest.mark.parametrize("code", ["42P01", "42501", "0A000", "25P02", "P0001", "XX000", "28P01"])
def test_any_other_sqlstate_is_a_fault(code: str) -> None:
    """A wrong statement, a missing permission or a bug is never tried again."""
    assert meaning_of(wrapped(DriverError(sqlstate=code))) is M.FAULT


def said_by(function: str, sqlstate: str) -> Iterator[DriverError]:
    """Yield what each driver makes of what a function of the server's has said, in any language."""
    yield DriverError(sqlstate=sqlstate, server_source_function=function)
    yield DriverError(pgcode=sqlstate, diag=SimpleNamespace(source_function=function))


@pytest.mark.parametrize(
    ("code", "function"),
    [("0A000", "RevalidateCachedQuery"), ("26000", "FetchPreparedStatement"), ("42704", "lookup_type_cache")],
)
def test_what_a_migration_has_outdated_is_a_conflict(code: str, function: str) -> None:
    """By who says so on the server, as each code has other reasons, too, and each sentence is translated."""
    for error in said_by(function, code):
        assert meaning_of(wrapped(error)) is M.CONFLICT
        assert meaning_of(wrapped(error, sqlalchemy.exc.NotSupportedError)) is M.CONFLICT
    for error in said_by("transformStmt", code):
        assert meaning_of(wrapped(error)) is M.FAULT


def test_what_has_gone_meanwhile_is_a_conflict() -> None:
    """PostgreSQL has one code for all that cannot happen, and says it in English only."""
    for text in ("cache lookup failed for type 16457", "could not open relation with OID 4711"):
        assert meaning_of(wrapped(DriverError(text, sqlstate="XX000"))) is M.CONFLICT
    assert meaning_of(wrapped(DriverError("tuple concurrently updated", sqlstate="XX000"))) is M.FAULT


def test_a_prepared_statement_of_the_applications_own_is_its_own_affair() -> None:
    """It has not been prepared, and no driver will do so."""
    error = DriverError(sqlstate="26000", server_source_function="FetchPreparedStatement")

    assert meaning_of(sqlalchemy.exc.OperationalError(" execute mine", {}, error)) is M.FAULT


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (wrapped(DriverError("server closed the connection unexpectedly"), invalidated=True), M.LOST),
        (wrapped(DriverError(sqlstate="25P03"), invalidated=True), M.LOST),
        (wrapped(DriverError("cannot switch to state 15; another operation (2) is in progress")), M.LOST),
        (wrapped(DriverError("the underlying connection is closed")), M.LOST),
        (wrapped(DriverError("cannot perform operation: another operation is in progress")), M.FAULT),
        (wrapped(DriverError("connection to server at ... failed: Connection refused")), M.UNAVAILABLE),
        (wrapped(DriverError("could not translate host name to address")), M.UNAVAILABLE),
        (wrapped(DriverError("FATAL:  the database system is starting up")), M.UNAVAILABLE),
        (wrapped(DriverError("FATAL:  sorry, too many clients already")), M.UNAVAILABLE),
        (wrapped(DriverError("FATAL:  das Datenbanksystem startet")), M.UNAVAILABLE),
        (wrapped(DriverError("query_wait_timeout", sqlstate="08P01")), M.UNAVAILABLE),
        (wrapped(DriverError("FATAL:  query_wait_timeout\nserver closed"), invalidated=True), M.UNAVAILABLE),
        (wrapped(DriverError("Timed-out waiting to acquire database connection")), M.UNAVAILABLE),
        (wrapped(DriverError("unsupported startup parameter: x", sqlstate="08P01")), M.FAULT),
        (wrapped(DriverError("server conn crashed?", sqlstate="08P01")), M.LOST),
        (wrapped(DriverError("FATAL:  server conn crashed?\nserver closed"), invalidated=True), M.LOST),
        (wrapped(DriverError("Key (n)=(query_wait_timeout) already exists", pgcode="23505")), M.DUPLICATE),
        (wrapped(DriverError('FATAL:  database "nope" does not exist')), M.FAULT),
        (wrapped(DriverError("never seen")), M.FAULT),
        (wrapped(DriverError("NUL"), sqlalchemy.exc.DataError), M.INVALID),
        (wrapped(ValueError("invalid input for query argument")), M.INVALID),
        (wrapped(caused_by(ConnectionRefusedError(errno.ECONNREFUSED, "x"))), M.UNAVAILABLE),
        (wrapped(caused_by(socket.gaierror(-2, "x"))), M.UNAVAILABLE),
        (wrapped(caused_by(TimeoutError())), M.UNAVAILABLE),
        (wrapped(caused_by(FileNotFoundError(errno.ENOENT, "x"))), M.FAULT),
        (ConnectionRefusedError(errno.ECONNREFUSED, "of a payment service"), M.FAULT),
        (TimeoutError(), M.FAULT),
        (sqlalchemy.exc.TimeoutError("QueuePool limit reached"), M.SATURATED),
        (StaleDataError("expected to update 1 row(s); 0 were matched"), M.CONFLICT),
        (sqlalchemy.exc.InvalidRequestError("x"), M.FAULT),
        (ValueError("x"), M.FAULT),
    ],
)
def test_errors_without_a_code(error: Exception, meaning: Meaning) -> None:
    """Where there is no code the driver's class and text decide, never the words of the statement."""
    assert meaning_of(error) is meaning


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (errors.Saturated("x"), M.SATURATED),
        (errors.OutcomeUnknown("x"), M.UNKNOWN),
        (errors.ServerUnreachable("x"), M.UNAVAILABLE),
        (errors.CredentialsUnavailable("x"), M.UNAVAILABLE),
        (errors.RetriesExhausted("x"), M.UNAVAILABLE),
        (errors.LoginRefused("x"), M.FAULT),
        (errors.ManagerClosed("x"), M.FAULT),
    ],
)
def test_our_own_errors_mean_what_they_say(error: Exception, meaning: Meaning) -> None:
    """Whoever handles errors by their meaning need not know the classes of this package."""
    assert meaning_of(error) is meaning


def test_exhausted_retries_mean_what_the_last_one_met() -> None:
    """A conflict stays a conflict after it was met ten times."""
    error = errors.RetriesExhausted("x")
    error.__cause__ = wrapped(DriverError(sqlstate="40001"))

    assert meaning_of(error) is M.CONFLICT


def test_what_was_caught_and_raised_anew_has_its_own_meaning() -> None:
    """An application's own error is not undone by looking behind it."""
    error = ValueError("no such customer")
    error.__cause__ = wrapped(DriverError(sqlstate="23503"))

    assert meaning_of(error) is M.FAULT
    assert constraint_of(error) is None


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (wrapped(DriverError("x"), invalidated=True), True),
        (wrapped(DriverError(sqlstate="57P01")), True),
        (errors.OutcomeUnknown("x"), True),
        (wrapped(DriverError(sqlstate="40001")), False),
        (wrapped(caused_by(ConnectionRefusedError(errno.ECONNREFUSED, "x"))), False),
    ],
)
def test_a_lost_connection_is_told_from_a_refusal(error: Exception, *, lost: bool) -> None:
    """Only after a loss is it open what became of the last statement."""
    assert is_lost(error) is lost


def test_the_name_of_the_constraint_is_found_on_each_driver() -> None:
    """libpq's drivers have it in their diagnostics, asyncpg on the error itself."""
    adapted = DriverError()
    adapted.__cause__ = DriverError(constraint_name="accounts_pkey")

    assert constraint_of(wrapped(DriverError(diag=DriverError(constraint_name="fk")))) == "fk"
    assert constraint_of(wrapped(adapted)) == "accounts_pkey"
    assert constraint_of(wrapped(DriverError(diag=DriverError(constraint_name=None)))) is None


@pytest.fixture
def database(tmp_path: Path) -> str:
    """A SQLite file with two tables in it."""
    name = str(tmp_path / "dev.db")
    with closing(sqlite3.connect(name)) as connection:
        connection.executescript(
            "PRAGMA journal_mode = WAL;"
            "CREATE TABLE parent (id int PRIMARY KEY, n int NOT NULL CHECK (n > 0), u int UNIQUE);"
            "CREATE TABLE child (p int REFERENCES parent (id));"
            "INSERT INTO parent VALUES (1, 1, 1);"
        )
    return name


@pytest.mark.parametrize(
    ("statement", "meaning"),
    [
        ("INSERT INTO parent VALUES (2, 1, 1)", M.DUPLICATE),
        ("INSERT INTO parent VALUES (1, 1, 2)", M.DUPLICATE),
        ("INSERT INTO child VALUES (99)", M.REFERENCE),
        ("INSERT INTO parent VALUES (3, NULL, 3)", M.INVALID),
        ("INSERT INTO parent VALUES (3, 0, 3)", M.INVALID),
        ("SELECT * FROM nowhere", M.FAULT),
    ],
)
def test_sqlite_has_names_instead_of_codes(database: str, statement: str, meaning: Meaning) -> None:
    """A developer's SQLite gives an endpoint the same answers as PostgreSQL."""
    engine = create_engine(f"sqlite:///{database}")
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
                connection.exec_driver_sql(statement)
    finally:
        engine.dispose()

    assert meaning_of(caught.value) is meaning
    assert constraint_of(caught.value) is None


def raised_by(connection: sqlite3.Connection, statement: str) -> sqlalchemy.exc.DBAPIError:
    """Run *statement* and return its error as SQLAlchemy would wrap it."""
    with pytest.raises(sqlite3.Error) as caught:
        connection.execute(statement)
    return wrapped(caught.value)


def test_a_locked_sqlite_file_is_told_from_a_conflict(database: str) -> None:
    """Waiting may help with a lock; one that has read what somebody changed must start again."""
    with (
        closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as one,
        closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as other,
    ):
        one.execute("BEGIN IMMEDIATE")
        locked = raised_by(other, "INSERT INTO child VALUES (1)")
        one.execute("ROLLBACK")
        other.execute("BEGIN")
        other.execute("SELECT * FROM child").fetchall()
        one.execute("INSERT INTO child VALUES (1)")
        snapshot = raised_by(other, "INSERT INTO child VALUES (2)")
        other.execute("ROLLBACK")

    assert meaning_of(locked) is M.LOCKED
    assert meaning_of(snapshot) is M.CONFLICT


def test_sqlite_that_may_only_read_says_so(database: str) -> None:
    """A write in a read-only session is READ_ONLY on every database."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA query_only = 1")

        assert meaning_of(raised_by(connection, "INSERT INTO child VALUES (1)")) is M.READ_ONLY


def test_an_interrupted_statement_of_sqlite_has_timed_out(database: str) -> None:
    """That is how a statement is ended there."""
    with closing(sqlite3.connect(database)) as connection:
        connection.set_progress_handler(lambda: True, 1)

        assert meaning_of(raised_by(connection, "SELECT * FROM parent")) is M.TIMED_OUT
