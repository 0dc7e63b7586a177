"""Can any sequence of steps, crashes, faults and interference lock a Redis application out?"""

import json
from contextlib import ExitStack, closing, suppress

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ledger_db.rotation.failures import StepFailed
from ledger_db.rotation.protocol import Deadline, ServerProblem
from ledger_db.rotation.redis import RedisAclRotator
from ledger_db.rotation.steps import STEPS
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.faults import Fault, dropped, lost_answer, throttled, unavailable
from tests.support.crashes import Boundaries, WatchedClient, watched_redis
from tests.support.redis_world import redis_world
from tests.support.rotations import Rotations, new_client, new_token

EXAMPLES = 12
STEPS_EACH = 25
FAULTS = [
    dropped(),
    lost_answer("PutSecretValue"),
    lost_answer("UpdateSecretVersionStage"),
    throttled(),
    unavailable(),
]


class Died(BaseException):
    """The process ended here."""


def die() -> None:
    """End."""
    raise Died


class Interference(RuleBasedStateMachine):
    """
    Everything that may happen to a rotation, in any order.

    What must hold whenever the server runs: AWSCURRENT logs in, and no more than two passwords do.  And in
    the end ``repair`` makes everything good.
    """

    box: Sandbox

    def __init__(self) -> None:
        super().__init__()
        self.open = ExitStack()
        self.world = self.open.enter_context(redis_world(self.box))
        self.client = self.open.enter_context(closing(new_client(self.box)))
        self.rotations = Rotations(
            self.box, self.client, "redis-acl", self.world.secret_id, visible_seconds=0.0
        )
        self.tokens = [new_token()]
        self.is_up = True

    @rule(step=st.sampled_from(STEPS), back=st.integers(0, 2))
    def do_step(self, step: str, back: int) -> None:
        """Secrets Manager calls a step, of this rotation or of one before it."""
        with suppress(StepFailed):
            self.rotations.step(step, self.tokens[max(0, len(self.tokens) - 1 - back)])

    @rule(step=st.sampled_from(STEPS), faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=3))
    def do_step_with_faults(self, step: str, faults: list[Fault]) -> None:
        """Secrets Manager calls a step, and does not answer as it should."""
        self.box.secrets_manager.inject(*faults)
        with suppress(StepFailed):
            self.rotations.step(step, self.tokens[-1])
        self.box.secrets_manager.clear_faults()

    @rule(step=st.sampled_from(STEPS), fatal=st.integers(1, 40))
    def crash_in_step(self, step: str, fatal: int) -> None:
        """The process dies at some call."""
        boundaries = Boundaries(fatal, die=die)
        runner = self.rotations.runner(WatchedClient(self.client, boundaries))
        with suppress(StepFailed, Died), watched_redis(boundaries):
            self.rotations.step(step, self.tokens[-1], runner=runner)

    @rule()
    def retry_all(self) -> None:
        """Secrets Manager tries the whole rotation again with the same token."""
        with suppress(StepFailed):
            self.rotations.run(self.tokens[-1])

    @rule()
    def start_another(self) -> None:
        """A new rotation is asked for."""
        self.tokens.append(new_token())

    @precondition(lambda self: self.is_up)
    @rule()
    def kill_server(self) -> None:
        """The server crashes, and knows only what was saved."""
        self.box.redis.kill()
        self.is_up = False

    @precondition(lambda self: not self.is_up)
    @rule()
    def start_server(self) -> None:
        """It is back."""
        self.box.redis.start()
        self.is_up = True

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

    @rule()
    def take_pending(self) -> None:
        """Somebody removes AWSPENDING by hand."""
        pending = self.rotations.labels().get("AWSPENDING")
        if pending is not None:
            self.client.update_secret_version_stage(
                SecretId=self.rotations.secret_id, VersionStage="AWSPENDING", RemoveFromVersionId=pending
            )

    @precondition(lambda self: self.is_up)
    @rule()
    def retire(self) -> None:
        """Somebody ends the overlap."""
        with suppress(ServerProblem):
            RedisAclRotator(self.world.tools()).retire(self.world.secret(), Deadline.after(20))

    @rule()
    def repair(self) -> None:
        """Somebody repairs while all this goes on."""
        with suppress(StepFailed):
            self.rotations.repair()

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

    class Machine(Interference):
        box = own_box

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS_EACH,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
