"""Do the labels stay where they belong, whatever is done to a secret?"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ledger_db.stand_in import values as secret_operations
from ledger_db.stand_in.model import ServiceError, Version
from ledger_db.stand_in.rotations import RetrySchedule, Rotations
from ledger_db.stand_in.store import SecretStore

NAME = "s"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:rotate"
LABELS = ("AWSCURRENT", "AWSPENDING", "AWSPREVIOUS", "blue")
PATIENCE_SECONDS = 10.0

labels = st.sampled_from(LABELS)
several = st.lists(labels, max_size=3, unique=True)


@contextmanager
def may_be_refused(code: str) -> Iterator[None]:
    """Whether the store refuses or not is its business; but then with this error."""
    try:
        yield
    except ServiceError as error:
        if error.code != code:
            raise


class AnySequence(RuleBasedStateMachine):
    """Puts, moves and rotations in any order, with any arguments, those that are refused included."""

    def __init__(self) -> None:
        super().__init__()
        self.store = SecretStore()
        self.rotations = Rotations(
            self.store, {FUNCTION: self.take_step}, schedule=RetrySchedule(attempts=1, first_wait_seconds=0.0)
        )
        self.tokens: list[str] = []
        self.fails_at = ""
        secret_operations.create_secret(self.store, {"Name": NAME})

    def take_step(self, event: dict[str, str]) -> None:
        """What a rotation function does to the secret, if it gets that far."""
        if event["Step"] == self.fails_at:
            raise RuntimeError
        token = event["ClientRequestToken"]
        if event["Step"] == "createSecret":
            self.put_under(token, ["AWSPENDING"], "rotated")
        if event["Step"] == "finishSecret":
            self.attempt_move("AWSCURRENT", to=token, taken_from=self.holder("AWSCURRENT"))

    def versions(self) -> list[Version]:
        """All versions of the secret."""
        return list(self.store.find(NAME).versions.values())

    def holder(self, label: str) -> str | None:
        """The id of the version that carries the label."""
        return next((version.id for version in self.versions() if label in version.labels), None)

    def put_under(self, token: str, wanted: list[str], value: str) -> None:
        """Put a value, refused or not."""
        request = {
            "SecretId": NAME,
            "SecretString": value,
            "ClientRequestToken": token,
            "VersionStages": wanted,
        }
        with may_be_refused("ResourceExistsException"):
            secret_operations.put_secret_value(self.store, request)

    def attempt_move(self, label: str, *, to: str | None, taken_from: str | None) -> None:
        """Move a label, refused or not."""
        request: dict[str, Any] = {"SecretId": NAME, "VersionStage": label}
        request |= {"MoveToVersionId": to} if to else {}
        request |= {"RemoveFromVersionId": taken_from} if taken_from else {}
        with may_be_refused("InvalidParameterException"):
            secret_operations.update_secret_version_stage(self.store, request)

    @rule(wanted=several, value=st.sampled_from(["a", "b"]))
    def put(self, wanted: list[str], value: str) -> None:
        """A new version."""
        self.tokens.append(str(uuid.uuid4()))
        self.put_under(self.tokens[-1], wanted, value)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), wanted=several, value=st.sampled_from(["a", "b"]))
    def put_again(self, data: st.DataObject, wanted: list[str], value: str) -> None:
        """The same token, with the same value or another."""
        self.put_under(data.draw(st.sampled_from(self.tokens)), wanted, value)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), label=labels)
    def move(self, data: st.DataObject, label: str) -> None:
        """A label from anywhere to anywhere."""
        anywhere = st.sampled_from([None, *self.tokens])
        self.attempt_move(label, to=data.draw(anywhere), taken_from=data.draw(anywhere))

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), label=labels)
    def move_properly(self, data: st.DataObject, label: str) -> None:
        """A label from where it is to anywhere."""
        self.attempt_move(label, to=data.draw(st.sampled_from(self.tokens)), taken_from=self.holder(label))

    @rule(fails_at=st.sampled_from(["", "createSecret", "setSecret", "testSecret", "finishSecret"]))
    def rotate(self, fails_at: str) -> None:
        """A rotation that ends, or fails at one of its steps."""
        self.fails_at = fails_at
        token = str(uuid.uuid4())
        with may_be_refused("InvalidRequestException"):
            self.rotations.rotate(
                {"SecretId": NAME, "ClientRequestToken": token, "RotationLambdaARN": FUNCTION}
            )
            self.tokens.append(token)
        assert self.rotations.wait_until_idle(PATIENCE_SECONDS)

    @invariant()
    def a_label_has_one_holder(self) -> None:
        """No label is on two versions."""
        held = [label for version in self.versions() for label in version.labels]

        assert len(held) == len(set(held))

    @invariant()
    def a_secret_with_a_value_has_a_current_version(self) -> None:
        """AWSCURRENT is on one version as soon as there is a value."""
        if any(version.value is not None for version in self.versions()):
            assert self.holder("AWSCURRENT") is not None

    @invariant()
    def previous_is_never_current(self) -> None:
        """AWSPREVIOUS is on another version than AWSCURRENT, or on none."""
        previous = self.holder("AWSPREVIOUS")

        assert previous is None or previous != self.holder("AWSCURRENT")


TestAnySequence = AnySequence.TestCase
