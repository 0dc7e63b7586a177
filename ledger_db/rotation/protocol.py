"""
What does a strategy of rotation have to be able to do?

The four steps are written once, in `steps`.  What differs from server to server is behind `Rotator`: five
verbs that know how to make, try and change a password on one kind of server, and nothing of labels, tokens,
retries and events.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret
from ledger_db.answers.tls import TLS
from ledger_db.rotation.passwords import PasswordRules


@dataclass(frozen=True, slots=True)
class Probe:
    """
    The answer to "does this log in?".

    Attributes:
        reason: Why it does not; None if it does.

        what: A few words for a person, with host and user where they help; never a secret.

        cause: The driver's error, without its frames; None where it is none of a driver's.
    """

    reason: Reason | None = None
    what: str = ""
    cause: BaseException | None = field(default=None, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether it logged in."""
        return self.reason is None

    @property
    def outcome(self) -> str:
        """``ok``, or the reason in one word."""
        return "ok" if self.reason is None else self.reason.value


class ServerProblem(Exception):
    """
    What a rotator raises: something is wrong at the server.

    `steps` makes a `RotationFailed` of it, with the step, the secret and the state that only it knows.
    """

    def __init__(self, probe: Probe, *, next_move: str | None = None, is_untouched: bool = False) -> None:
        super().__init__(probe.what)
        self.probe = probe
        # Whether the server is what it was before, although it was to be changed.
        self.is_untouched = is_untouched
        # What a person does about it, if that is not the same for all of the reason.
        self.next_move = next_move
        # Here, as what a probe has found may be raised long after.
        self.__cause__: BaseException | None = probe.cause

    @property
    def reason(self) -> Reason:
        """Why; what nobody can tell is `Reason.UNKNOWN`."""
        return self.probe.reason or Reason.UNKNOWN


class OutOfTime(Exception):
    """The time that was given is used up; the text says what was being waited for."""


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
class Tools:
    """
    What every rotator is made with: ``SomeRotator(tools)``.

    Attributes:
        read_secret: Reads AWSCURRENT of *another* secret (an administrator's), by name or ARN.

        client: Makes a boto3 client for a service ("rds", "elasticache"), with short timeouts.

        tls: How connections are secured.

        passwords: What new passwords are made of.
    """

    read_secret: Callable[[str], Secret]
    client: Callable[[str], Any]
    tls: TLS = field(default_factory=TLS)
    passwords: PasswordRules = field(default_factory=PasswordRules)


@runtime_checkable
class Equalizes(Protocol):
    """A rotator whose users take turns, so that an application has to work as either."""

    def equalize(self, current: Secret, pending: Secret, deadline: Deadline) -> None:
        """
        See that whoever works as the user of *current* works as that of *pending*, which logs in already.

        Raises:
            ServerProblem: It would not; ``FAILED_CHECK`` if a person has to decide.
        """
        ...


@runtime_checkable
class Forgets(Protocol):
    """A rotator whose server goes on accepting AWSCURRENT while it learns a password, and may keep both."""

    def forget(self, given_up: Secret, current: Secret, deadline: Deadline) -> None:
        """
        Have the server refuse *given_up*, a version that lost AWSPENDING and logs in.

        Args:
            given_up: Was the next of *current*, or of one before it.

            current: What AWSCURRENT holds; it is accepted before, during and after.

            deadline: For all of it.

        Raises:
            ServerProblem: The server would not.
        """
        ...


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
