"""
BEGIN, COMMIT and ROLLBACK of connections that share one transaction.

Each is the same of a savepoint, and does what a savepoint does not do by itself:

    BEGIN       nothing more; a read-only transaction refuses writes
    COMMIT      checks deferred constraints; ends what was set for the transaction alone
    ROLLBACK    nothing more: the server takes back what was set since the savepoint

A connection under AUTOCOMMIT has none of the three, and a savepoint for each statement.

Several may want the connection at once.  One takes its turn after the other, and one that meets what another
has done hears that they overlap: never a driver's riddle about savepoints.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.util.concurrency import AsyncAdaptedLock

from ledger_db.answers.login_errors import sqlstate_of
from ledger_db.errors import ConfigurationError
from ledger_db.testing.autocommit import ISOLATION, has_autocommit, refuse_inside_another
from ledger_db.testing.constraints import check_on_postgres, check_on_sqlite
from ledger_db.testing.home import Home
from ledger_db.testing.written_out import MARK, refuse_written_out

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine.interfaces import Dialect
    from sqlalchemy.pool import PoolProxiedConnection

# No transaction, and one without that savepoint; SQLite has a sentence that names it.
_NO_MARK = ("25P01", "3B001")
_ABORTED = "25P02"  # in_failed_sql_transaction
_EXECUTING = ("do_execute", "do_executemany", "do_execute_no_params")


class Savepoints:
    """
    Takes the place of some methods of a dialect.

    Args:
        real: The dialect of the engine whose connection is shared.

        home: The event loop that the connection belongs to.
    """

    def __init__(self, real: "Dialect", home: Home) -> None:
        self._real = real
        self._home = home
        self._is_postgres = real.name == "postgresql"
        self._refuse_writes = (
            "SET LOCAL transaction_read_only = on" if self._is_postgres else "PRAGMA query_only = ON"
        )
        self._numbers = count(1)
        # By what a checkout gives, as all of them share the connection behind it.
        self._names: WeakKeyDictionary[PoolProxiedConnection, str] = WeakKeyDictionary()
        self._read_only: WeakKeyDictionary[PoolProxiedConnection, bool] = WeakKeyDictionary()
        self._autocommit: WeakKeyDictionary[PoolProxiedConnection, bool] = WeakKeyDictionary()
        # Guards _open and _failed, which have to be true of the server while it is asked.  On an event loop
        # waiting for it is an await; a driver of threads has such a lock of its own.
        self._turn: AbstractContextManager[Any] = AsyncAdaptedLock() if real.is_async else threading.Lock()
        self._open: list[str] = []
        # Whose statement was the last to fail: until it is rolled back the server refuses everybody's.
        self._failed = ""
        self._timeout: str | None = None

    def take_over(self, engine: "Engine") -> None:
        """Change *engine* and its dialect, which must belong to nobody else."""
        self.replace_methods(engine.dialect)
        event.listen(engine, "begin", self.prepare)

    def replace_methods(self, dialect: "Dialect") -> None:
        """Change *dialect*, which must belong to nobody else."""
        replaced = {"do_begin": self.begin, "do_commit": self.commit, "do_rollback": self.rollback}
        executing = {name: self._executing(getattr(self._real, name)) for name in _EXECUTING}
        # There is one transaction, and nobody beside it: no isolation level would show.
        vars(dialect).update({**replaced, **executing, **dict.fromkeys(ISOLATION, _ignore)})

    def remember_settings(self, connection: "Connection") -> None:
        """Mark the transaction around everything, and learn what a new transaction starts with."""
        # Past the engine, whose listeners wait for the statements of the code under test.
        with _cursor(connection.connection) as cursor:
            cursor.execute(f"SAVEPOINT {MARK}")
            if self._is_postgres:
                cursor.execute("SHOW statement_timeout")
                self._timeout = cursor.fetchone()[0]

    def is_over(self, connection: "Connection") -> bool:
        """Whether somebody has ended the transaction around everything; undoes the rest of it."""
        try:
            with _cursor(connection.connection) as cursor:
                cursor.execute(f"ROLLBACK TO SAVEPOINT {MARK}")
        except Exception as error:  # noqa: BLE001 - all others are for who rolls back
            return sqlstate_of(error) in _NO_MARK or MARK in str(error)
        return False

    def prepare(self, connection: "Connection") -> None:
        """Before BEGIN: note what is asked of the transaction."""
        options, proxied = connection.get_execution_options(), connection.connection
        self._read_only[proxied] = bool(options.get("postgresql_readonly"))
        self._autocommit[proxied] = has_autocommit(connection, self._real)

    def begin(self, connection: "PoolProxiedConnection") -> None:
        """Instead of BEGIN."""
        self._home.refuse_elsewhere()
        if not self._autocommit.get(connection):
            with self._turn, _cursor(connection) as cursor:
                self._names[connection] = self._save(cursor)
                if self._read_only.get(connection):
                    cursor.execute(self._refuse_writes)

    def commit(self, connection: "PoolProxiedConnection") -> None:
        """Instead of COMMIT; one that fails has rolled back, as there."""
        self._home.refuse_elsewhere()
        name = self._names.pop(connection, "")
        if not name:
            return
        with self._turn, _cursor(connection) as cursor:
            if self._open[-1:] != [name]:
                self._roll_back(cursor, name)
                raise _overlap()
            if self._read_only.get(connection):
                # No transaction of PostgreSQL becomes writable again, but going back makes it forget.
                self._roll_back(cursor, name)
            else:
                self._commit(cursor, name)

    def rollback(self, connection: "PoolProxiedConnection") -> None:
        """Instead of ROLLBACK."""
        name = self._names.pop(connection, "")
        # On another event loop nothing can be done, and nothing has to be: all is undone at the end.
        if name and self._home.is_here:
            with self._turn, _cursor(connection) as cursor:
                self._roll_back(cursor, name)

    def _executing(self, execute: Callable[..., None]) -> Callable[..., None]:
        def execute_at_home(cursor: Any, statement: str, *rest: Any) -> None:
            self._home.refuse_elsewhere()
            refuse_written_out(statement)
            connection = getattr(rest[-1] if rest else None, "root_connection", None)
            with self._turn:
                if connection is None:
                    execute(cursor, statement, *rest)
                elif self._autocommit.get(connection.connection):
                    self._execute_alone(
                        connection.connection, lambda: execute(cursor, statement, *rest), statement
                    )
                else:
                    with self._among_others(self._names.get(connection.connection, "")):
                        execute(cursor, statement, *rest)

        return execute_at_home

    @contextmanager
    def _among_others(self, name: str) -> Iterator[None]:
        """Let the transaction *name* send something, unless another one is in its way."""
        if name and name not in self._open:
            # The one around it has ended, and has taken this along.
            raise _overlap()
        try:
            yield
        except Exception as error:
            if sqlstate_of(error) != _ABORTED:
                self._failed = name
            elif self._failed != name:
                raise _overlap() from error
            raise

    def _execute_alone(
        self, connection: "PoolProxiedConnection", execute: Callable[[], None], statement: str
    ) -> None:
        if self._open:
            refuse_inside_another(statement)
        if not self._is_postgres:
            # There a statement that fails takes back itself alone.
            execute()
            return
        with _cursor(connection) as cursor:
            name = self._save(cursor)
            try:
                execute()
            except BaseException:
                self._roll_back(cursor, name)
                raise
            self._commit(cursor, name)

    def _save(self, cursor: Any) -> str:
        name = f"ledger_db_{next(self._numbers)}"
        self._open.append(name)
        try:
            with self._among_others(name):
                cursor.execute(f"SAVEPOINT {name}")
        except BaseException:
            self._open.pop()
            raise
        return name

    def _commit(self, cursor: Any, name: str) -> None:
        try:
            self._check(cursor)
        except Exception:
            self._roll_back(cursor, name)
            raise
        self._release(cursor, name)

    def _roll_back(self, cursor: Any, name: str) -> None:
        if name in self._open:
            cursor.execute(f"ROLLBACK TO SAVEPOINT {name}")
            self._release(cursor, name)
        if not self._is_postgres:
            cursor.execute("PRAGMA query_only = OFF")

    def _release(self, cursor: Any, name: str) -> None:
        cursor.execute(f"RELEASE SAVEPOINT {name}")
        # Those that began after it have ended with it.
        del self._open[self._open.index(name) :]

    def _check(self, cursor: Any) -> None:
        if not self._is_postgres:
            check_on_sqlite(cursor)
            return
        check_on_postgres(cursor)
        cursor.execute(f"SELECT set_config('statement_timeout', '{self._timeout}', true)")


def _overlap() -> ConfigurationError:
    return ConfigurationError(
        "two transactions of this test overlap, and there is one connection for both; let one end before the "
        "next begins, or use ledger_db_manager, which has connections and really commits"
    )


def _ignore(*arguments: object) -> None:
    """Do nothing."""


@contextmanager
def _cursor(connection: "PoolProxiedConnection") -> Iterator[Any]:
    cursor = connection.cursor()
    try:
        yield cursor
    finally:
        cursor.close()
