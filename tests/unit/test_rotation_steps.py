"""Do the four steps keep their contract with Secrets Manager, whatever came before?"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret
from ledger_db.rotation import failures
from ledger_db.rotation.protocol import Deadline, Probe, ServerProblem
from ledger_db.rotation.repair import Repaired
from ledger_db.rotation.steps import STEPS, Outcome, Steps
from ledger_db.stand_in.faults import (
    access_denied,
    dropped,
    lost_answer,
    pending_without_value,
    rubbish,
    throttled,
)
from tests.support.memory_server import MemoryRotator
from tests.support.secret_world import FIRST, NAME, World, secret_world, token


@pytest.fixture
def world() -> Iterator[World]:
    """A fresh one."""
    with secret_world() as world:
        yield world


def test_four_steps_make_a_rotation(world: World) -> None:
    """Afterwards AWSCURRENT is the new version, it logs in, and AWSPENDING is gone."""
    rotation = token()
    before = world.labels()["AWSCURRENT"]

    assert world.rotate(rotation) == [Outcome.DONE] * 4
    assert world.labels() == {"AWSCURRENT": rotation, "AWSPREVIOUS": before}
    assert world.current_logs_in()
    assert world.server.passwords["a"] != FIRST


@pytest.mark.parametrize("step", STEPS)
def test_every_step_may_be_repeated(world: World, step: str) -> None:
    """A repeated step changes nothing that the first one did."""
    rotation = token()
    for each in STEPS[: STEPS.index(step) + 1]:
        world.step(each, rotation)
    labels, passwords = world.labels(), dict(world.server.passwords)

    world.step(step, rotation)

    assert labels == world.labels()
    assert passwords == world.server.passwords


def test_the_fields_that_nobody_knows_are_kept(world: World) -> None:
    """What else is in a secret is in its next version too."""
    world.put(token(), "AWSCURRENT", username="a", password=FIRST, note="keep me")

    world.rotate(token())

    assert world.versions().current().fields["note"] == "keep me"


def test_a_lost_answer_to_put_does_no_harm(world: World) -> None:
    """The version that was put although nobody heard of it is the one that is used."""
    rotation = token()
    world.stand_in.inject(lost_answer("PutSecretValue", times=2))
    with pytest.raises(failures.SecretsManagerFailed):
        world.step("createSecret", rotation)
    value = world.versions().value_of(rotation)

    assert world.step("createSecret", rotation) is Outcome.NOTHING_TO_DO
    assert value == world.versions().value_of(rotation)


def test_a_value_that_was_not_visible_is_read_again(world: World) -> None:
    """PutSecretValue refuses a second value for a version; the first one counts."""
    rotation = token()
    world.step("createSecret", rotation)
    value = world.versions().value_of(rotation)
    world.stand_in.inject(pending_without_value(times=1))

    assert world.step("createSecret", rotation) is Outcome.NOTHING_TO_DO
    assert value == world.versions().value_of(rotation)


def test_a_value_that_is_not_visible_yet_is_waited_for(world: World) -> None:
    """Secrets Manager may take a moment to show what it has accepted."""
    rotation = token()
    world.step("createSecret", rotation)
    world.stand_in.inject(pending_without_value(times=3))

    assert world.step("setSecret", rotation, visible_seconds=30.0) is Outcome.DONE
    assert world.waits == [0.05, 0.1, 0.2]


def test_an_empty_pending_version_is_filled(world: World) -> None:
    """RotateSecret makes a version without a value, and createSecret gives it one."""
    rotation = token()
    world.stand_in.register("arn:function", lambda event: None)
    world.client.rotate_secret(
        SecretId=NAME, ClientRequestToken=rotation, RotationLambdaARN="arn:function", RotateImmediately=True
    )
    assert world.stand_in.wait_until_idle(10.0)

    world.rotate(rotation)

    assert world.labels()["AWSCURRENT"] == rotation
    assert world.current_logs_in()


@pytest.mark.parametrize("step", ["setSecret", "finishSecret"])
def test_a_step_without_a_new_version_says_so(world: World, step: str) -> None:
    """There is nothing to set or to finish before createSecret."""
    with pytest.raises(failures.NothingPending, match=f"^{step} of app/db: .* start a new rotation$"):
        world.step(step, token())
    assert world.server.changes == 0


@pytest.mark.parametrize("step", STEPS)
def test_the_rotation_of_somebody_else_is_left_alone(world: World, step: str) -> None:
    """AWSPENDING on another version is another rotation in progress."""
    other = token()
    world.step("createSecret", other)

    with pytest.raises(failures.ForeignRotation, match=other):
        world.step(step, token())
    assert world.labels()["AWSPENDING"] == other


def test_a_label_that_others_left_is_no_obstacle(world: World) -> None:
    """Other rotation functions leave AWSPENDING beside AWSCURRENT; the next rotation takes it over."""
    first, second = token(), token()
    world.rotate(first)
    world.client.update_secret_version_stage(SecretId=NAME, VersionStage="AWSPENDING", MoveToVersionId=first)

    world.rotate(second)

    assert world.labels() == {"AWSCURRENT": second, "AWSPREVIOUS": first}


def test_a_label_that_a_crash_left_is_removed(world: World) -> None:
    """Whoever is called again after AWSCURRENT was moved takes AWSPENDING away."""
    rotation = token()
    world.rotate(rotation, STEPS[:3])
    world.client.update_secret_version_stage(
        SecretId=NAME,
        VersionStage="AWSCURRENT",
        MoveToVersionId=rotation,
        RemoveFromVersionId=world.labels()["AWSCURRENT"],
    )

    assert world.step("createSecret", rotation) is Outcome.DONE
    assert "AWSPENDING" not in world.labels()


@pytest.mark.parametrize("pending", ["none", "empty", "copy"])
def test_the_test_alone_tests_what_is_current(world: World, pending: str) -> None:
    """RotateImmediately=false calls testSecret only; it succeeds, and nothing is changed."""
    rotation = token()
    if pending == "copy":
        world.put(rotation, "AWSPENDING", username="a", password=FIRST)
    if pending == "empty":
        world.step("createSecret", rotation)
        world.stand_in.inject(pending_without_value())
    labels = world.labels()

    assert world.step("testSecret", rotation) is Outcome.TESTED_CURRENT
    assert labels == world.labels()
    assert world.server.changes == 0


def test_the_test_alone_finds_a_dead_secret(world: World) -> None:
    """A test of a secret that does not log in fails, and "rolls back" nothing."""
    world.server.passwords["a"] = "something else"

    with pytest.raises(failures.PasswordRefused):
        world.step("testSecret", token())
    assert world.server.changes == 0


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (Reason.CLOSED_PORT, failures.PortClosed),
        (Reason.EXPIRED, failures.PasswordExpired),
        (Reason.FORBIDDEN, failures.ActionForbidden),
        (Reason.NOT_READY, failures.ServerNotReady),
        (Reason.NO_ADDRESS, failures.HostUnknown),
        (Reason.NO_ANSWER, failures.HostSilent),
        (Reason.NO_DATABASE, failures.DatabaseMissing),
        (Reason.NO_TLS, failures.TLSMissing),
        (Reason.REFUSED, failures.PasswordRefused),
        (Reason.TOO_MANY_CONNECTIONS, failures.ConnectionsExhausted),
        (Reason.UNKNOWN, failures.ServerOdd),
        (Reason.WRONG_CERTIFICATE, failures.CertificateWrong),
    ],
)
def test_nothing_is_written_where_nobody_logs_in(
    world: World, trouble: Reason, kind: type[failures.StepFailed]
) -> None:
    """Each trouble has an error of its own, and the server is not touched."""
    rotation = token()
    world.step("createSecret", rotation)
    world.server.trouble = trouble

    with pytest.raises(
        kind, match=r"^setSecret of app/db: .*; nothing was written to the server; "
    ) as failed:
        world.step("setSecret", rotation)
    assert type(failed.value) is kind
    assert world.server.changes == 0


def test_every_kind_of_failure_has_its_own_exit_status() -> None:
    """A script can tell what happened."""
    kinds = failures.StepFailed.__subclasses__()

    assert len({kind.exit_status for kind in kinds}) == len(kinds)
    assert all(kind.next_move for kind in kinds)


def test_the_version_before_helps_out(world: World) -> None:
    """If the server has the password of AWSPREVIOUS, that one makes the change."""
    world.rotate(token())
    world.server.passwords["a"] = FIRST

    world.rotate(token())

    assert world.current_logs_in()


def test_a_previous_version_of_another_server_does_not_help(world: World) -> None:
    """No password is sent where AWSPREVIOUS says: only AWSCURRENT says where the server is."""
    world.client.put_secret_value(
        SecretId=NAME,
        SecretString=json.dumps({"host": "evil.example", "username": "a", "password": FIRST}),
    )
    world.put(token(), "AWSCURRENT", username="a", password="unknown to the server")
    rotation = token()
    world.step("createSecret", rotation)

    with pytest.raises(failures.PasswordRefused):
        world.step("setSecret", rotation)


def test_a_change_whose_answer_was_lost_is_found(world: World) -> None:
    """The connection broke after the commit: the new password logs in, so the step is done."""

    class Breaking(MemoryRotator):
        def apply(self, current: Secret, pending: Secret, deadline: Deadline) -> None:
            super().apply(current, pending, deadline)
            raise ServerProblem(Probe(Reason.NOT_READY, "the connection broke"))

    world.rotator = Breaking(world.server)
    rotation = token()

    assert world.rotate(rotation)[1] is Outcome.NOTHING_TO_DO
    assert world.labels()["AWSCURRENT"] == rotation


def test_a_pending_version_for_another_server_is_refused(world: World) -> None:
    """Who may write AWSPENDING cannot send a password elsewhere."""
    rotation = token()
    world.client.put_secret_value(
        SecretId=NAME,
        ClientRequestToken=rotation,
        SecretString=json.dumps({"host": "evil.example", "username": "a", "password": "x"}),
        VersionStages=["AWSPENDING"],
    )

    with pytest.raises(failures.SecretUnusable, match="'host' in AWSPENDING"):
        world.step("setSecret", rotation)


def test_what_does_not_log_in_never_becomes_current(world: World) -> None:
    """FinishSecret looks for itself, whatever was or was not done before."""
    rotation = token()
    world.step("createSecret", rotation)

    with pytest.raises(failures.PasswordRefused, match="AWSCURRENT is unchanged"):
        world.step("finishSecret", rotation)
    assert world.labels()["AWSCURRENT"] != rotation


def test_two_that_finish_at_once_cannot_both(world: World) -> None:
    """Moving AWSCURRENT is a compare-and-swap."""
    rotation, other = token(), token()
    world.rotate(rotation, STEPS[:3])
    versions = world.versions()
    steps = Steps(versions, world.rotator, Deadline.after(60.0), current=versions.current(), token=rotation)
    seen = versions.labels()
    world.put(other, "AWSCURRENT", username="a", password="by hand")

    with pytest.raises(failures.LabelsMoved):
        steps.run("finishSecret", seen)
    assert world.labels()["AWSCURRENT"] == other


def test_a_lost_answer_to_the_move_does_no_harm(world: World) -> None:
    """The SDK repeats the call, is refused, and the labels say that it was done."""
    rotation = token()
    world.rotate(rotation, STEPS[:3])
    world.stand_in.inject(lost_answer("UpdateSecretVersionStage"))

    assert world.step("finishSecret", rotation) is Outcome.DONE
    assert world.labels()["AWSCURRENT"] == rotation
    assert "AWSPENDING" not in world.labels()


def break_pending(world: World, rotation: str) -> None:
    """Set a password that logs in and then does not work."""
    world.rotate(rotation, STEPS[:2])
    pending = world.versions().value_of(rotation)
    assert pending is not None
    world.server.failed_check.add(pending.password)


def test_a_failed_test_is_undone_where_nothing_else_works(world: World) -> None:
    """Single user: the old password is dead by then, so it is set again, and AWSPENDING goes."""
    rotation = token()
    break_pending(world, rotation)

    with pytest.raises(failures.CheckFailed, match="the server has the password in AWSCURRENT again"):
        world.step("testSecret", rotation)
    assert world.current_logs_in()
    assert "AWSPENDING" not in world.labels()


def test_a_rotation_that_was_undone_does_not_begin_again(world: World) -> None:
    """A retry with the same token is refused; a new rotation works."""
    rotation = token()
    break_pending(world, rotation)
    with pytest.raises(failures.CheckFailed):
        world.step("testSecret", rotation)

    with pytest.raises(failures.NothingPending, match="given up"):
        world.step("createSecret", rotation)
    world.rotate(token())
    assert world.current_logs_in()


def test_a_failed_test_is_not_undone_where_current_works(world: World) -> None:
    """Two passwords at a time, or a pair of users: nobody is hurt, so nothing is touched."""
    world.rotator = MemoryRotator(world.server, keeps_current=True)
    rotation = token()
    break_pending(world, rotation)
    changes = world.server.changes

    with pytest.raises(failures.CheckFailed, match="AWSCURRENT is unchanged"):
        world.step("testSecret", rotation)
    assert changes == world.server.changes
    assert world.labels()["AWSPENDING"] == rotation


def test_an_unreachable_server_is_no_reason_to_undo(world: World) -> None:
    """Only a proven failure is undone."""
    rotation = token()
    world.rotate(rotation, STEPS[:2])
    changes = world.server.changes
    world.server.trouble = Reason.NO_ANSWER

    with pytest.raises(failures.HostSilent):
        world.step("testSecret", rotation)
    assert changes == world.server.changes


def test_time_that_is_used_up_ends_with_a_message(world: World) -> None:
    """A step says what it had no time for."""
    rotation = token()
    world.step("createSecret", rotation)

    with pytest.raises(failures.TimeUsedUp, match="no time was left for a login"):
        world.step("setSecret", rotation, seconds=0.0)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (access_denied("PutSecretValue"), failures.SecretsManagerDenied),
        (throttled("PutSecretValue", times=None), failures.SecretsManagerFailed),
        (dropped("PutSecretValue", times=None), failures.SecretsManagerFailed),
        (rubbish("GetSecretValue", times=None), failures.SecretsManagerFailed),
    ],
)
def test_troubles_of_secrets_manager_have_names(
    world: World, fault: Any, kind: type[failures.StepFailed]
) -> None:
    """What may be tried again is told from what a person has to mend."""
    versions = world.versions()
    steps = Steps(versions, world.rotator, Deadline.after(60.0), current=versions.current(), token=token())
    labels = versions.labels()
    world.stand_in.inject(replace(fault, delay_seconds=0.0))

    with pytest.raises(kind):
        steps.run("createSecret", labels)


def test_a_bug_shows_its_class_and_no_text(world: World) -> None:
    """Nobody knows what is in a text that nobody foresaw."""

    class Broken(MemoryRotator):
        def next_secret(self, current: Any) -> Any:
            raise KeyError(str(current.password))

    world.rotator = Broken(world.server)

    with pytest.raises(failures.StepFailed, match="it met a KeyError") as failed:
        world.step("createSecret", token())
    assert FIRST not in str(failed.value)
    # Of ours, with its line: the log of a function has this message only.
    assert re.search(r"KeyError in ledger_db\.rotation\.steps:\d+; nothing was changed; ", str(failed.value))


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            ClientError({"Error": {"Code": "AccessDenied", "Message": "x"}}, "DescribeWhatever"),
            failures.SecretsManagerDenied,
            "AWS answered AccessDenied, access is denied; nothing was changed; allow aws:DescribeWhatever",
        ),
        (
            ConnectTimeoutError(endpoint_url="https://rds.example/"),
            failures.SecretsManagerFailed,
            "AWS gave nothing: AWS did not answer (ConnectTimeoutError); nothing was changed; trying again",
        ),
    ],
)
def test_an_answer_of_aws_that_nobody_expected_is_told(
    world: World, error: Exception, kind: type[failures.StepFailed], words: str
) -> None:
    """Code, call and what to do, and no text, as nobody knows what was sent."""

    class Asking(MemoryRotator):
        def next_secret(self, current: Any) -> Any:
            raise error

    world.rotator = Asking(world.server)

    with pytest.raises(kind, match=re.escape(words)):
        world.step("createSecret", token())


def test_every_failure_says_what_to_do_itself() -> None:
    """Whoever reads a message in the log of a function sees no cause."""
    kinds: list[type[failures.StepFailed]] = [failures.StepFailed, *failures.StepFailed.__subclasses__()]

    assert not [kind for kind in kinds if "see the cause" in kind.next_move]


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (0, Repaired.NOTHING_TO_DO),
        (1, Repaired.ABANDONED),
        (2, Repaired.FINISHED),
        (3, Repaired.FINISHED),
        (4, Repaired.NOTHING_TO_DO),
    ],
)
@pytest.mark.parametrize("keeps_current", [False, True])
def test_repair_ends_a_rotation_after_any_step(
    world: World, done: int, expected: Repaired, *, keeps_current: bool
) -> None:
    """Forward if the server has the new password, back if it has not."""
    world.rotator = MemoryRotator(world.server, keeps_current=keeps_current)
    world.rotate(token(), STEPS[:done])

    assert world.repair() is expected
    assert "AWSPENDING" not in world.labels()
    assert world.current_logs_in()


def test_repair_restores_what_somebody_changed_by_hand(world: World) -> None:
    """AWSCURRENT is dead, AWSPREVIOUS lives: the server gets AWSCURRENT's password."""
    world.rotate(token())
    world.server.passwords["a"] = FIRST

    assert world.repair() is Repaired.RESTORED
    assert world.current_logs_in()


