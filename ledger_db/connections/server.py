"""What does everybody else need of a server, whichever it is: PostgreSQL, Redis, or SQLite in development?"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from ledger_db.connections.engines import EngineOptions
    from ledger_db.connections.startup import Note
    from ledger_db.credentials.provider import CredentialProvider


class Follower(Protocol):
    """
    What follows a secret, and can be told to look at it.

    Attributes:
        provider: Its credentials; those of SQLite never change.
    """

    provider: "CredentialProvider"

    def look_now(self, *, urgent: bool = False, announced: bool = False) -> None:
        """Read the secret now: somebody says that it changed; see `CredentialWatcher`."""
        ...

    def note_subscription(self, *, is_open: bool) -> None:
        """Say whether announcements are heard."""
        ...


class Server(Follower, Protocol):
    """
    One server, from the first look at it to the last.

    Attributes:
        name: What log lines and health reports call it.
    """

    name: str

    def check(self, *, timeout_seconds: float, note: "Note" = ...) -> None:
        """Connect and ask for a sign of life; see `startup.check`."""
        ...

    async def async_check(self, *, timeout_seconds: float) -> None:
        """Same as `check`, on an event loop."""
        ...

    def probe(self) -> None:
        """Ask for a sign of life, apart from what requests use; see `Prober`."""
        ...

    def revive(self) -> None:
        """Allow connections again after `close`; the credentials are loaded anew then."""
        ...

    def watch(self) -> None:
        """Follow rotations from now on."""
        ...

    def close(self) -> None:
        """Close every idle connection; borrowed ones are closed when returned.  May be called again."""
        ...

    async def async_close(self) -> None:
        """Same as `close`, on the event loop of the asynchronous half."""
        ...

    @property
    def belongs_here(self) -> bool:
        """Whether the asynchronous half's loop runs in this thread, which must then not wait for it."""
        ...


class Database(Server, Protocol):
    """
    A server with a synchronous and an asynchronous engine.

    Attributes:
        options: How its engines were made.
    """

    options: "EngineOptions"

    @property
    def takes_writes(self) -> bool:
        """Whether the last login has found a server that takes writes, or none was asked for."""
        ...

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
