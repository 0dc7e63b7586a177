"""A server that exists in memory only, for tests of what is the same for every kind of server."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.rotation.passwords import new_password
from ledger_db.rotation.protocol import Deadline, Probe, ServerProblem


@dataclass
class MemoryServer:
    """
    Knows users and their passwords.

    Attributes:
        passwords: By user.

        trouble: What comes of every login, if something is wrong with the server.

        failed_check: Passwords that log in and then do not work.

        changes: How often a password was set.
    """

    passwords: dict[str, str]
    trouble: Reason | None = None
    failed_check: set[str] = field(default_factory=set)
    changes: int = 0

    def login(self, secret: Secret) -> Probe:
        """Try to log in."""
        if self.trouble is not None:
            return Probe(self.trouble, f"the server says {self.trouble.value}")
        if self.passwords.get(secret.username) == secret.password:
            return Probe()
        return Probe(Reason.REFUSED, "the server refused the password")

    def learn(self, secret: Secret) -> None:
        """Set a password."""
        self.passwords[secret.username] = str(secret.password)
        self.changes += 1


class MemoryRotator:
    """
    Rotates passwords of a `MemoryServer`, as its one user or alternately for "a" and "b".

    A user changes its own password; for the pair an administrator that is always there does.
    """

    def __init__(self, server: MemoryServer, *, keeps_current: bool = False) -> None:
        self._server = server
        self.keeps_current = keeps_current
        self.strategy = "memory-alternating" if keeps_current else "memory-single"

    def next_secret(self, current: Secret) -> Mapping[str, Any]:
        """Return the changes."""
        user = current.username
        return {"username": self._next(user), "password": new_password()}

    def check(self, current: Secret, pending: Secret) -> None:
        """Compare users and hosts."""
        if pending.username not in {self._next(current.username), *self._same(current)}:
            raise SecretProblem("the 'username' in AWSPENDING is not the next one")
        if current.fields.get("host") != pending.fields.get("host"):
            raise SecretProblem("the 'host' in AWSPENDING is not that in AWSCURRENT")

    def probe(self, secret: Secret, deadline: Deadline) -> Probe:
        """Log in."""
        deadline.wait_seconds(1.0, what="a login")
        return self._server.login(secret)

    def explain(self, secret: Secret, probe: Probe, deadline: Deadline) -> Probe:
        """Add nothing."""
        return probe

    def apply(self, current: Secret, pending: Secret, deadline: Deadline) -> None:
        """Change the password, as whom the strategy has for that."""
        probe = self._server.login(current)
        if not probe.ok:
            raise ServerProblem(probe)
        self._server.learn(pending)

    def verify(self, pending: Secret, deadline: Deadline) -> None:
        """Log in and do something."""
        probe = self.probe(pending, deadline)
        if not probe.ok:
            raise ServerProblem(probe)
        if pending.password in self._server.failed_check:
            raise ServerProblem(Probe(Reason.FAILED_CHECK, "it logs in and cannot do anything"))

    def revert(self, wanted: Secret, helpers: tuple[Secret, ...], deadline: Deadline) -> None:
        """Set the password as any helper that logs in."""
        if not self.keeps_current and not any(self._server.login(helper).ok for helper in helpers):
            raise ServerProblem(Probe(Reason.REFUSED, "nobody logs in"))
        self._server.learn(wanted)

    def drift(self, current: Secret, deadline: Deadline) -> tuple[str, ...]:
        """Find nothing."""
        return ()

    def _next(self, user: str) -> str:
        return {"a": "b", "b": "a"}[user] if self.keeps_current else user

    def _same(self, current: Secret) -> tuple[str, ...]:
        return () if self.keeps_current else (current.username,)


class MemoryPairRotator(MemoryRotator):
    """Of the two whose server may be left with a password that nobody will use."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server, keeps_current=True)

    def forget(self, given_up: Secret, current: Secret, deadline: Deadline) -> None:
        """Leave the user without a password."""
        self._server.passwords.pop(given_up.username, None)