def test_repair_gives_up_a_pending_version_that_contradicts(world: World) -> None:
    """What was never meant for this server was never applied to it."""
    world.client.put_secret_value(
        SecretId=NAME,
        SecretString=json.dumps({"host": "evil.example", "username": "a", "password": "x"}),
        VersionStages=["AWSPENDING"],
    )

    assert world.repair() is Repaired.ABANDONED
    assert world.current_logs_in()


def test_repair_removes_the_label_of_an_empty_version(world: World) -> None:
    """What a failed rotation may leave: AWSPENDING on a version without a value."""
    world.step("createSecret", token())
    world.stand_in.inject(pending_without_value())

    assert world.repair() is Repaired.ABANDONED
    assert "AWSPENDING" not in world.labels()


def test_repair_touches_nothing_without_a_clear_answer(world: World) -> None:
    """An unreachable server says nothing about any password."""
    world.rotate(token(), STEPS[:2])
    labels = world.labels()
    world.server.trouble = Reason.NO_ANSWER

    with pytest.raises(failures.HostSilent):
        world.repair()
    assert labels == world.labels()


def test_repair_says_when_nobody_can_log_in(world: World) -> None:
    """Then a person has to set the password; the message says so."""
    world.server.passwords["a"] = "known to nobody"

    with pytest.raises(failures.PasswordRefused, match="AWSCURRENT does not log in"):
        world.repair()
