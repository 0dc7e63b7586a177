"""What a manager needs of its database, whichever it is: PostgreSQL, or SQLite in development."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from ledger_db.connections.engines import EngineOptions
    from ledger_db.connections.startup import Note
    from ledger_db.credentials.provider import CredentialProvider


class Database(Protocol):
    """
    One database with a synchronous and an asynchronous engine.

    Attributes:
        name: What log lines and health reports call it.

        provider: Its credentials; those of SQLite never change.

        options: How its engines were made.
    """

    name: str
    provider: "CredentialProvider"
    options: "EngineOptions"

    @property
    def engine(self) -> "Engine":
        """The one Engine; made at first use."""
        ...

    @property
    def async_engine(self) -> "AsyncEngine":
        """The one AsyncEngine; made at first use."""
        ...

    @property
    def made(self) -> "tuple[Engine, ...]":
        """The engines that were made so far, the asynchronous one by its synchronous core."""
        ...

    def check(self, *, timeout_seconds: float, note: "Note" = ...) -> None:
        """Connect and ask for a row; see `startup.check`."""
        ...

    async def async_check(self, *, timeout_seconds: float) -> None:
        """Same as `check`, on an event loop."""
        ...

    def probe(self) -> None:
        """Ask for a row, apart from what requests use; see `Prober`."""
        ...

    def watch(self) -> None:
        """Follow rotations from now on."""
        ...

    def look_now(self) -> None:
        """Read the secret now: somebody says that it changed."""
        ...

    def close(self) -> None:
        """Close every idle connection; borrowed ones are closed when returned.  May be called again."""
        ...

    async def async_close(self) -> None:
        """Same as `close`, on the event loop of the async engine."""
        ...

    @property
    def belongs_here(self) -> bool:
        """Whether the async engine's loop runs in this thread, which must then not wait for it."""
        ...
