"""
Would COMMIT fail?

A constraint that is deferred is checked at COMMIT, which a test that is rolled back never sends.  Without
this a test would see a success where the service answers 409.
"""

import sqlite3
from typing import Any

# A name may belong to several constraints, and SET CONSTRAINTS takes it only if all of them can be deferred.
_DEFERRABLE = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.conname), bool_or(c.condeferred)
FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
GROUP BY 1 HAVING bool_and(c.condeferrable)
"""


def check_on_postgres(cursor: Any) -> None:
    """
    Check now what COMMIT would check, and leave the constraints as a new transaction has them.

    Args:
        cursor: A DBAPI cursor.

    Raises:
        Exception: The driver's, the one that COMMIT would raise.
    """
    cursor.execute(_DEFERRABLE)
    deferrable = cursor.fetchall()
    if not deferrable:
        return
    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    deferred = [name for name, is_deferred in deferrable if is_deferred]
    if deferred:
        cursor.execute(f"SET CONSTRAINTS {', '.join(deferred)} DEFERRED")


def check_on_sqlite(cursor: Any) -> None:
    """Same as `check_on_postgres`, where only foreign keys can be deferred."""
    cursor.execute("PRAGMA foreign_keys")
    if not cursor.fetchone()[0]:
        return
    cursor.execute("PRAGMA foreign_key_check")
    if cursor.fetchall():
        error = sqlite3.IntegrityError("FOREIGN KEY constraint failed")
        error.sqlite_errorname = "SQLITE_CONSTRAINT_FOREIGNKEY"
        raise error
