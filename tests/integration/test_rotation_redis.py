"""Does the rotation of a Redis user keep what it promises, on a real server?"""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.rotation import redis as redis_rotation
from ledger_db.rotation.failures import ActionForbidden, PasswordRefused
from ledger_db.rotation.protocol import Deadline, ServerProblem, Tools
from ledger_db.rotation.redis import RedisAclRotator, hashed
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.ports import free_port
from ledger_db.sandbox.programs import find_redis
from tests.support.redis_world import RIGHTS, RedisWorld, acl, redis_world
from tests.support.rotations import Rotations, new_client, new_token
from tests.support.waiting import eventually


@pytest.fixture
def rotator(world: RedisWorld) -> RedisAclRotator:
    """The strategy by itself."""
    return RedisAclRotator(world.tools())


def within() -> Deadline:
    """Return a deadline that is far enough away."""
    return Deadline.after(20)


def test_both_passwords_are_valid_in_the_overlap(world: RedisWorld, rotations: Rotations) -> None:
    """Services change over when they like; the one before the last is gone with the next rotation."""
    first = world.fields()["password"]
    rotations.run()
    second = world.fields()["password"]
    assert world.logs_in(first)
    assert world.logs_in(second)
    rotations.run()
    third = world.fields()["password"]

    assert (world.logs_in(first), world.logs_in(second), world.logs_in(third)) == (False, True, True)
    assert len({first, second, third}) == 3


def test_the_overlap_can_be_ended(world: RedisWorld, rotations: Rotations, rotator: RedisAclRotator) -> None:
    """After `retire` only AWSCURRENT logs in."""
    old = world.fields()["password"]
    rotations.run()
    rotator.retire(world.secret(), within())

    assert not world.logs_in(old)
    assert world.known() == {hashed(world.fields()["password"])[1:]}


def test_the_overlap_is_not_ended_by_a_password_that_does_not_work(
    world: RedisWorld, rotator: RedisAclRotator
) -> None:
    """Retiring all but a dead password would lock everybody out."""
    before = world.known()
    with pytest.raises(ServerProblem) as refused:
        rotator.retire(world.secret(password="wrong-password-of-nobody"), within())

    assert refused.value.probe.reason is Reason.REFUSED
    assert world.known() == before


def test_only_hashes_are_sent(world: RedisWorld, rotations: Rotations) -> None:
    """What the server keeps is the SHA-256 of what the secret holds."""
    rotations.run()

    assert world.known() == {
        hashed(world.fields(stage)["password"])[1:] for stage in ("AWSCURRENT", "AWSPREVIOUS")
    }


def test_rights_stay_as_they_are(world: RedisWorld, rotations: Rotations) -> None:
    """A rotation changes passwords and nothing else."""

    def rights() -> dict[str, Any]:
        with closing(world.admin()) as admin:
            user: Any = admin.acl_getuser(world.user)
        return {name: value for name, value in user.items() if name != "passwords"}

    before = rights()
    rotations.run()

    assert rights() == before


def test_every_step_may_be_repeated(world: RedisWorld, rotations: Rotations) -> None:
    """Secrets Manager calls again what it is not sure of."""
    token = new_token()
    for step in ("createSecret", "createSecret", "setSecret", "setSecret", "testSecret", "testSecret"):
        rotations.step(step, token)
    known = world.known()
    for step in ("finishSecret", "finishSecret", "setSecret", "testSecret"):
        rotations.step(step, token)

    assert world.known() == known
    assert rotations.labels()["AWSCURRENT"] == token
    assert world.logs_in(world.fields()["password"])


def test_a_rotation_outlasts_a_restart_of_the_server() -> None:
    """ACL SAVE is part of it, also if the process ended between the change and the saving."""
    with Sandbox() as box, redis_world(box) as world, closing(new_client(box)) as client:
        rotations = Rotations(box, client, "redis-acl", world.secret_id)
        token = new_token()
        rotations.step("createSecret", token)
        # As a setSecret leaves it that is killed before ACL SAVE.
        pending, current = world.fields("AWSPENDING"), world.fields()
        with closing(world.admin()) as admin:
            acl(
                admin, "SETUSER", world.user, "resetpass",
                hashed(current["password"]), hashed(pending["password"]),
            )  # fmt: skip
        rotations.run(token)
        box.redis.kill()
        box.redis.start()

        assert world.logs_in(world.fields()["password"])


