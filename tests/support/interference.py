"""What may happen to a rotation, whichever server its secret is for?"""

from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from ledger_db.rotation.failures import StepFailed
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.steps import STEPS
from ledger_db.sandbox import Sandbox
from tests.support.crashes import Boundaries, WatchedClient
from tests.support.rotations import Rotations, new_token

EXAMPLES = 12
STEPS_EACH = 25


class Died(BaseException):
    """The process ended here."""


def die() -> None:
    """End."""
    raise Died


class Server(Protocol):
    """What can be killed, and started again."""

    def kill(self) -> None:
        """End it without a word."""

    def start(self) -> None:
        """Have it back."""


class Interference(RuleBasedStateMachine):
    """
    Steps, restarts and interference, in any order; who derives from it adds faults, and what must hold.

    Attributes:
        server: Whose passwords are rotated.

        rotations: Of one secret, and of nobody else.

        client: For what a function does, which may have less patience than a person.
    """

    box: Sandbox
    server: Server
    rotations: Rotations
    client: Any

    def __init__(self) -> None:
        super().__init__()
        self.tokens = [new_token()]
        self.is_up = True

    @rule(step=st.sampled_from(STEPS), back=st.integers(0, 2))
    def do_step(self, step: str, back: int) -> None:
        """Secrets Manager calls a step, of this rotation or of one long ago."""
        self.step(step, self.tokens[max(0, len(self.tokens) - 1 - back)])

    @rule()
    def retry_all(self) -> None:
        """Secrets Manager tries the whole rotation again with the same token."""
        with suppress(StepFailed):
            self.rotations.run(self.tokens[-1], runner=self.rotations.runner(self.client))

    @rule()
    def start_another(self) -> None:
        """A new rotation is asked for."""
        self.tokens.append(new_token())

    @precondition(lambda self: self.is_up)
    @rule()
    def kill_server(self) -> None:
        """The server crashes, and knows only what was saved."""
        self.server.kill()
        self.is_up = False

    @precondition(lambda self: not self.is_up)
    @rule()
    def start_server(self) -> None:
        """It is back."""
        self.server.start()
        self.is_up = True

    @rule()
    def take_pending(self) -> None:
        """Somebody removes AWSPENDING by hand."""
        pending = self.rotations.labels().get("AWSPENDING")
        if pending is not None:
            self.rotations.client.update_secret_version_stage(
                SecretId=self.rotations.secret_id, VersionStage="AWSPENDING", RemoveFromVersionId=pending
            )

    @rule()
    def repair(self) -> None:
        """Somebody repairs while all this goes on."""
        with suppress(StepFailed):
            self.rotations.runner(self.client).repair(self.rotations.secret_id, Deadline.after(20.0))

    def step(self, step: str, token: str) -> None:
        """Do a step, which may fail."""
        with suppress(StepFailed):
            self.rotations.step(step, token, runner=self.rotations.runner(self.client))

    def crash(self, step: str, boundaries: Boundaries, watched: AbstractContextManager[None]) -> None:
        """Do a step in which the process dies at some call."""
        runner = self.rotations.runner(WatchedClient(self.client, boundaries))
        with suppress(StepFailed, Died), watched:
            self.rotations.step(step, self.tokens[-1], runner=runner)


def interfere(machine: type[Interference]) -> None:
    """Try sequences of it, each with a new secret."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS_EACH,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
