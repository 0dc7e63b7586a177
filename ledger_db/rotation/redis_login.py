"""How does a rotation log in to Redis or Valkey, and what came of it?"""

import contextlib
import re
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledger_db.answers.host import why_no_host
from ledger_db.answers.login_errors import find
from ledger_db.answers.reason import Reason
from ledger_db.answers.redis import ANYBODY
from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.answers.tls import TLS
from ledger_db.answers.tls_trouble import told
from ledger_db.redaction import forget_frames
from ledger_db.rotation.passwords import new_password
from ledger_db.rotation.protocol import Deadline, Probe, ServerProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

_DEFAULT_USER = "default"
# An address of IPv6 needs its brackets only here.
_NODE = re.compile(r"(?:\[(?P<bare>[^\]]*)\]|(?P<host>[^:]*)):(?P<port>[0-9]{1,5})")
# Of one connection attempt, and of one answer.
_MOST_SECONDS = 5.0
_KNOCK_SECONDS = 0.5
# Less than this is not worth beginning a login with.
_LEAST_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Node:
    """One server; the users of Redis are each node's own, no replication carries them."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def nodes_of(secret: Secret) -> tuple[Node, ...]:
    """
    Return every node that the password is for: those in ``nodes`` ("host:port"), else ``host`` and ``port``.

    Raises:
        SecretProblem: Neither is there, or not in that form.
    """
    named = secret.fields.get("nodes")
    if named is None:
        return (Node(secret.host_for("Redis"), secret.port("Redis")),)
    if not isinstance(named, list) or not named:
        raise _nodes_problem(secret)
    return tuple(_node(secret, text) for text in named)


def user_of(secret: Secret) -> str:
    """Return who logs in with *secret*, also where it does not say that it is Redis'."""
    return secret.username_for("Redis")


def _node(secret: Secret, text: object) -> Node:
    found = _NODE.fullmatch(text) if isinstance(text, str) else None
    if found is None or not 0 < int(found["port"]) < 65536:
        raise _nodes_problem(secret)
    node = Node(found["bare"] or found["host"] or "", int(found["port"]))
    why_not = why_no_host(node.host)
    if why_not is not None:
        raise SecretProblem(f"field 'nodes' of secret {secret.name!r}: the host of one {why_not}")
    return node


def _nodes_problem(secret: Secret) -> SecretProblem:
    return SecretProblem(
        f"field 'nodes' of secret {secret.name!r} has another form; expected a list of texts 'host:port'"
    )


@contextlib.contextmanager
def logged_in(node: Node, secret: Secret, tls: TLS, deadline: Deadline) -> "Iterator[redis.Redis]":
    """
    Log in to *node* as *secret* says, for a ``with`` block; what goes wrong in there is translated too.

    Raises:
        ServerProblem: With the reason.

        OutOfTime: There was no time to begin.
    """
    import redis  # noqa: PLC0415 - a rotation of PostgreSQL does without it

    seconds = deadline.wait_seconds(_MOST_SECONDS, what=f"a login to {node}", at_least=_LEAST_SECONDS)
    handled_already = sys.exception()
    try:
        with _client(node, secret, tls, seconds) as client:
            # A user need not have the right to PING; that it is refused is said to whoever has logged in.
            with contextlib.suppress(redis.exceptions.NoPermissionError):
                client.ping()
            yield client
    except (redis.RedisError, OSError) as error:
        probe = _judge(error, node, secret, tls, handled_already)
        if probe.reason is Reason.NO_ANSWER and _security(node, secret, tls) and _is_there(node):
            # A server without TLS takes the greeting for the beginning of a command, and waits for the rest.
            probe = Probe(Reason.NO_TLS, f"{node} takes connections and does not answer in TLS", cause=error)
        # redis-py's frames hold the password in their local variables.
        forget_frames(error, but=handled_already)
        raise ServerProblem(probe) from error


