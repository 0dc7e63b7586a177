"""What credentials are, and who may hand them out."""

import re
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from ledger_db.answers.host import why_no_host
from ledger_db.answers.secret import Password
from ledger_db.errors import CredentialsInvalid

# Of a source of somebody's own nobody else looks, and a date would end the watching much later.
_KINDS: Final = {"version": str, "stamp": str, "port": int, "expires_at": float | int | None}
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

Stage = Literal["AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"]
"""A staging label of Secrets Manager; sources without labels know only ``AWSCURRENT``."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    One consistent answer to "who am I, and where?".

    Pass the whole object on.  A user name from one snapshot with a password from the next is the bug
    that this class exists to prevent.

    Attributes:
        username: The PostgreSQL role or the Redis user.

        password: Its ``repr()`` is masked, hence it is never part of a log line.

        version: Opaque name of the secret's version.  Equal versions are equal credentials.

        host: Name or address of the server; empty where there is none, as for SQLite.

        port: TCP port of the server.

        database: Database name (PostgreSQL) or number as text (Redis).

        stamp: What a connection that logged in with these carries.  A connection is stale once its stamp is
            no longer the current one.  It is the version, except where a new version leaves older sessions
            in good standing (tokens that only open the door).

        expires_at: POSIX seconds after which the server refuses them; None for never.

        names_database: Whether somebody has named the database; if not, it is the usual one of the server.

    Raises:
        CredentialsInvalid: No server can have that host, or take one of the texts.
    """

    __module__ = "ledger_db"

    username: str
    password: Password
    version: str
    host: str
    port: int
    database: str
    stamp: str = ""
    expires_at: float | None = None
    names_database: bool = True

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            if not isinstance(getattr(self, name), kind):
                raise CredentialsInvalid(f"{name} is a {type(getattr(self, name)).__name__}; mend the source")
        if self.host:
            checked_host(self.host)
        for name in ("username", "password", "database"):
            if "\x00" in getattr(self, name):
                raise CredentialsInvalid(f"{name} holds the character NUL, which no server accepts; mend it")
            if _SURROGATE.search(getattr(self, name)):
                # A driver's error for it carries the whole text.
                raise CredentialsInvalid(f"{name} holds half a character (a lone surrogate); mend it")
        # Frozen: what a caller passed as a plain string is masked here, once, for everybody after.
        object.__setattr__(self, "password", Password(self.password))
        if not self.stamp:
            object.__setattr__(self, "stamp", self.version)


def checked_host(host: str) -> str:
    """Return *host*; CredentialsInvalid if no server can have it, as no waiting will help."""
    why_not = why_no_host(host, sockets=True)
    if why_not is not None:
        raise CredentialsInvalid(f"host {why_not}; mend it where it comes from")
    return host


class CredentialSource(Protocol):
    """Somewhere credentials come from: Secrets Manager, RDS IAM, the environment."""

    __module__: str = "ledger_db"

    @property
    def name(self) -> str:
        """What log lines and messages call this source; never secret."""
        ...

    @property
    def rotates(self) -> bool:
        """Whether asking again may ever give another answer.  If not, a refused login is final."""
        ...

    def fetch(self, stage: Stage) -> Credentials | None:
        """
        Read the credentials that carry the label *stage*.  May block on the network.

        Returns:
            None if no version with a value carries the label.  For ``AWSCURRENT`` that is an error instead.

        Raises:
            CredentialsUnavailable: No answer; trying again may help.

            CredentialsInvalid: An answer of the wrong shape; trying again will not help.

            ConfigurationError: No permission, no such secret, no key: trying again will not help.
        """
        ...
