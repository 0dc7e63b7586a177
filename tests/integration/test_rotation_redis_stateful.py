"""Can any sequence of steps, crashes, faults and interference lock a Redis application out?"""

import json
from contextlib import ExitStack, closing, suppress

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from ledger_db.rotation.protocol import Deadline, ServerProblem
from ledger_db.rotation.redis import RedisAclRotator
from ledger_db.rotation.steps import STEPS
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.faults import Fault, dropped, lost_answer, throttled, unavailable
from tests.support.crashes import Boundaries, watched_redis
from tests.support.interference import Interference, die, interfere
from tests.support.redis_world import redis_world
from tests.support.rotations import Rotations, new_client, new_token

FAULTS = [
    dropped(),
    lost_answer("PutSecretValue"),
    lost_answer("UpdateSecretVersionStage"),
    throttled(),
    unavailable(),
]


class InterferenceOfRedis(Interference):
    """
    What must hold whenever the server runs.

    AWSCURRENT logs in, and no more than two passwords do.  And in the end ``repair`` makes everything good.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open = ExitStack()
        self.world = self.open.enter_context(redis_world(self.box))
        self.client = self.open.enter_context(closing(new_client(self.box)))
        self.rotations = Rotations(
            self.box, self.client, "redis-acl", self.world.secret_id, visible_seconds=0.0
        )
        self.server = self.box.redis

    @rule(step=st.sampled_from(STEPS), faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=3))
    def do_step_with_faults(self, step: str, faults: list[Fault]) -> None:
        """Secrets Manager calls a step, and does not answer as it should."""
        self.box.secrets_manager.inject(*faults)
        self.step(step, self.tokens[-1])
        self.box.secrets_manager.clear_faults()

    @rule(step=st.sampled_from(STEPS), fatal=st.integers(1, 40))
    def crash_in_step(self, step: str, fatal: int) -> None:
        """The process dies at some call."""
        boundaries = Boundaries(fatal, die=die)
        self.crash(step, boundaries, watched_redis(boundaries))

    @rule()
    def write_pending(self) -> None:
        """Somebody else puts a version with AWSPENDING, for another server."""
        value = {**self.rotations.value(), "host": "evil.example", "password": "of-somebody-else"}
        self.client.put_secret_value(
            SecretId=self.rotations.secret_id,
            ClientRequestToken=new_token(),
            SecretString=json.dumps(value),
            VersionStages=["AWSPENDING"],
        )

    @precondition(lambda self: self.is_up)
    @rule()
    def retire(self) -> None:
        """Somebody ends the overlap."""
        with suppress(ServerProblem):
            RedisAclRotator(self.world.tools()).retire(self.world.secret(), Deadline.after(20))

    @invariant()
    def everybody_logs_in(self) -> None:
        """The application's next login works, whatever happened."""
        if self.is_up:
            assert self.world.logs_in(self.world.fields()["password"])
            assert len(self.world.known()) <= 2

    def teardown(self) -> None:
        """With the faults gone, one repair makes everything good, and the next rotation works."""
        with self.open:
            self.box.secrets_manager.clear_faults()
            self.box.redis.start()
            self.rotations.repair()
            assert "AWSPENDING" not in self.rotations.labels()
            token = self.rotations.run()

            assert self.rotations.labels().keys() == {"AWSCURRENT", "AWSPREVIOUS"}
            assert self.rotations.labels()["AWSCURRENT"] == token
            assert self.world.logs_in(self.world.fields()["password"])


@pytest.mark.timeout(600)  # some hundred steps, with restarts of a server
def test_nothing_locks_an_application_out(own_box: Sandbox) -> None:
    """Whatever happens in whatever order: AWSCURRENT logs in, and in the end everything is good."""

    class Machine(InterferenceOfRedis):
        box = own_box

    interfere(Machine)