def probe(secret: Secret, nodes: tuple[Node, ...], tls: TLS, deadline: Deadline) -> Probe:
    """Return what came of logging in everywhere: the first answer that is not ok, else ok."""
    for node in nodes:
        try:
            with logged_in(node, secret, tls, deadline) as client:
                _insist_on_password(client, node, secret)
        except ServerProblem as problem:
            return problem.probe
    return Probe()


def verify(secret: Secret, nodes: tuple[Node, ...], tls: TLS, deadline: Deadline) -> None:
    """
    Log in everywhere and see that the server takes us for whom we mean to be.

    Raises:
        ServerProblem: It does not, or does not let us in.

        OutOfTime: There was no time.
    """
    for node in nodes:
        with logged_in(node, secret, tls, deadline) as client:
            who = _who_am_i(client)
            _insist_on_password(client, node, secret)
        if who not in (None, user_of(secret)):
            raise ServerProblem(
                Probe(Reason.FAILED_CHECK, f"{node} takes user {user_of(secret)!r} for another one")
            )


def _insist_on_password(client: "redis.Redis", node: Node, secret: Secret) -> None:
    """
    Prove the login that there was, by one with another password that has to be refused.

    Raises:
        ServerProblem: It is let in: the user has ``nopass``.
    """
    import redis  # noqa: PLC0415 - as above

    named = () if user_of(secret) == _DEFAULT_USER else (user_of(secret),)
    try:
        client.execute_command("AUTH", *named, new_password())  # type: ignore[no-untyped-call]
    except (redis.AuthenticationError, redis.ResponseError):
        return
    raise ServerProblem(
        Probe(
            Reason.NO_PASSWORD,
            f"user {user_of(secret)!r} at {node}: the server asks this user for no password",
        )
    )


def _who_am_i(client: "redis.Redis") -> str | None:
    import redis  # noqa: PLC0415 - as above

    try:
        return str(client.acl_whoami())
    except redis.ResponseError as error:
        # A user need not have the right to ask, and Redis 5 has no ACL.  The login itself named the user.
        if isinstance(error, redis.exceptions.NoPermissionError) or "unknown command" in str(error):
            return None
        raise


def _client(node: Node, secret: Secret, tls: TLS, seconds: float) -> "redis.Redis":
    import redis  # noqa: PLC0415 - as above
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    return redis.Redis(
        host=node.host,
        port=node.port,
        # Not as arguments: redis-py before 8 shows those with each client.  No name: AUTH with one argument,
        # which an AUTH token needs before Redis 6 and is the same after.
        credential_provider=redis.UsernamePasswordCredentialProvider(
            None if user_of(secret) == _DEFAULT_USER else user_of(secret), str(secret.password)
        ),
        protocol=2,
        decode_responses=True,
        socket_connect_timeout=seconds,
        socket_timeout=seconds,
        # redis-py repeats a refused login for three seconds; here it is an answer.
        retry=Retry(NoBackoff(), 0),
        **_security(node, secret, tls),
    )


def _security(node: Node, secret: Secret, tls: TLS) -> dict[str, Any]:
    mode = tls.mode_for(node.host)
    wanted = secret.fields.get("ssl")
    # Redis negotiates nothing.  The secret may ask for more than the configuration does, never for less: who
    # can write it must not be able to have the login sent in clear.
    if mode in {"disable", "allow", "prefer"} and wanted not in (True, "true"):
        return {}
    return {
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": mode != "verify-ca",
        "ssl_ca_certs": tls.ca_file,
    }


def _is_there(node: Node) -> bool:
    try:
        socket.create_connection((node.host, node.port), timeout=_KNOCK_SECONDS).close()
    except OSError:
        return False
    return True


def _judge(error: BaseException, node: Node, secret: Secret, tls: TLS, but: BaseException | None) -> Probe:
    """Return what it means that redis-py raised *error*; its text stays here; *but* as `find`."""
    finding = find(error, but=but)
    words = told(finding, tls.ca_file, node.host) or type(error).__name__
    # A service looks for another password then; of a rotation it is no answer about this one.
    reason = Reason.NO_PASSWORD if finding == ANYBODY else finding.reason
    return Probe(reason, f"user {user_of(secret)!r} at {node}: {words}", cause=error)
