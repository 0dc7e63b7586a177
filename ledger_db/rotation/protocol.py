"""
What does a strategy of rotation have to be able to do?

The four steps are written once, in `steps`.  What differs from server to server is behind `Rotator`: five
verbs that know how to make, try and change a password on one kind of server, and nothing of labels, tokens,
retries and events.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from ledger_db.credentials.model import Password


class Verdict(Enum):
    """What came of trying to log in.  Only after ``REFUSED`` may anything be written to the server."""

    OK = "ok"
    REFUSED = "refused"
    """Wrong password or no such user: an answer about the credentials, from the right server."""

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
    """The server is starting, stopping, or being changed by its operator."""

    FORBIDDEN = "forbidden"
    """Logged in, or turned away before the password, by a rule: pg_hba.conf, a missing privilege."""

    FAILED_CHECK = "failed_check"
    """Logged in, and what has to work after that does not."""

    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Probe:
    """
    The answer to "does this log in?".

    Attributes:
        verdict: Which kind of answer.

        what: A few words for a person, with host and user where they help; never a secret, never the text
            of a driver as it is.
    """

    verdict: Verdict
    what: str = ""

    @property
    def ok(self) -> bool:
        """Whether it logged in."""
        return self.verdict is Verdict.OK


class ServerProblem(Exception):
    """
    What a rotator raises: something is wrong at the server.

    `steps` makes a `RotationFailed` of it, with the step, the secret and the state that only it knows.
    """

    def __init__(self, probe: Probe) -> None:
        super().__init__(probe.what)
        self.probe = probe


class SecretProblem(Exception):
    """What a rotator raises if a secret does not allow the change: its text names the field, no value."""


class OutOfTime(Exception):
    """The time that was given is used up; the text says what was being waited for."""


@dataclass(frozen=True, slots=True)
class Secret:
    """
    One version of a secret, as the JSON object that it holds.

    Attributes:
        name: What messages call the secret.

        version: Id of the version.

        fields: Everything in it, unknown fields included: they are carried into the next version.
    """

    name: str
    version: str
    fields: Mapping[str, Any] = field(repr=False)

    @property
    def username(self) -> str:
        """Who logs in; ``default`` where a Redis secret names nobody."""
        return self.text("username", default="default" if self.engine in REDIS_ENGINES else None)

    @property
    def password(self) -> Password:
        """The password; its repr is masked."""
        return Password(self.text("password"))

    @property
    def host(self) -> str:
        """Name or address of the server."""
        return self.text("host")

    @property
    def engine(self) -> str:
        """What AWS calls the kind of server, in lower case; empty if the secret does not say."""
        return str(self.fields.get("engine") or "").lower()

    def port(self, *, default: int) -> int:
        """TCP port, stored as number or as text."""
        found = self.fields.get("port")
        if found is None or found == "":
            return default
        try:
            return int(found)
        except (TypeError, ValueError):
            problem = "has another form; expected a number"
        raise SecretProblem(f"field 'port' of secret {self.name!r} {problem}")

    def text(self, name: str, *, default: str | None = None) -> str:
        """
        Return the text of the field *name*.

        Raises:
            SecretProblem: It is missing, without a *default*, or it is no text.
        """
        found = self.fields.get(name)
        if found is None and default is not None:
            return default
        if not isinstance(found, str) or not found:
            raise SecretProblem(
                f"field {name!r} of secret {self.name!r} is missing or no text; expected a non-empty text"
            )
        return found


REDIS_ENGINES = frozenset({"redis", "valkey", "elasticache", "memorydb"})
POSTGRES_ENGINES = frozenset({"postgres", "postgresql", "aurora-postgresql"})


@dataclass(frozen=True, slots=True)
class Deadline:
    """
    Until when everything has to be done.

    Every wait, whoever it is for, asks here how long it may take: a Lambda that is ended from outside leaves
    no message.

    Attributes:
        ends_at: On the clock of `time.monotonic`.
    """

    ends_at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Make one that ends in so many *seconds*."""
        return cls(time.monotonic() + seconds)

    @property
    def remaining_seconds(self) -> float:
        """What is left; never negative."""
        return max(0.0, self.ends_at - time.monotonic())

    def wait_seconds(self, at_most: float, *, what: str, at_least: float = 0.0) -> float:
        """
        Return how long a wait for *what* may take: *at_most*, or what is left.

        Raises:
            OutOfTime: Less than *at_least* is left, so there is no point in beginning.
        """
        left = self.remaining_seconds
        if left <= at_least:
            raise OutOfTime(f"no time was left for {what}")
        return min(at_most, left)


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """
    How connections to servers are secured.

    Attributes:
        mode: ``verify-full``, ``verify-ca``, ``require`` or ``disable``; None for ``verify-full`` everywhere
            but on the loopback address, where the server's own choice is taken.

        ca_file: Whom to trust; None for the system's certificates.
    """

    mode: str | None = None
    ca_file: str | None = None

    def mode_for(self, host: str) -> str:
        """Return libpq's ``sslmode`` for a server at *host*."""
        if self.mode is not None:
            return self.mode
        # Nobody listens in between on the loopback address; and nothing in a cloud is there.
        return "prefer" if host in _LOOPBACK else "verify-full"


