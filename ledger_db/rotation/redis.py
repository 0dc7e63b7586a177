"""
Rotates the password of an ACL user of a self-managed Redis or Valkey.

The server knows two passwords at a time: AWSCURRENT's, and the next one from setSecret on.  So AWSCURRENT
logs in at every moment, and services change over when they like.  The older one goes with the next rotation,
or when `RedisAclRotator.retire` is called.

    setSecret    ACL SETUSER app #current #pending             the passwords of older versions go, !older;
                                                               others' passwords on the user stay
                 ACL SAVE                                      in one transaction with it
    testSecret   AUTH, ACL WHOAMI, PING                        as the user, on every node
                 ACL SAVE                                      if it failed before

Only SHA-256 hashes are sent: a password that was never on the wire is in no log on the other side.

Who makes the change needs the rights ``+acl|getuser +acl|setuser +acl|save +multi +exec``; the user that is
rotated needs none.  To end sessions after a leak: ``+client|list +client|kill``.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import ADMINISTRATOR_FIELDS, Secret, SecretProblem
from ledger_db.rotation import redis_login, redis_passwords, redis_sessions
from ledger_db.rotation.failures import of_secret
from ledger_db.rotation.passwords import new_password
from ledger_db.rotation.protocol import Deadline, OutOfTime, Probe, ServerProblem, Tools
from ledger_db.rotation.redis_login import Node, nodes_of, user_of
from ledger_db.rotation.sessions import Ended
from ledger_db.rotation.versions import Versions

if TYPE_CHECKING:
    import redis

# What a new version must not differ in: who may write AWSPENDING must not be able to send the administrator's
# password elsewhere, or to change somebody else's.
_FIXED_FIELDS = ("engine", "host", "port", "username", "nodes", "ssl", *ADMINISTRATOR_FIELDS)


class RedisAclRotator:
    """A `Rotator` for ACL users; the change is made by an administrator, or by the user itself if it may."""

    strategy: ClassVar[str] = "redis-acl"
    keeps_current: ClassVar[bool] = True
    session_clock_seconds: ClassVar[float] = redis_sessions.CLOCK_SECONDS

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def next_secret(self, current: Secret) -> Mapping[str, Any]:
        """Return a new password; nothing else changes."""
        nodes_of(current)
        return {"password": new_password(rules=self._tools.passwords)}

    def check(self, current: Secret, pending: Secret) -> None:
        """Refuse a pending version that is for another server or user."""
        same_but_for_password(current, pending)

    def probe(self, secret: Secret, deadline: Deadline) -> Probe:
        """Log in on every node."""
        return redis_login.probe(secret, nodes_of(secret), self._tools.tls, deadline)

    def explain(self, secret: Secret, probe: Probe, deadline: Deadline) -> Probe:
        """Tell a user that is switched off, or missing, from a wrong password."""
        if probe.reason is not Reason.REFUSED or secret.administrator_field is None:
            return probe
        try:
            for node, admin in self._administrators(secret):
                with redis_login.logged_in(node, admin, self._tools.tls, deadline) as client:
                    found = _user(client, user_of(secret))
                if found is None or "on" not in found["flags"]:
                    state = "missing" if found is None else "switched off"
                    return Probe(Reason.REFUSED, f"user {user_of(secret)!r} at {node} is {state}")
        except (ServerProblem, SecretProblem, OutOfTime):
            return probe
        return probe

    def apply(self, current: Secret, pending: Secret, deadline: Deadline) -> None:
        """
        Let every node know both passwords, and none of an older version; what else it knows is others'.

        Whatever happens in between, every node accepts *current* before, during and after.
        """
        for node, admin in self._administrators(current):
            with redis_login.logged_in(node, admin, self._tools.tls, deadline) as client:
                self._set_passwords(client, node, (current, pending), deadline)

    def verify(self, pending: Secret, deadline: Deadline) -> None:
        """Log in everywhere, and have the change outlast a restart of the server."""
        redis_login.verify(pending, nodes_of(pending), self._tools.tls, deadline)
        # Once more: where the disk was full the password works and is not saved, so the step before this one
        # finds nothing to do.
        for node, admin in self._administrators(pending):
            with redis_login.logged_in(node, admin, self._tools.tls, deadline) as client:
                redis_passwords.save(client, node)

    def revert(self, wanted: Secret, helpers: tuple[Secret, ...], deadline: Deadline) -> None:
        """Let every node know *wanted* again, besides the first of *helpers* that logs in everywhere."""
        alive = next((helper for helper in helpers if self.probe(helper, deadline).ok), None)
        if alive is not None:
            same_but_for_password(wanted, alive)
        known = (wanted,) if alive is None else (alive, wanted)
        for node, admin in self._administrators(wanted, itself=alive or wanted):
            with redis_login.logged_in(node, admin, self._tools.tls, deadline) as client:
                self._set_passwords(client, node, known, deadline)

    def retire(self, current: Secret, deadline: Deadline) -> None:
        """
        Let every node forget the passwords of all versions but *current*.

        For the end of an overlap that should not last until the next rotation.  Sessions that are logged in
        stay logged in.

        Raises:
            ServerProblem: *current* does not log in everywhere, so nothing was changed; or the server would
                not change it.
        """
        proven = self.probe(current, deadline)
        if not proven.ok:
            raise ServerProblem(proven)
        for node, admin in self._administrators(current):
            with redis_login.logged_in(node, admin, self._tools.tls, deadline) as client:
                self._set_passwords(client, node, (current,), deadline)

    def forget(self, given_up: Secret, current: Secret, deadline: Deadline) -> None:
        """Let every node forget *given_up* alone: what a rotation since has added is not ours to take."""
        known, older = [hashed(current.password)], [hashed(given_up.password)]
        for node, admin in self._administrators(current):
            with redis_login.logged_in(node, admin, self._tools.tls, deadline) as client:
                redis_passwords.write(client, node, user_of(current), known=known, older=older)

    def end_sessions(self, secret: Secret, since: float, deadline: Deadline) -> Ended:
        """End what the user of *secret* has open from before *since*, on every node."""
        done = []
        for node, admin in self._administrators(secret):
            with redis_login.logged_in(node, admin, self._tools.tls, deadline) as client:
                done.append(redis_sessions.end_sessions(client, node, user_of(secret), since))
        return Ended.together(done)

    def drift(self, current: Secret, deadline: Deadline) -> tuple[str, ...]:
        """Say which nodes let the user in without a password, not at all, or with more than two."""
        if current.administrator_field is None:
            return ()
        found: list[str] = []
        for node, admin in self._administrators(current):
            with redis_login.logged_in(node, admin, self._tools.tls, deadline) as client:
                user = _user(client, user_of(current))
                # Told apart here as well: a dry run says in advance what setSecret would be denied.
                others = self._others(user or {"passwords": ()}, current, deadline)
                found += _oddities(user, user_of(current), node, others=len(others))
        return tuple(found)

    def _set_passwords(
        self, client: "redis.Redis", node: Node, secrets: tuple[Secret, ...], deadline: Deadline
    ) -> None:
        name = user_of(secrets[0])
        user = _user(client, name)
        # SETUSER makes a user that does not exist, one without rights and therefore without use.
        if user is None:
            raise ServerProblem(Probe(Reason.FAILED_CHECK, f"user {name!r} does not exist at {node}"))
        known = [hashed(secret.password) for secret in secrets]
        unknown = {f"#{password}" for password in user["passwords"]}.difference(known)
        older = self._ours(unknown, secrets[0], deadline)
        redis_passwords.write(client, node, name, known=known, older=older)

    def _others(self, user: Mapping[str, Any], current: Secret, deadline: Deadline) -> set[str]:
        unknown = {f"#{password}" for password in user["passwords"]} - {hashed(current.password)}
        return unknown.difference(self._ours(unknown, current, deadline))

    def _ours(self, unknown: set[str], secret: Secret, deadline: Deadline) -> list[str]:
        """Return which of the hashes are passwords of older versions; the rest is another service's."""
        ours: list[str] = []
        # Nothing is asked where nothing is left to tell apart: usually AWSPREVIOUS explains all.
        versions = (
            Versions(self._tools.client("secretsmanager"), secret.name, deadline).others() if unknown else ()
        )
        for version in versions:
            with suppress(SecretProblem):
                ours += unknown & {hashed(version.password)}
            unknown = unknown.difference(ours)
            if not unknown:
                break
        return ours

    def _administrators(
        self, secret: Secret, *, itself: Secret | None = None
    ) -> Iterator[tuple[Node, Secret]]:
        """Yield every node with who makes the change there."""
        field = secret.administrator_field
        nodes = nodes_of(secret)
        admin = itself or secret
        if field is not None:
            with of_secret(f"the administrator's secret {secret.text(field)!r} in {field!r}"):
                admin = self._tools.read_secret(secret.text(field))
                admin.check_engine("Redis")
            # An administrator's password goes only where its own secret says that it belongs.
            stray = [node for node in nodes if node not in nodes_of(admin)]
            if stray:
                raise SecretProblem(
                    f"secret {secret.name!r} names {stray[0]}, which the administrator's secret "
                    f"{admin.name!r} does not; name the same 'host' and 'port', or 'nodes', in both"
                )
            if user_of(admin) == user_of(secret):
                raise SecretProblem(
                    f"secret {secret.name!r} and the administrator's secret {admin.name!r} name the same "
                    "user; an administrator must be somebody else"
                )
        for node in nodes:
            yield node, admin


