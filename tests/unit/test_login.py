"""Does a refused login find what works, ask little, and give up politely?"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ledger_db import Credentials, CredentialsUnavailable, LoginRefused, ManagerClosed, Password
from ledger_db.connections.login import Logins
from ledger_db.connections.login_steps import Attempt, Look, Pause, Procedure, Step
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.schedule import Schedule
from ledger_db.testing import ManualClock, ScriptedSource

if TYPE_CHECKING:
    from collections.abc import Callable


def version(name: str) -> Credentials:
    """Return the credentials of one version."""
    return Credentials("app", Password(f"pw-{name}"), name, "h", 1, "d")


V1, V2, V3 = version("v1"), version("v2"), version("v3")
REFUSAL = ConnectionError('FATAL:  password authentication failed for user "app"')


class World:
    """A server that accepts some versions, a source, and a clock that moves when somebody waits."""

    def __init__(self, source: ScriptedSource, *accepted: str, patience_seconds: float = 10.0) -> None:
        self.source = source
        self.accepted = set(accepted)
        self.clock = ManualClock()
        self.logins_tried: list[str] = []
        self.at: dict[float, Callable[[], None]] = {}
        self.provider = CredentialProvider(source, Schedule(), now=self.clock, posix_now=self.clock)
        self.provider.load()
        self.logins = Logins(
            self.provider, patience_seconds=patience_seconds, now=self.clock, spread=lambda: 1.0
        )

    def connect(self, credentials: Credentials) -> str:
        """Log in, or be refused."""
        self.logins_tried.append(credentials.version)
        if credentials.version not in self.accepted:
            raise REFUSAL
        return f"connection with {credentials.version}"

    def pause(self, step: Pause) -> None:
        """Let time pass, and with it what the test wants to happen then."""
        self.clock.advance(step.seconds)
        for moment in sorted(self.at):
            if moment <= self.clock() - 1000.0:
                self.at.pop(moment)()

    def log_in(self) -> str:
        """Log in as a connection pool would."""
        return self.logins.log_in(self.connect, pause=self.pause)


def test_what_is_current_is_tried_first_and_nothing_is_asked() -> None:
    """A login that works costs no read."""
    world = World(ScriptedSource(V1), "v1")

    assert world.log_in() == "connection with v1"
    assert world.source.reads == ["AWSCURRENT"]


def test_a_rotation_that_polling_has_not_seen_is_found() -> None:
    """A refused login re-reads AWSCURRENT, logs in with it, and everybody has it from then on."""
    world = World(ScriptedSource(V1, V2), "v2")

    assert world.log_in() == "connection with v2"
    assert world.provider.current == V2
    assert world.logins_tried == ["v1", "v2"]


def test_between_set_and_finish_the_pending_version_works() -> None:
    """AWSCURRENT is what was refused: AWSPENDING is tried, and adopted because it logged in."""
    world = World(ScriptedSource(V1, pending=[V2]), "v2")

    assert world.log_in() == "connection with v2"
    assert world.provider.current == V2
    assert world.source.reads == ["AWSCURRENT", "AWSCURRENT", "AWSPENDING"]


def test_a_pending_version_that_was_not_applied_yet_is_not_adopted() -> None:
    """Never adopt what has not logged in; wait until the server takes it."""
    world = World(ScriptedSource(V1, pending=[V2]))
    world.at[2.0] = lambda: world.accepted.add("v2")

    assert world.log_in() == "connection with v2"
    assert 2.0 <= world.clock() - 1000.0 < 4.0


def test_without_a_pending_version_the_rotation_is_waited_out() -> None:
    """Once AWSCURRENT moves, the login goes through; the wait is the rotation's, not an error."""
    world = World(ScriptedSource(V1, pending=[PermissionError("denied")]), "v2")
    world.at[3.0] = lambda: world.source.publish("AWSCURRENT", V2)

    assert world.log_in() == "connection with v2"


def test_a_rolled_back_rotation_is_followed_back() -> None:
    """The adopted version is refused in turn; the one before it works again."""
    world = World(ScriptedSource(V1, pending=[V2]), "v2")
    world.log_in()
    world.accepted = {"v1"}

    assert world.log_in() == "connection with v1"
    assert world.provider.current == V1


def test_the_same_password_may_be_accepted_again() -> None:
    """A server that refuses for a moment and then does not, costs a wait only."""
    world = World(ScriptedSource(V1))
    world.at[1.0] = lambda: world.accepted.add("v1")

    assert world.log_in() == "connection with v1"


def test_patience_ends() -> None:
    """Nothing works for ten seconds: LoginRefused, caused by the driver's error, after few questions."""
    world = World(ScriptedSource(V1, pending=[V2]))

    with pytest.raises(LoginRefused) as caught:
        world.log_in()

    assert caught.value.__cause__ is REFUSAL
    assert world.clock() - 1000.0 == pytest.approx(10.0)
    assert len(world.logins_tried) <= 30
    assert len(world.source.reads) <= 15
    message = str(caught.value)
    assert "user 'app' at h:1" in message
    assert "AWSCURRENT and AWSPENDING were tried for 10.0 s" in message
    assert "compare the secret" in message
    assert "pw-" not in message


