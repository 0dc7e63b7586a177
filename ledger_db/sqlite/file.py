"""Where is a SQLite database, and how is it opened: a file, or memory that the whole process shares."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from sqlalchemy import URL, make_url

_MEMORY = (None, "", ":memory:")


@dataclass(frozen=True, slots=True)
class SqliteFile:
    """
    One database.

    Attributes:
        name: The absolute path, or what SQLite calls a database in memory.

        is_in_memory: Whether it lasts only as long as somebody is connected to it.
    """

    name: str
    is_in_memory: bool = False

    @classmethod
    def of_url(cls, url: str) -> "SqliteFile":
        """Return the one that *url* names; each call makes a new one in memory."""
        database = make_url(url).database
        if database in _MEMORY:
            return cls(f"/ledger_db-{token_hex(8)}", is_in_memory=True)
        # Absolute, because a process may change its folder before the next connection is opened.
        return cls(str(Path(str(database)).absolute()))

    @property
    def url(self) -> URL:
        """What SQLAlchemy opens."""
        if not self.is_in_memory:
            return URL.create("sqlite", database=self.name)
        # Not "mode=memory&cache=shared": connections that share a cache refuse each other at once, where
        # these wait for each other as those to a file do.
        return URL.create("sqlite", database=f"file:{self.name}", query={"vfs": "memdb", "uri": "true"})

    def connect(self, *, timeout_seconds: float) -> sqlite3.Connection:
        """Open a connection of no pool."""
        target = f"file:{self.name}?vfs=memdb" if self.is_in_memory else self.name
        arguments = connect_arguments(timeout_seconds)
        opened: sqlite3.Connection = sqlite3.connect(target, uri=self.is_in_memory, **arguments)
        return opened

    def __str__(self) -> str:
        return "in memory" if self.is_in_memory else f"at {self.name}"


def connect_arguments(timeout_seconds: float) -> dict[str, Any]:
    """
    Return what ``sqlite3.connect`` takes besides the name.

    Args:
        timeout_seconds: How long a transaction waits for another one to end.
    """
    return {
        "timeout": timeout_seconds,
        # The driver begins nothing by itself: it would begin late, and savepoints would not work.
        "isolation_level": None,
        # A pool lends a connection to one thread after the other, never to two.
        "check_same_thread": False,
    }
