"""What if two work on one secret at once: the same rotation twice, two rotations, a rotation and a repair?"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count

import pytest

from ledger_db.answers.secret import Secret
from ledger_db.rotation.failures import ForeignRotation, LabelsMoved, NothingPending, StepFailed
from ledger_db.rotation.protocol import Deadline, ServerProblem
from ledger_db.rotation.repair import Repair, Repaired
from ledger_db.rotation.steps import STEPS, Outcome, Steps
from ledger_db.rotation.versions import Versions
from tests.support.crashes import Boundaries, WatchedClient
from tests.support.memory_server import MemoryPairRotator, MemoryRotator, MemoryServer
from tests.support.secret_world import NAME, World, secret_world, token

Act = Callable[[World, str], None]


def rotator(server: MemoryServer, *, keeps_current: bool) -> MemoryRotator:
    """Make one for the strategy."""
    return MemoryPairRotator(server) if keeps_current else MemoryRotator(server)


def watched(server: MemoryServer, boundaries: Boundaries, *, keeps_current: bool) -> MemoryRotator:
    """Make one with a boundary before and after each look at the server, and before each change."""
    made = rotator(server, keeps_current=keeps_current)
    login, learn = boundaries.around(server.login), boundaries.around(server.learn)

    def apply(current: Secret, pending: Secret, deadline: Deadline) -> None:
        """Change the password in a session that logged in before, and is not asked again."""
        probe = login(current)
        if not probe.ok:
            raise ServerProblem(probe)
        learn(pending)

    for verb in {"probe", "verify", "revert", "forget"}.intersection(dir(made)):
        setattr(made, verb, boundaries.around(getattr(made, verb)))
    made.apply = apply  # type: ignore[method-assign] # of this one
    return made


class Slow:
    """Somebody who works on the secret of a *world*, and is interrupted at one boundary."""

    def __init__(self, world: World, boundaries: Boundaries) -> None:
        self.versions = Versions(
            WatchedClient(world.client, boundaries),  # type: ignore[arg-type] # as good as one
            NAME,
            Deadline.after(60.0),
            visible_seconds=0.1,
            sleep=world.waits.append,
        )
        self.rotator = watched(world.server, boundaries, keeps_current=world.rotator.keeps_current)

    def step(self, step: str, rotation: str) -> Outcome:
        """Do a step."""
        labels, current = self.versions.labels(), self.versions.current()
        steps = Steps(self.versions, self.rotator, Deadline.after(60.0), current=current, token=rotation)
        return steps.run(step, labels)

    def repair(self) -> Repaired:
        """Repair."""
        labels, current = self.versions.labels(), self.versions.current()
        return Repair(self.versions, self.rotator, Deadline.after(60.0), current=current).run(labels)


@pytest.fixture
def world() -> Iterator[World]:
    """A fresh one."""
    with secret_world() as world:
        yield world


def interrupted_everywhere(
    world: World, slow: Callable[[Slow, str], object], meanwhile: Act, *, after: tuple[str, ...] = ()
) -> Iterator[object]:
    """
    Begin *slow* again and again, with *meanwhile* done at a later moment each time; yield what came of it.

    *after* are the steps that the rotation has behind it.
    """
    # After a call is before the next one.
    for fatal in count(2, 2):
        rotation = token()
        world.rotate(rotation, after)
        boundaries = Boundaries(fatal, die=partial(meanwhile, world, rotation))
        try:
            outcome: object = slow(Slow(world, boundaries), rotation)
        except StepFailed as failed:
            outcome = failed
        if boundaries.passed < fatal:
            assert fatal > 4
            return
        yield outcome
        world.repair()


def finish(world: World, rotation: str) -> None:
    """Be quicker: do all the rest of the same rotation."""
    world.rotate(rotation)


def repair_and_rotate(world: World, rotation: str) -> None:
    """Do what who finds a rotation in the way does."""
    with suppress(ForeignRotation):
        world.rotate(token())
        return
    world.repair()
    world.rotate(token())


def repair_and_begin(world: World, rotation: str) -> None:
    """Take the label away, and have another rotation set its password."""
    world.repair()
    world.rotate(token(), STEPS[:2])


def every_password_has_a_label(world: World) -> bool:
    """Whether what the server accepts, of any user, is in a version that has a label."""
    secrets = [world.versions().value_of(version) for version in set(world.labels().values())]
    labelled = {(secret.username, secret.password) for secret in secrets if secret is not None}
    return labelled >= set(world.server.passwords.items())


@pytest.mark.parametrize("keeps_current", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_another_call_overtakes_ends_well(
    world: World, step: str, *, keeps_current: bool
) -> None:
    """Whenever the same rotation is finished by another call, this one has nothing more to do, at once."""
    world.rotator = rotator(world.server, keeps_current=keeps_current)
    before = STEPS[: STEPS.index(step)]

    for outcome in interrupted_everywhere(
        world, lambda slow, rotation: slow.step(step, rotation), finish, after=before
    ):
        assert isinstance(outcome, Outcome), outcome
        assert world.labels().keys() == {"AWSCURRENT", "AWSPREVIOUS"}
        assert world.current_logs_in()
        assert not world.waits


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_was_done_already_is_no_failure(world: World, step: str) -> None:
    """Called once more after the end of the rotation, every step has nothing to do."""
    rotation = token()
    world.rotate(rotation)

    assert world.step(step, rotation) is Outcome.NOTHING_TO_DO


@pytest.mark.parametrize(
    ("meanwhile", "keeps_current"),
    [
        (repair_and_begin, False),
        (repair_and_begin, True),
        (repair_and_rotate, False),
        (repair_and_rotate, True),
    ],
)
@pytest.mark.parametrize("step", STEPS)
def test_two_never_leave_a_password_that_no_label_has(
    world: World, step: str, meanwhile: Act, *, keeps_current: bool
) -> None:
    """Whatever another does at whatever moment of a step, a label leads to what the server knows."""
    world.rotator = rotator(world.server, keeps_current=keeps_current)
    before = STEPS[: STEPS.index(step)]

    for outcome in interrupted_everywhere(
        world, lambda slow, rotation: slow.step(step, rotation), meanwhile, after=before
    ):
        assert every_password_has_a_label(world), outcome
        if not world.current_logs_in():
            world.repair()
        assert world.current_logs_in(), outcome


@pytest.mark.parametrize(("done", "keeps_current"), [(1, False), (2, False), (3, False), (2, True)])
def test_a_repair_beside_a_running_rotation_does_no_harm(
    world: World, done: int, *, keeps_current: bool
) -> None:
    """Whenever the rotation goes on while it is being repaired, AWSCURRENT logs in afterwards."""
    world.rotator = rotator(world.server, keeps_current=keeps_current)

    def go_on(world: World, rotation: str) -> None:
        with suppress(ForeignRotation, LabelsMoved, NothingPending):
            world.rotate(rotation)

    for outcome in interrupted_everywhere(
        world, lambda slow, rotation: slow.repair(), go_on, after=STEPS[:done]
    ):
        assert every_password_has_a_label(world), outcome
        if not world.current_logs_in():
            world.repair()
        assert world.current_logs_in(), outcome


def test_of_two_that_begin_at_once_one_is_refused(world: World) -> None:
    """AWSPENDING stays with whoever had it first, and the other has changed nothing."""
    first, second = token(), token()
    seen: list[str] = []

    def be_quicker(world: World, rotation: str) -> None:
        world.rotate(first, STEPS[:2])
        seen.append(rotation)

    # Past the look at the labels, that is.
    boundaries = Boundaries(5, die=lambda: be_quicker(world, second))
    with pytest.raises(ForeignRotation):
        Slow(world, boundaries).step("createSecret", second)

    assert seen == [second]
    assert world.labels()["AWSPENDING"] == first
    assert second not in world.labels().values()
    assert world.rotate(first, STEPS[2:]) == [Outcome.DONE] * 2


@pytest.mark.parametrize("fatal", range(1, 12))
def test_a_rotation_that_was_cut_off_while_it_began_can_go_on(world: World, fatal: int) -> None:
    """Wherever createSecret ends for ever, the same token makes a rotation, and no label is left."""

    class Died(BaseException):
        """The process ended here."""

    def die() -> None:
        raise Died

    rotation = token()
    with suppress(Died):
        Slow(world, Boundaries(fatal, die=die)).step("createSecret", rotation)
    world.rotate(rotation)

    assert world.labels().keys() == {"AWSCURRENT", "AWSPREVIOUS"}
    assert world.labels()["AWSCURRENT"] == rotation
    assert world.current_logs_in()