@pytest.mark.parametrize(
    ("pending", "current", "said"),
    [
        (None, V1, "AWSCURRENT was tried for 10.0 s; AWSPENDING has no other"),
        (
            PermissionError("denied"),
            V1,
            "AWSCURRENT was tried for 10.0 s; AWSPENDING could not be read (PermissionError: denied)",
        ),
        (
            None,
            CredentialsUnavailable("no"),
            "what was known was tried for 10.0 s; AWSCURRENT could not be read (CredentialsUnavailable: no)",
        ),
    ],
    ids=["none pending", "denied", "throttled"],
)
def test_only_what_was_done_is_told(
    pending: Exception | None, current: Credentials | Exception, said: str
) -> None:
    """Whoever may not read AWSPENDING hears that, and not that it was tried."""
    source = ScriptedSource(V1, pending=[pending])
    world = World(source)
    source.publish("AWSCURRENT", current)
    with pytest.raises(LoginRefused) as caught:
        world.log_in()

    assert f"; {said}" in str(caught.value)
    assert "AWSPENDING were tried" not in str(caught.value)


def test_a_start_looks_for_as_long_as_it_may_take() -> None:
    """Neither patience nor a cool-down of a moment ago ends it, and it ends a little before its time."""
    world = World(ScriptedSource(V1))
    with pytest.raises(LoginRefused):
        world.log_in()
    began = world.clock()

    with world.logins.starting(timeout_seconds=30.0), pytest.raises(LoginRefused, match=r"for 29\.5 s"):
        world.log_in()

    assert world.clock() - began == pytest.approx(29.5)
    world.clock.advance(1.5)
    with pytest.raises(LoginRefused, match=r"for 10\.0 s"):
        world.log_in()


@pytest.mark.parametrize("password", [" pw-odd", "pw-odd\n"])
def test_white_space_around_a_refused_password_is_named(password: str) -> None:
    """It may be meant, so it is tried; if it is refused, that is the likely mistake."""
    world = World(ScriptedSource(replace(V1, password=Password(password))))

    with pytest.raises(LoginRefused, match="its password has white space around it") as caught:
        world.log_in()

    assert "pw-odd" not in str(caught.value)


def test_after_that_the_server_is_left_in_peace() -> None:
    """During the cool-down logins fail at once, without a login on the server; afterwards they try again."""
    world = World(ScriptedSource(V1))
    with pytest.raises(LoginRefused):
        world.log_in()
    before = len(world.logins_tried)

    with pytest.raises(LoginRefused, match="a moment ago"):
        world.log_in()
    assert len(world.logins_tried) == before

    world.clock.advance(1.5)
    world.accepted.add("v1")
    assert world.log_in() == "connection with v1"


def test_newer_credentials_end_the_cool_down() -> None:
    """What polling adopts meanwhile is tried at once."""
    world = World(ScriptedSource(V1))
    with pytest.raises(LoginRefused):
        world.log_in()
    world.accepted.add("v2")
    world.provider.adopt(V2, instead_of="v1")

    assert world.log_in() == "connection with v2"


def test_a_source_that_never_changes_is_not_waited_for() -> None:
    """A wrong password in the settings fails at once."""
    world = World(ScriptedSource(V1, rotates=False))

    with pytest.raises(LoginRefused, match="it has no other version"):
        world.log_in()
    assert world.clock() == 1000.0
    assert world.logins_tried == ["v1"]


def test_other_errors_are_not_this_procedures_business() -> None:
    """A server that cannot be reached is reported as it is, at once."""
    world = World(ScriptedSource(V1))

    def unreachable(credentials: Credentials) -> str:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(ConnectionRefusedError):
        world.logins.log_in(unreachable, pause=world.pause)
    assert world.source.reads == ["AWSCURRENT"]


def step_of(procedure: Procedure, outcome: Credentials | BaseException | None = None) -> Step:
    """Tell *procedure* what came of its last step, and return the next."""
    return procedure.send(outcome)


def refused(world: World) -> Procedure:
    """Return a login that was refused with V1 and has found nothing else; it pauses now."""
    procedure = world.logins.procedure()
    assert next(procedure) == Attempt(V1)
    assert step_of(procedure, REFUSAL) == Look("AWSCURRENT", "v1", 10.0)
    assert step_of(procedure, None) == Look("AWSPENDING", "v1", 10.0)
    assert isinstance(step_of(procedure, None), Pause)
    return procedure


def test_only_one_of_a_crowd_tries_again_what_was_refused() -> None:
    """Everybody looks for news, in shared reads; the server hears the same password again from one only."""
    world = World(ScriptedSource(V1))
    scout, follower = refused(world), refused(world)

    assert step_of(scout) == Attempt(V1)
    assert isinstance(step_of(follower), Look)