_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """
    What every rotator is made with: ``SomeRotator(tools)``.

    Attributes:
        read_secret: Reads AWSCURRENT of *another* secret (an administrator's), by name or ARN.

        client: Makes a boto3 client for a service ("rds", "elasticache"), with short timeouts.

        tls: How connections are secured.
    """

    read_secret: Callable[[str], Secret]
    client: Callable[[str], Any]
    tls: TLS = field(default_factory=TLS)


class Rotator(Protocol):
    """
    Changes passwords on one kind of server, in one way.

    A rotator keeps nothing between calls: each step may run in another process, any of them twice.
    """

    @property
    def strategy(self) -> str:
        """What the strategy is called in secrets, logs and announcements."""
        ...

    @property
    def keeps_current(self) -> bool:
        """
        Whether AWSCURRENT logs in at every moment of the rotation.

        If it does there is nothing to roll back, ever.
        """
        ...

    def next_secret(self, current: Secret) -> Mapping[str, Any]:
        """
        Return the fields in which the next version differs from *current*; a new ``password`` among them.

        Raises:
            SecretProblem: *current* does not have what the strategy needs.
        """
        ...

    def check(self, current: Secret, pending: Secret) -> None:
        """
        Make sure that *pending* is the next of *current*, without any login.

        Who may write AWSPENDING must not be able to send the administrator's password, or the change, to
        another server or another user: same host, same port, the right user name.

        Raises:
            SecretProblem: It is not.
        """
        ...

    def probe(self, secret: Secret, deadline: Deadline) -> Probe:
        """
        Try to log in; writes nothing, raises nothing for what the server does.

        Raises:
            OutOfTime: There was no time to try.
        """
        ...

    def explain(self, secret: Secret, probe: Probe, deadline: Deadline) -> Probe:
        """
        Look closer at a *probe* that is about to be reported.

        A server refuses an expired role with the words it has for a wrong password; an administrator sees
        the difference.  Returns *probe* itself if there is nothing to add; raises nothing.
        """
        ...

    def apply(self, current: Secret, pending: Secret, deadline: Deadline) -> None:
        """
        Make the server accept *pending*.  Idempotent, and all or nothing.

        Args:
            current: Logged in a moment ago: what AWSCURRENT holds, or what AWSPREVIOUS holds if that is what
                the server still has.

            pending: Was checked against AWSCURRENT, and was refused a moment ago.

            deadline: For all of it.

        Raises:
            ServerProblem: The server would not.

            SecretProblem: A secret lacks what is needed.

            OutOfTime: It took too long.
        """
        ...

    def verify(self, pending: Secret, deadline: Deadline) -> None:
        """
        Log in with *pending* on every node, and do what an application does first.

        Raises:
            ServerProblem: It does not work; ``FAILED_CHECK`` if only what comes after the login does not.

            OutOfTime: It took too long.
        """
        ...

    def revert(self, wanted: Secret, helpers: tuple[Secret, ...], deadline: Deadline) -> None:
        """
        Make the server accept *wanted* again, in whatever way is left: for rollback and repair.

        Args:
            wanted: What shall log in; proven not to.

            helpers: Other versions of the secret, one of which may log in and make the change; beyond them
                the administrator of the strategy, if it has one.

            deadline: For all of it.

        Raises:
            ServerProblem: Nobody could.

            OutOfTime: It took too long.
        """
        ...

    def drift(self, current: Secret, deadline: Deadline) -> tuple[str, ...]:
        """
        Say what is not as it should be around the users of the secret, a sentence each; changes nothing.

        Empty where there is nothing to compare.  Raises as `apply` does.
        """
        ...
