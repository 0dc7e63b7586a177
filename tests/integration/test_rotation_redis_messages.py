"""Does a rotation of a Redis user say what is wrong, in time, and without a fallback to less?"""

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret
from ledger_db.answers.tls import TLS
from ledger_db.rotation.failures import (
    ConnectionsExhausted,
    HostSilent,
    HostUnknown,
    PasswordRefused,
    PortClosed,
    SecretUnusable,
    StepFailed,
    TLSMissing,
)
from ledger_db.rotation.protocol import Deadline, Tools
from ledger_db.rotation.redis import RedisAclRotator
from ledger_db.sandbox import Sandbox
from tests.support.redis_world import RedisWorld, redis_world
from tests.support.rotations import Rotations, new_client, new_token


@contextmanager
def closed_port() -> Iterator[int]:
    """Return a port on which nobody listens."""
    with socket.socket() as reserved:
        # Bound and not listening: nobody else gets it either.
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@contextmanager
def silent_port() -> Iterator[int]:
    """Return a port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield silent.getsockname()[1]


@contextmanager
def port_of_too_many(box: Sandbox) -> Iterator[int]:
    """Return the port of the sandbox's server, which takes no more connections meanwhile."""
    with closing(box.redis.connect()) as admin:
        before = str(admin.config_get("maxclients")["maxclients"])
        admin.config_set("maxclients", 1)
        yield box.redis.port
        admin.config_set("maxclients", before)


def drop_pending(rotations: Rotations) -> None:
    """Take AWSPENDING away, so that the next rotation may begin."""
    version = rotations.labels().get("AWSPENDING")
    if version is not None:
        rotations.client.update_secret_version_stage(
            SecretId=rotations.secret_id, VersionStage="AWSPENDING", RemoveFromVersionId=version
        )


def failing(rotations: Rotations, expected: type[StepFailed], *, seconds: float = 20, **changes: Any) -> str:
    """Change the secret, see that createSecret or setSecret fails as *expected*, and return the message."""
    rotations.put(lambda value: {**value, **changes})
    token = new_token()
    with pytest.raises(expected) as failed:
        for step in ("createSecret", "setSecret"):
            rotations.step(step, token, seconds=seconds)
    message = str(failed.value)
    assert rotations.value()["password"] not in message
    assert rotations.secret_id in message
    drop_pending(rotations)
    return message


def test_each_cause_has_its_own_message(world: RedisWorld, rotations: Rotations) -> None:
    """Nobody has to guess between a closed port, an unknown host, silence, a wrong password and the rest."""
    host, port = world.box.redis.host, world.box.redis.port
    right: dict[str, Any] = {"host": host, "port": port}
    messages = []
    with closed_port() as closed:
        messages.append(failing(rotations, PortClosed, port=closed))
    with silent_port() as silent:
        messages.append(failing(rotations, HostSilent, port=silent, seconds=2))
    messages.append(failing(rotations, HostUnknown, host="no-such-host.invalid"))
    messages.append(failing(rotations, TLSMissing, **right, ssl=True))
    messages.append(failing(rotations, SecretUnusable, ssl=None, port="many"))
    messages.append(failing(rotations, SecretUnusable, **right, nodes="one"))
    with port_of_too_many(world.box):
        messages.append(failing(rotations, ConnectionsExhausted, nodes=None))
    messages.append(failing(rotations, PasswordRefused, password="wrong-password"))

    assert len(set(messages)) == len(messages)


def test_silence_ends_within_the_deadline(world: RedisWorld, rotations: Rotations) -> None:
    """A Lambda that is ended from outside leaves no message, so every wait ends before that."""
    with silent_port() as silent:
        rotations.put(lambda value: {**value, "port": silent})
        token = new_token()
        rotations.step("createSecret", token)
        began = time.monotonic()
        with pytest.raises(HostSilent):
            rotations.step("setSecret", token, seconds=1.5)

    assert time.monotonic() - began < 20


@pytest.mark.parametrize("mode", ["plain client", "wrong certificate"])
def test_no_login_is_sent_where_tls_fails(mode: str) -> None:
    """There is no fallback: a server that insists on TLS, or cannot be trusted, gets no password."""
    with Sandbox(tls=True) as box, closing(new_client(box)) as client:
        fields = {"engine": "redis", "host": box.redis.host, "port": box.redis.port, "username": "ledger_app"}
        secret = Secret("some/secret", "v", {**fields, "password": "canary"})
        tls = TLS(mode="disable") if mode == "plain client" else TLS(mode="verify-full")
        tools = Tools(read_secret=lambda _: secret, client=lambda _: client, tls=tls)
        found = RedisAclRotator(tools).probe(secret, Deadline.after(20))

    expected = Reason.NOT_READY if mode == "plain client" else Reason.WRONG_CERTIFICATE
    assert found.reason is expected, found
    assert "canary" not in found.what


def test_it_rotates_over_tls() -> None:
    """With the right authority the whole rotation runs over TLS, the certificate's name checked."""
    with Sandbox(tls=True) as box, redis_world(box) as world, closing(new_client(box)) as client:
        rotations = Rotations(box, client, "redis-acl", world.secret_id)
        tls = TLS(mode="verify-full", ca_file=str(box.redis.ca_file))
        rotations.run(runner=rotations.runner(tls=tls))

        assert world.logs_in(world.fields()["password"])
