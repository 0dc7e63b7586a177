"""
Rotates passwords of ElastiCache and MemoryDB, which let nobody change them on the server itself.

    elasticache-user         ModifyUser with two passwords: AWSCURRENT's and the next one
    memorydb-user            UpdateUser, the same
    elasticache-auth-token   ModifyReplicationGroup: SET to AWSCURRENT's (the oldest goes), ROTATE to the next

Either way two are valid at a time, AWSCURRENT's always among them.  The older one goes with the next
rotation, or when ``retire`` is called.  Such a change takes effect a while after it was asked for, so it is
waited for, and then tried out: "active" is what AWS says, a login is what counts.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret
from ledger_db.rotation import redis_login
from ledger_db.rotation.elasticache_api import Groups, MemoryDBUsers, Pause, Users
from ledger_db.rotation.passwords import new_password
from ledger_db.rotation.protocol import Deadline, Probe, ServerProblem, Tools
from ledger_db.rotation.redis import same_but_for_password
from ledger_db.rotation.redis_login import nodes_of

# 16 to 128 characters, and of the signs only !&#$^<>-; for users also those without quotes, comma, slash, @.
_LENGTH = 64
_PUNCTUATION = "-"
# After "active" the nodes may lag a little.
_LAG_SECONDS = 30.0
_LAG_POLL_SECONDS = 0.5


class ElastiCacheUserRotator:
    """
    A `Rotator` for users of ElastiCache's access control; the secret has ``user_arn`` or ``user_id``.

    Without ``host`` AWS is asked where the user logs in; without ``password`` it is given its first.
    """

    strategy: ClassVar[str] = "elasticache-user"
    users: ClassVar[type[Users]] = Users
    keeps_current: ClassVar[bool] = True

    def __init__(self, tools: Tools, *, pause: Pause = time.sleep) -> None:
        self._tools = tools
        self._pause = pause

    def next_secret(self, current: Secret) -> Mapping[str, Any]:
        """Return a new password that ElastiCache takes."""
        if _is_located(current):
            nodes_of(current)
        self._user_id(current)
        return {"password": _next_password(self._tools)}

    def check(self, current: Secret, pending: Secret) -> None:
        """Refuse a pending version that is for another server or user."""
        same_but_for_password(current, pending, "user_arn", "user_id")

    def probe(self, secret: Secret, deadline: Deadline) -> Probe:
        """Log in on every node."""
        if not secret.has("password"):
            return Probe(Reason.REFUSED, "it holds no password; a rotation gives it the first")
        try:
            located = self._located(secret)
        except ServerProblem as problem:
            return problem.probe
        return redis_login.probe(located, nodes_of(located), self._tools.tls, deadline)

    def explain(self, secret: Secret, probe: Probe, deadline: Deadline) -> Probe:
        """Add nothing: the server says what there is to say."""
        return probe

    def apply(self, current: Secret, pending: Secret, deadline: Deadline) -> None:
        """Let the user have both passwords, and wait until that is so."""
        known = [secret.password for secret in (current, pending) if secret.has("password")]
        self._users().set_passwords(self._user_id(current), tuple(known), deadline)

    def verify(self, pending: Secret, deadline: Deadline) -> None:
        """Log in on every node; one that lags behind is waited for."""
        _verify_patiently(self._located(pending), self._tools, deadline, pause=self._pause)

    def revert(self, wanted: Secret, helpers: tuple[Secret, ...], deadline: Deadline) -> None:
        """Let the user have *wanted* again, besides the first of *helpers* that logs in."""
        alive = next((helper for helper in helpers if self.probe(helper, deadline).ok), wanted)
        # One that is given twice is refused.
        passwords = tuple(dict.fromkeys((alive.password, wanted.password)))
        self._users().set_passwords(self._user_id(wanted), passwords, deadline)
        self.verify(wanted, deadline)

    def retire(self, current: Secret, deadline: Deadline) -> None:
        """
        Let the user have no password but that of *current*.

        Raises:
            ServerProblem: *current* does not log in, so nothing was changed; or AWS would not change it.
        """
        _refuse_unless_ok(self.probe(current, deadline))
        self._users().set_passwords(self._user_id(current), (current.password,), deadline)

    def forget(self, given_up: Secret, current: Secret, deadline: Deadline) -> None:
        """Keep that of *current* alone: AWS has room for two, and the other is that of *given_up*."""
        self.retire(current, deadline)

    def drift(self, current: Secret, deadline: Deadline) -> tuple[str, ...]:
        """Say whether the user logs in without a password."""
        user_id = self._user_id(current)
        authentication = self._users().describe(user_id).get("Authentication", {})
        if authentication.get("Type", "password") != "password":
            return (f"user {user_id!r} does not log in with passwords",)
        return ()

    def _users(self) -> Users:
        return self.users(self._tools.client(self.users.service), self._pause)

    def _user_id(self, secret: Secret) -> str:
        if secret.has("user_id"):
            return secret.text("user_id")
        return secret.text("user_arn").rpartition(":")[2]

    def _located(self, secret: Secret) -> Secret:
        """Return *secret* with the name and the nodes that it is for, if it does not name them."""
        users, user_id, told = self._users(), self._user_id(secret), {}
        if not secret.has("username"):
            told["username"] = users.describe(user_id).get("UserName", user_id)
        if not _is_located(secret):
            told["nodes"] = list(users.nodes(user_id))
        return replace(secret, fields={**secret.fields, **told})


class MemoryDBUserRotator(ElastiCacheUserRotator):
    """A `Rotator` for users of MemoryDB, which has the ways of ElastiCache under other names."""

    strategy: ClassVar[str] = "memorydb-user"
    users: ClassVar[type[Users]] = MemoryDBUsers

    def _user_id(self, secret: Secret) -> str:
        # The name in the ARN is the one that logs in.
        return (
            secret.text("user_arn").rpartition("/")[2] if secret.has("user_arn") else secret.text("username")
        )


class ElastiCacheAuthTokenRotator:
    """A `Rotator` for AUTH tokens; the secret has ``replication_group_id``, and TLS is a must."""

    strategy: ClassVar[str] = "elasticache-auth-token"
    keeps_current: ClassVar[bool] = True

    def __init__(self, tools: Tools, *, pause: Pause = time.sleep) -> None:
        self._tools = tools
        self._pause = pause

    def next_secret(self, current: Secret) -> Mapping[str, Any]:
        """Return a new token that ElastiCache takes."""
        nodes_of(current)
        _group_id(current)
        return {"password": _next_password(self._tools)}

    def check(self, current: Secret, pending: Secret) -> None:
        """Refuse a pending version that is for another server."""
        same_but_for_password(current, pending, "replication_group_id")

    def probe(self, secret: Secret, deadline: Deadline) -> Probe:
        """Log in on every node."""
        return redis_login.probe(secret, nodes_of(secret), self._tools.tls, deadline)

    def explain(self, secret: Secret, probe: Probe, deadline: Deadline) -> Probe:
        """Add nothing: the server says what there is to say."""
        return probe

    def apply(self, current: Secret, pending: Secret, deadline: Deadline) -> None:
        """
        Let the servers have both tokens, and wait until that is so.

        ROTATE keeps the newest token and drops the oldest of two.  After a rotation that ended half way the
        newest is one that nobody uses, and the oldest is AWSCURRENT's: hence it is made the only one first.
        """
        groups = self._groups()
        groups.keep_only(_group_id(current), current.password, deadline)
        groups.add(_group_id(current), pending.password, deadline)

    def verify(self, pending: Secret, deadline: Deadline) -> None:
        """Log in on every node; one that lags behind is waited for."""
        _verify_patiently(pending, self._tools, deadline, pause=self._pause)

    def revert(self, wanted: Secret, helpers: tuple[Secret, ...], deadline: Deadline) -> None:
        """Let the servers have *wanted* again, besides their newest token."""
        self._groups().add(_group_id(wanted), wanted.password, deadline)
        self.verify(wanted, deadline)

    def retire(self, current: Secret, deadline: Deadline) -> None:
        """
        Let the servers have no token but that of *current*.

        Raises:
            ServerProblem: *current* does not log in, so nothing was changed; or AWS would not change it.
        """
        _refuse_unless_ok(self.probe(current, deadline))
        self._groups().keep_only(_group_id(current), current.password, deadline)

    def forget(self, given_up: Secret, current: Secret, deadline: Deadline) -> None:
        """Keep that of *current* alone: AWS has room for two, and the other is that of *given_up*."""
        self.retire(current, deadline)

    def drift(self, current: Secret, deadline: Deadline) -> tuple[str, ...]:
        """Say whether AUTH tokens are on at all."""
        if self._groups().describe(_group_id(current)).get("AuthTokenEnabled") is False:
            return (f"replication group {_group_id(current)!r} has no AUTH token",)
        return ()

    def _groups(self) -> Groups:
        return Groups(self._tools.client("elasticache"), self._pause)


def _verify_patiently(secret: Secret, tools: Tools, deadline: Deadline, *, pause: Pause) -> None:
    """Log in on every node, and give one that still refuses some time."""
    lag_ends = Deadline(min(deadline.ends_at, Deadline.after(_LAG_SECONDS).ends_at))
    while True:
        try:
            redis_login.verify(secret, nodes_of(secret), tools.tls, deadline)
        except ServerProblem as problem:
            refused = problem.reason is Reason.REFUSED
            if not refused or lag_ends.remaining_seconds <= _LAG_POLL_SECONDS:
                raise
            pause(_LAG_POLL_SECONDS)
        else:
            return


def _next_password(tools: Tools) -> str:
    return new_password(_LENGTH, punctuation=_PUNCTUATION, rules=tools.passwords)


def _refuse_unless_ok(probe: Probe) -> None:
    if not probe.ok:
        raise ServerProblem(probe)


def _is_located(secret: Secret) -> bool:
    return secret.has("host") or secret.has("nodes")


def _group_id(secret: Secret) -> str:
    return secret.text("replication_group_id")
