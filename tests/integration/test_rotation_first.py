"""Does a secret of AWS's page that has no password yet come to one, in four steps?"""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from ledger_db.answers.reason import Reason
from ledger_db.rotation.failures import SecretUnusable
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.runner import Rules, Runner
from ledger_db.sandbox import Sandbox
from tests.support.elasticache_places import Located
from tests.support.redis_world import RedisWorld
from tests.support.rotations import Rotations, new_client, new_token

ARNS = {
    "elasticache": "arn:aws:elasticache:eu-west-1:123456789012:user:app-user-id",
    "memorydb": "arn:aws:memorydb:eu-west-1:123456789012:user/{user}",
}


@pytest.fixture(params=ARNS)
def first(request: pytest.FixtureRequest, world: RedisWorld) -> Iterator[tuple[Rotations, Runner]]:
    """A user of AWS's, its secret with the least in it, and who rotates it as the function would."""
    aws = Located(world.admin, world.user, "set-when-the-user-was-made", looks_to_settle=0)
    with closing(new_client(world.box)) as client:
        rotations = Rotations(world.box, client, None, f"test/{new_token()}")
        fields = {"username": world.user, "user_arn": ARNS[request.param].format(user=world.user)}
        client.create_secret(Name=rotations.secret_id, SecretString=json.dumps(fields))
        clients: dict[str, Any] = {"secretsmanager": client, request.param: aws}
        yield rotations, Runner(Rules(allowed=("*",)), lambda service: clients[service])


def within() -> Deadline:
    """Return a deadline."""
    return Deadline.after(20.0)


def test_a_first_rotation_gives_a_password(world: RedisWorld, first: tuple[Rotations, Runner]) -> None:
    """And the one after it keeps that, as every rotation does."""
    rotations, runner = first
    before = runner.examine(rotations.secret_id, within())
    rotations.run(runner=runner)
    one = rotations.value()["password"]
    rotations.run(runner=runner)
    two = rotations.value()["password"]

    assert before.probes["AWSCURRENT"].reason is Reason.REFUSED
    assert (world.logs_in(one), world.logs_in(two), one == two) == (True, True, False)
    assert list(rotations.value()) == ["username", "user_arn", "password"]


@pytest.mark.parametrize("steps", [("createSecret",), ("createSecret", "setSecret")])
def test_a_first_rotation_that_stopped_half_way_comes_to_an_end(
    world: RedisWorld, first: tuple[Rotations, Runner], steps: tuple[str, ...]
) -> None:
    """Given up where the server does not have the password, finished where it has; the next one works."""
    rotations, runner = first
    token = new_token()
    for step in steps:
        rotations.step(step, token, runner=runner)
    repaired = runner.repair(rotations.secret_id, within()).value
    assert "AWSPENDING" not in rotations.labels()
    rotations.run(runner=runner)

    assert repaired == ("finished" if "setSecret" in steps else "abandoned")
    assert world.logs_in(rotations.value()["password"])


def test_a_first_password_goes_to_the_user_of_the_secret(first: tuple[Rotations, Runner]) -> None:
    """Who may write AWSPENDING cannot have another user changed, though nobody has to log in before."""
    rotations, runner = first
    token = new_token()
    value = rotations.value()
    forged = {**value, "user_arn": f"{value['user_arn']}-else", "password": "of-the-one-who-wrote-it"}
    rotations.client.put_secret_value(
        SecretId=rotations.secret_id,
        ClientRequestToken=token,
        SecretString=json.dumps(forged),
        VersionStages=["AWSPENDING"],
    )
    with pytest.raises(SecretUnusable, match="user_arn"):
        rotations.step("setSecret", token, runner=runner)


def test_a_server_of_ones_own_is_given_no_first_password(box: Sandbox) -> None:
    """There somebody has to log in, so a password that is missing is a mistake."""
    with closing(new_client(box)) as client:
        rotations = Rotations(box, client, None, f"test/{new_token()}")
        fields = {"engine": "redis", "host": box.redis.host, "port": box.redis.port, "username": "app"}
        client.create_secret(Name=rotations.secret_id, SecretString=json.dumps(fields))
        with pytest.raises(SecretUnusable, match="password"):
            rotations.step("createSecret", new_token())
