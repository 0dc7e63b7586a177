"""
BEGIN, COMMIT and ROLLBACK of connections that share one transaction.

Each is the same of a savepoint, and does what a savepoint does not do by itself:

    BEGIN       nothing more; a read-only transaction refuses writes
    COMMIT      checks deferred constraints; ends what was set for the transaction alone
    ROLLBACK    nothing more: the server takes back what was set since the savepoint
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ledger_db.errors import ConfigurationError
from ledger_db.testing.constraints import check_on_postgres, check_on_sqlite

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import Dialect
    from sqlalchemy.pool import PoolProxiedConnection


class Savepoints:
    """
    Takes the place of three methods of a dialect.

    Args:
        is_postgres: Whether it is PostgreSQL's, else SQLite's.
    """

    def __init__(self, *, is_postgres: bool) -> None:
        self._is_postgres = is_postgres
        self._refuse_writes = (
            "SET LOCAL transaction_read_only = on" if self._is_postgres else "PRAGMA query_only = ON"
        )
        self._numbers = count(1)
        # By what a checkout gives, as all of them share the connection behind it.
        self._names: WeakKeyDictionary[PoolProxiedConnection, str] = WeakKeyDictionary()
        self._read_only: WeakKeyDictionary[PoolProxiedConnection, bool] = WeakKeyDictionary()
        self._open: list[str] = []
        self._timeout: str | None = None

    def replace_methods(self, dialect: "Dialect") -> None:
        """Change *dialect*, which must belong to nobody else."""
        replaced = {"do_begin": self.begin, "do_commit": self.commit, "do_rollback": self.rollback}
        # There is one transaction, and nobody beside it: no isolation level would show.
        ignored = ("set_isolation_level", "reset_isolation_level", "set_readonly", "set_deferrable")
        vars(dialect).update({**replaced, **dict.fromkeys(ignored, _ignore)})

    def remember_settings(self, connection: "Connection") -> None:
        """Learn from the transaction around everything what a new transaction starts with."""
        if self._is_postgres:
            self._timeout = connection.exec_driver_sql("SHOW statement_timeout").scalar_one()

    def prepare(self, connection: "Connection") -> None:
        """Before BEGIN: note what is asked of the transaction."""
        options = connection.get_execution_options()
        self._read_only[connection.connection] = bool(options.get("postgresql_readonly"))

    def begin(self, connection: "PoolProxiedConnection") -> None:
        """Instead of BEGIN."""
        name = f"ledger_db_{next(self._numbers)}"
        with _cursor(connection) as cursor:
            cursor.execute(f"SAVEPOINT {name}")
            self._names[connection] = name
            self._open.append(name)
            if self._read_only.get(connection):
                cursor.execute(self._refuse_writes)

    def commit(self, connection: "PoolProxiedConnection") -> None:
        """Instead of COMMIT; one that fails has rolled back, as there."""
        name = self._names.pop(connection)
        self._refuse_overlap(name)
        with _cursor(connection) as cursor:
            if self._read_only.get(connection):
                # No transaction of PostgreSQL becomes writable again, but going back makes it forget.
                self._roll_back(cursor, name)
                return
            try:
                self._check(cursor)
            except Exception:
                self._roll_back(cursor, name)
                raise
            self._release(cursor, name)

    def rollback(self, connection: "PoolProxiedConnection") -> None:
        """Instead of ROLLBACK."""
        name = self._names.pop(connection, "")
        if name in self._open:
            with _cursor(connection) as cursor:
                self._roll_back(cursor, name)

    def _roll_back(self, cursor: Any, name: str) -> None:
        cursor.execute(f"ROLLBACK TO SAVEPOINT {name}")
        self._release(cursor, name)
        if not self._is_postgres:
            cursor.execute("PRAGMA query_only = OFF")

    def _release(self, cursor: Any, name: str) -> None:
        cursor.execute(f"RELEASE SAVEPOINT {name}")
        # Those that began after it have ended with it.
        del self._open[self._open.index(name) :]

    def _refuse_overlap(self, name: str) -> None:
        if self._open[-1:] != [name]:
            raise ConfigurationError(
                "two transactions of this test overlap, and there is one connection for both; let one end "
                "before the next begins, or use ledger_db_manager, which has connections and really commits"
            )

    def _check(self, cursor: Any) -> None:
        if not self._is_postgres:
            check_on_sqlite(cursor)
            return
        check_on_postgres(cursor)
        cursor.execute(f"SELECT set_config('statement_timeout', '{self._timeout}', true)")


def _ignore(*arguments: object) -> None:
    """Do nothing."""


@contextmanager
def _cursor(connection: "PoolProxiedConnection") -> Iterator[Any]:
    cursor = connection.cursor()
    try:
        yield cursor
    finally:
        cursor.close()