@contextmanager
def server_without_acl_file(password: str) -> Iterator[int]:
    """Run a server whose users are in its memory only, and return its port."""
    port = free_port()
    configuration = f"port {port}\nbind 127.0.0.1\nsave ''\nrequirepass {password}\n"
    with subprocess.Popen(
        [find_redis(), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(configuration.encode())
            process.stdin.close()
            yield port
        finally:
            process.kill()


def test_a_server_without_an_acl_file_is_rotated_too(box: Sandbox) -> None:
    """There is nothing to save, which is said in a log line and is no failure."""
    admin_password = "of-the-administrator"
    with server_without_acl_file(admin_password) as port:
        place = {"engine": "redis", "host": "127.0.0.1", "port": port}
        admin = Secret("admin", "v", {**place, "password": admin_password})
        tools = Tools(read_secret=lambda _: admin, client=lambda _: None)
        rotator = RedisAclRotator(tools)
        eventually(lambda: rotator.probe(admin, within()).ok, "the server answers")
        with closing(box.redis.connect(port=port, username="default", password=admin_password)) as client:
            acl(client, "SETUSER", "app", "on", hashed("first-password"), *RIGHTS.split())
        own = {**place, "username": "app", "masterarn": "admin"}
        current = Secret("app", "v1", {**own, "password": "first-password"})
        pending = Secret("app", "v2", {**own, **rotator.next_secret(current)})
        rotator.apply(current, pending, within())
        rotator.verify(pending, within())

        assert rotator.probe(current, within()).ok
        assert rotator.probe(pending, within()).ok


def test_the_rights_that_are_documented_are_enough(world: RedisWorld, rotator: RedisAclRotator) -> None:
    """An administrator for rotations may do nothing else."""
    rights = "+acl|getuser +acl|setuser +acl|save +multi +exec"
    assert rights in (redis_rotation.__doc__ or "")
    with redis_world(world.box, rights=rights) as administrator:
        with closing(world.box.client()) as client:
            client.put_secret_value(
                SecretId=world.admin_secret_id, SecretString=json.dumps(administrator.fields())
            )
        current = world.secret()
        pending = world.secret("next", **rotator.next_secret(current))
        rotator.apply(current, pending, within())
        rotator.verify(pending, within())

        assert rotator.probe(current, within()).ok


def test_every_node_is_changed_and_tried(world: RedisWorld, rotator: RedisAclRotator) -> None:
    """Users of Redis are each node's own, no replication carries them."""
    with Sandbox() as second:
        nodes = [f"{box.redis.host}:{box.redis.port}" for box in (world.box, second)]
        fields = world.fields()
        with closing(second.redis.connect()) as admin:
            acl(admin, "SETUSER", world.user, "on", hashed(fields["password"]), *RIGHTS.split())
            # The administrator of both nodes has one password.
            acl(admin, "SETUSER", "admin", hashed(world.box.redis.admin_password))
        admin_fields = {**json_of(world, world.admin_secret_id), "nodes": nodes}
        with closing(world.box.client()) as client:
            client.put_secret_value(SecretId=world.admin_secret_id, SecretString=json.dumps(admin_fields))
        current = world.secret(nodes=nodes)
        pending = world.secret("next", nodes=nodes, **rotator.next_secret(current))

        assert rotator.probe(pending, within()).reason is Reason.REFUSED
        rotator.apply(current, pending, within())
        rotator.verify(pending, within())
        for box in (world.box, second):
            client_there = box.redis.connect(username=world.user, password=str(pending.password))
            assert client_there.ping()
            client_there.close()
        with closing(second.redis.connect()) as admin:
            acl(admin, "SETUSER", world.user, "resetpass", hashed(fields["password"]))
        with pytest.raises(ServerProblem, match=str(second.redis.port)):
            rotator.verify(pending, within())


def json_of(world: RedisWorld, secret_id: str) -> dict[str, Any]:
    """Return what a secret holds."""
    with closing(world.box.client()) as client:
        answer = client.get_secret_value(SecretId=secret_id)
    value: dict[str, Any] = json.loads(answer["SecretString"])
    return value


def test_a_user_may_rotate_itself(box: Sandbox) -> None:
    """Where the user has the right to ACL commands no administrator's secret is needed."""
    with (
        redis_world(box, rights="~* &* +@all") as world,
        closing(new_client(box)) as client,
    ):
        rotations = Rotations(box, client, "redis-acl", world.secret_id)
        rotations.put(lambda value: {k: v for k, v in value.items() if k != "masterarn"})
        rotations.run()

        assert world.logs_in(world.fields()["password"])
        assert len(world.known()) == 2


def test_a_user_without_the_right_is_told_so(world: RedisWorld, rotations: Rotations) -> None:
    """Nothing is changed, and the message says what to do."""
    before = world.known()
    rotations.put(lambda value: {k: v for k, v in value.items() if k != "masterarn"})
    with pytest.raises(ActionForbidden, match="masterarn"):
        rotations.run()

    assert world.known() == before
    assert world.logs_in(world.fields()["password"])


@pytest.mark.parametrize("field", ["host", "port", "username", "nodes", "masterarn"])
def test_a_pending_version_for_somebody_else_is_refused(
    world: RedisWorld, rotator: RedisAclRotator, field: str
) -> None:
    """Who may write AWSPENDING cannot send the administrator to another server or change another user."""
    with pytest.raises(SecretProblem, match=field):
        rotator.check(world.secret(), world.secret(**{field: "elsewhere"}))


def test_the_administrator_goes_nowhere_else(world: RedisWorld, rotator: RedisAclRotator) -> None:
    """A node that its own secret does not name never sees the administrator's password."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.settimeout(0.2)
        current = world.secret(nodes=[f"127.0.0.1:{stranger.getsockname()[1]}"])
        with pytest.raises(SecretProblem, match="administrator"):
            rotator.apply(current, current, within())
        with pytest.raises(TimeoutError):
            stranger.accept()


def test_a_user_that_does_not_exist_is_not_made(world: RedisWorld, rotator: RedisAclRotator) -> None:
    """SETUSER would make one without rights, which helps nobody."""
    stranger = world.secret(username="nobody-of-that-name")
    with pytest.raises(ServerProblem, match="does not exist"):
        rotator.apply(stranger, stranger, within())
    with closing(world.admin()) as admin:
        assert "nobody-of-that-name" not in admin.acl_users()


def test_a_user_that_is_switched_off_is_told_from_a_wrong_password(
    world: RedisWorld, rotator: RedisAclRotator
) -> None:
    """The server says the same about both; an administrator sees the difference."""
    with closing(world.admin()) as admin:
        acl(admin, "SETUSER", world.user, "off")
    refused = rotator.probe(world.secret(), within())
    explained = rotator.explain(world.secret(), refused, within())

    assert refused.reason is explained.reason is Reason.REFUSED
    assert "switched off" in explained.what


def test_repair_gives_the_server_the_password_of_the_secret_again(
    world: RedisWorld, rotations: Rotations
) -> None:
    """Somebody changed the password on the server: the administrator puts it right."""
    with closing(world.admin()) as admin:
        acl(admin, "SETUSER", world.user, "resetpass", hashed("somebody-else-was-here"))
    with pytest.raises(PasswordRefused):
        rotations.run()
    repaired = rotations.repair()

    assert repaired in {"restored", "abandoned"}
    assert world.logs_in(world.fields()["password"])


def test_drift_is_found(world: RedisWorld, rotator: RedisAclRotator) -> None:
    """A user that needs no password, is off, or has too many of them, is worth a sentence."""
    assert rotator.drift(world.secret(), within()) == ()
    with closing(world.admin()) as admin:
        acl(admin, "SETUSER", world.user, *(hashed(f"one-too-many-{n}") for n in range(3)), "off")
        several = rotator.drift(world.secret(), within())
        acl(admin, "SETUSER", world.user, "nopass")
        none = rotator.drift(world.secret(), within())

    assert any("4 passwords" in sentence for sentence in several)
    assert any("switched off" in sentence for sentence in several)
    assert any("no password" in sentence for sentence in none)