def test_everybody_tries_what_is_new() -> None:
    """A scout that is stuck (its event loop is blocked) keeps nobody from the new password."""
    world = World(ScriptedSource(V1))
    scout, follower = refused(world), refused(world)

    assert isinstance(step_of(follower), Look)
    assert step_of(follower, V2) == Attempt(V2)
    with pytest.raises(StopIteration):
        step_of(follower, None)
    assert world.provider.current == V2
    assert step_of(scout) == Attempt(V2)


def test_what_was_adopted_by_somebody_else_is_not_undone() -> None:
    """A login with what was found earlier works too late: the newer adoption stays."""
    world = World(ScriptedSource(V1))
    login = world.logins.procedure()
    next(login)
    step_of(login, REFUSAL)
    world.provider.adopt(V3, instead_of="v1")

    assert step_of(login, V2) == Attempt(V2)
    with pytest.raises(StopIteration):
        step_of(login, None)
    assert world.provider.current == V3


def test_a_login_with_old_credentials_does_not_undo_an_adoption() -> None:
    """The other user of a pair still logs in after the rotation: that is no reason to go back to it."""
    world = World(ScriptedSource(V1), "v1", "v2")

    def connect(credentials: Credentials) -> str:
        world.provider.adopt(V2, instead_of="v1")
        return world.connect(credentials)

    world.logins.log_in(connect)

    assert world.provider.current == V2


def test_a_scout_that_is_cancelled_stands_down() -> None:
    """A request that is abandoned while it scouts leaves the place to another one."""
    world = World(ScriptedSource(V1))
    first, second = refused(world), refused(world)
    first.close()

    assert isinstance(step_of(second), Look)
    assert isinstance(step_of(second, None), Look)
    assert isinstance(step_of(second, None), Pause)
    assert step_of(second) == Attempt(V1)


def test_a_follower_hears_that_the_same_version_works_again() -> None:
    """What the scout got accepted is tried by the others at once, although it had been refused to them."""
    world = World(ScriptedSource(V1))
    scout, follower = refused(world), refused(world)
    assert step_of(scout) == Attempt(V1)
    with pytest.raises(StopIteration):
        step_of(scout, None)

    assert step_of(follower) == Attempt(V1)


def test_a_closed_manager_logs_in_nowhere() -> None:
    """A login that comes after close() is a bug of the caller, and opens nothing."""
    world = World(ScriptedSource(V1), "v1")
    world.logins.close()

    with pytest.raises(ManagerClosed):
        world.log_in()
    assert world.logins_tried == []


async def test_a_login_that_waits_for_a_slow_source_blocks_no_loop_and_needs_no_executor() -> None:
    """All worker threads of the loop are busy with other things: the read goes on all the same."""
    world = World(ScriptedSource(V1, V2), "v2")
    loop, busy = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    blocked = loop.run_in_executor(None, busy.wait)

    async def connect(credentials: Credentials) -> str:
        return world.connect(credentials)

    try:
        assert await asyncio.wait_for(world.logins.async_log_in(connect), 5) == "connection with v2"
    finally:
        busy.set()
        await blocked


async def test_an_event_loop_logs_in_the_same_way() -> None:
    """The asynchronous shell takes the same steps."""
    world = World(ScriptedSource(V1, pending=[V2]), "v2")

    async def connect(credentials: Credentials) -> str:
        return world.connect(credentials)

    assert await world.logins.async_log_in(connect) == "connection with v2"
    assert world.provider.current == V2


def test_a_lone_login_never_waits_for_others() -> None:
    """A connection that was lost by itself is made up for at once."""
    world = World(ScriptedSource(V1), "v1")
    world.logins.note_loss()
    for _ in range(3):
        world.log_in()

    assert world.clock() == 1000.0


def logins_at_once(world: World, many: int) -> list[type[Step]]:
    """Begin so many logins in the same moment, and return what each does first."""
    procedures = [world.logins.procedure() for _ in range(many)]
    steps = [type(next(procedure)) for procedure in procedures]
    for procedure in procedures:
        procedure.close()
    return steps


def test_a_pool_that_lost_everything_does_not_log_in_all_at_once() -> None:
    """A server that restarts is met by one login of each pool, and by the others a moment later."""
    world = World(ScriptedSource(V1), "v1")
    world.logins.note_loss()

    assert logins_at_once(world, 4) == [Attempt, Pause, Pause, Pause]


def test_the_wait_after_a_loss_is_short() -> None:
    """Whoever waits for a connection has it a quarter of a second later at the latest."""
    world = World(ScriptedSource(V1), "v1")
    world.logins.note_loss()
    first, second = world.logins.procedure(), world.logins.procedure()
    next(first)

    assert next(second) == Pause(0.25)
    assert second.send(None) == Attempt(V1)


def test_many_logins_without_a_loss_are_not_held_up() -> None:
    """A pool that grows because it is busy has no time to lose."""
    world = World(ScriptedSource(V1), "v1")
    assert logins_at_once(world, 4) == [Attempt] * 4
    world.logins.note_loss()
    world.clock.advance(60.0)

    assert logins_at_once(world, 4) == [Attempt] * 4