def same_but_for_password(current: Secret, pending: Secret, *more: str) -> None:
    """
    Raise unless *pending* is for the same user of the same server as *current*.

    Args:
        current: What AWSCURRENT holds.

        pending: What AWSPENDING holds.

        more: Fields that are to be compared as well.

    Raises:
        SecretProblem: Names the field.
    """
    for field in (*_FIXED_FIELDS, *more):
        if current.fields.get(field) != pending.fields.get(field):
            raise SecretProblem(
                f"field {field!r} of secret {current.name!r} is not the same in AWSPENDING as in AWSCURRENT"
            )


def hashed(password: str) -> str:
    """Return how an ACL rule names a password without holding it."""
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def _user(client: "redis.Redis", name: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = client.acl_getuser(name)
    return found or None


def _oddities(user: dict[str, Any] | None, name: str, node: Node, *, others: int) -> list[str]:
    if user is None:
        return [f"user {name!r} does not exist at {node}"]
    found = []
    if "on" not in user["flags"]:
        found.append(f"user {name!r} is switched off at {node}")
    if "nopass" in user["flags"]:
        found.append(f"user {name!r} needs no password at {node}")
    if len(user["passwords"]) > 2:
        of_others = f"; a rotation leaves {others}, which no version of the secret has" if others else ""
        found.append(f"user {name!r} has {len(user['passwords'])} passwords at {node}{of_others}")
    return found
