"""Several people and functions rotate and repair one secret at once: does a label lead to its password?"""

import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import pytest

from ledger_db.rotation.failures import StepFailed
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.request import Request
from ledger_db.rotation.steps import STEPS
from ledger_db.sandbox import Sandbox
from tests.support.redis_world import RedisWorld
from tests.support.rotations import Rotations, new_client, new_token, own_secret

ROUNDS = 4
EACH = 3


def rotate_often(rotations: Rotations) -> None:
    """Rotate, and repair what is in the way, as somebody who knows of nobody else."""
    with closing(new_client(rotations.box)) as client:
        runner = rotations.runner(client)
        for _ in range(EACH):
            token = new_token()
            try:
                for step in STEPS:
                    runner.step(Request(step, rotations.secret_id, token), Deadline.after(20.0))
            except StepFailed:
                with suppress(StepFailed):
                    runner.repair(rotations.secret_id, Deadline.after(20.0))


def rotate_together(rotations: Rotations, accepts: Callable[[dict[str, Any]], bool]) -> None:
    """Have three do so at once, and look at what they leave, a few times."""
    for _ in range(ROUNDS):
        threads = [threading.Thread(target=rotate_often, args=(rotations,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert any(accepts(rotations.value(label)) for label in rotations.labels())
        rotations.repair()
        assert accepts(rotations.value())
        assert rotations.labels().keys() <= {"AWSCURRENT", "AWSPREVIOUS"}
        listed = rotations.client.list_secret_version_ids(
            SecretId=rotations.secret_id, IncludeDeprecated=True
        )
        for version in listed["Versions"]:
            if not version.get("VersionStages"):
                assert not accepts(rotations.value_of(version["VersionId"]))


@pytest.mark.timeout(180)  # some forty rotations at once
@pytest.mark.parametrize("strategy", ["postgres-single", "postgres-alternating"])
def test_several_that_rotate_postgresql_lose_no_password(environment: Sandbox, strategy: str) -> None:
    """Also with one role and no administrator, where nobody could set it right."""
    fields = {"masterarn": None} if strategy == "postgres-single" else {}
    with own_secret(environment, strategy, **fields) as rotations:
        rotate_together(rotations, rotations.accepts)


@pytest.mark.timeout(180)  # as above
def test_several_that_rotate_redis_lose_no_password(world: RedisWorld) -> None:
    """Nor does one stay of a rotation that was overtaken."""
    with closing(new_client(world.box)) as client:
        rotations = Rotations(world.box, client, "redis-acl", world.secret_id)
        rotate_together(rotations, lambda value: world.logs_in(value["password"]))
        assert len(world.known()) <= 2
