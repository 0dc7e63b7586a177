"""
Why a login fails, and what that asks for.

One set of words for PostgreSQL and Redis, in a service as in a rotation.  Which error means which reason is
told by `login_errors`.
"""

import re
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Final


class Verdict(Enum):
    """What a failed login asks for."""

    REFUSED = "refused"
    """The server rejects this login; another version of the secret may be accepted."""

    TRANSIENT = "transient"
    """Trying the same again may work."""

    PERMANENT = "permanent"
    """Only a person can mend it; also the verdict on what nobody has ever seen."""


class Reason(Enum):
    """Why a login fails, or what is to be done after it."""

    REFUSED = "refused"
    """
    Wrong password or no such user: an answer about the credentials, from the right server.

    Only after it may a rotation write anything to the server.
    """

    NO_LOGIN = "no_login"
    """The user is there and may not log in, whatever its password: no rotation mends that."""

    EXPIRED = "expired"
    """The password is beyond its validity; the server says "refused", an administrator sees why."""

    NO_DATABASE = "no_database"
    CLOSED_PORT = "closed_port"
    NO_ADDRESS = "no_address"
    """The name of the host is not known to DNS."""

    NO_ANSWER = "no_answer"
    """Silence: a security group, a route, a host that is down."""

    WRONG_CERTIFICATE = "wrong_certificate"
    NO_TLS = "no_tls"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    NOT_READY = "not_ready"
    """The server is starting, stopping, or being changed by its operator, or broke the connection off."""

    NOT_PRIMARY = "not_primary"
    """Logged in to a standby where a server that takes writes was asked for; a failover may be under way."""

    FORBIDDEN = "forbidden"
    """Logged in, or turned away before the password, by a rule: pg_hba.conf, a missing privilege."""

    NO_PASSWORD = "no_password"  # noqa: S105 - none
    """Whoever asks is let in, with whatever password: a login proves nothing."""

    UNSUPPORTED = "unsupported"
    """Client and server do not understand each other: a protocol, an option, a way to authenticate."""

    FAILED_CHECK = "failed_check"
    """Logged in, and what has to work after that does not."""

    UNKNOWN = "unknown"
    """Nobody has seen it: after that nothing is written, and nothing repeated."""

    @property
    def verdict(self) -> Verdict:
        """What it asks for."""
        return _VERDICTS.get(self, Verdict.PERMANENT)


_VERDICTS: Final = {
    Reason.REFUSED: Verdict.REFUSED,
    # The other role of a pair may log in: the one that an alternating rotation has retired may not.
    Reason.NO_LOGIN: Verdict.REFUSED,
    Reason.EXPIRED: Verdict.REFUSED,
    # A resolver that lags behind (containers that start together); startup bounds it anyway.
    Reason.NO_ADDRESS: Verdict.TRANSIENT,
    Reason.CLOSED_PORT: Verdict.TRANSIENT,
    Reason.NO_ANSWER: Verdict.TRANSIENT,
    Reason.NOT_READY: Verdict.TRANSIENT,
    # An endpoint that follows late, or a standby that is about to be promoted.
    Reason.NOT_PRIMARY: Verdict.TRANSIENT,
    Reason.TOO_MANY_CONNECTIONS: Verdict.TRANSIENT,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """
    What is known of a failed login.

    Attributes:
        reason: Why it failed.

        words: A few for a person, without a name or a value in them; empty if nothing is known.
    """

    reason: Reason
    words: str = ""


UNKNOWN: Final = Finding(Reason.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Text:
    """
    What stands in messages of a server or of a driver, and what it means.

    Attributes:
        source: A regular expression.

        finding: What it means.

        flags: Of the expression.
    """

    source: str
    finding: Finding
    flags: int = 0

    @property
    def pattern(self) -> re.Pattern[str]:
        """The expression, compiled when it is first needed: a start that meets no error goes without."""
        return _compiled(self.source, self.flags)


_compiled = cache(re.compile)


def text(pattern: str, finding: Finding) -> Text:
    """Make a row of a table; *pattern* is found anywhere, in upper or lower case."""
    return Text(pattern, finding, re.IGNORECASE)
