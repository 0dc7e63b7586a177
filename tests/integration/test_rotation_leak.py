"""A password has leaked: does it open nothing any more, and does a service go on?"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Self

import psycopg2
import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.operate import cli
from ledger_db.rotation.failures import CheckFailed, StepFailed, TimeUsedUp
from ledger_db.rotation.leak import Answered, Leak
from ledger_db.rotation.postgres import PostgresAlternatingRotator
from ledger_db.rotation.protocol import Deadline
from ledger_db.sandbox import Sandbox
from tests.support.redis_world import RedisWorld
from tests.support.rotations import Rotations, own_secret
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import redis


def answered(rotations: Rotations, *, grace_seconds: float = 0.0, **options: Any) -> Answered:
    """Answer a leak of the secret's password."""
    given = {"deadline": Deadline.after(30.0), "extend": True, **options}
    return Leak(rotations.runner(), rotations.secret_id, grace_seconds=grace_seconds, **given).run()


@contextmanager
def session_of(rotations: Rotations, value: dict[str, Any]) -> Iterator[Any]:
    """Log in with what a version holds, as a thief would."""
    with closing(rotations.box.postgres.connect(user=value["username"], password=value["password"])) as it:
        yield it


def is_open(session: Any) -> bool:
    """Whether a session of PostgreSQL still is one."""
    try:
        with session.cursor() as cursor:
            cursor.execute("SELECT 1")
    except psycopg2.Error:
        return False
    return True


def is_refused(rotations: Rotations, value: dict[str, Any]) -> bool:
    """Whether nobody logs in with what a version holds."""
    try:
        with session_of(rotations, value):
            return False
    except psycopg2.OperationalError:
        return True


@pytest.mark.parametrize(
    "strategy", ["postgres-single", "postgres-alternating", "postgres-alternating-clone"]
)
def test_what_has_leaked_opens_nothing_any_more(environment: Sandbox, strategy: str) -> None:
    """Both passwords that the secret knew are refused, and every session that they had opened is ended."""
    with own_secret(environment, strategy) as rotations, ExitStack() as thieves:
        rotations.run()
        leaked = [rotations.value(), rotations.value("AWSPREVIOUS")]
        alive = [value for value in leaked if not is_refused(rotations, value)]
        sessions = [thieves.enter_context(session_of(rotations, value)) for value in alive]

        done = answered(rotations)

        assert done.sessions is not None
        assert (done.sessions.ended, done.sessions.left) == (len(alive), 0)
        assert done.is_complete
        assert not [session for session in sessions if is_open(session)]
        assert all(is_refused(rotations, value) for value in leaked)
        assert rotations.labels() == {
            "AWSCURRENT": done.versions[-1],
            "AWSPREVIOUS": rotations.labels()["AWSPREVIOUS"],
        }
        assert rotations.logs_in()


@pytest.mark.parametrize("strategy", ["postgres-single", "postgres-alternating"])
def test_a_password_that_the_thief_has_changed_is_taken_back(environment: Sandbox, strategy: str) -> None:
    """By the administrator: the service is locked out then, and AWSCURRENT is what it comes back with."""
    with own_secret(environment, strategy) as rotations:
        leaked = rotations.value()
        with session_of(rotations, leaked) as thief, thief.cursor() as cursor:
            cursor.execute("SET ROLE NONE")
            cursor.execute(f"ALTER ROLE {leaked['username']} PASSWORD 'of-the-thief-0'")
            thief.commit()

            done = answered(rotations)

            assert done.is_complete
            assert not is_open(thief)
        assert is_refused(rotations, {**leaked, "password": "of-the-thief-0"})
        assert rotations.logs_in()


def test_a_session_of_the_new_password_is_left_alone(environment: Sandbox) -> None:
    """What has come over within the grace is older than the end, and is not ended."""
    with own_secret(environment, "postgres-single") as rotations, ExitStack() as services:
        came_over: list[Any] = []

        def come_over(seconds: float) -> None:
            if seconds == 7.0:
                came_over.append(services.enter_context(session_of(rotations, rotations.value())))

        with session_of(rotations, rotations.value()) as thief:
            done = answered(rotations, grace_seconds=7.0, sleep=come_over)

            assert done.sessions is not None
            assert done.sessions.ended == 1
            assert not is_open(thief)
        assert len(came_over) == 1
        assert is_open(came_over[0])


def test_a_leaked_password_of_redis_opens_nothing_any_more(world: RedisWorld) -> None:
    """Refused on the server, also to who has logged in during the grace; the new sessions stay."""
    password = world.fields()["password"]
    with closing(world.box.client()) as client, ExitStack() as open_:
        rotations = Rotations(world.box, client, "redis-acl", world.secret_id)
        clients = []

        def log_in(password: str) -> "redis.Redis":
            client: redis.Redis = world.box.redis.connect(username=world.user, password=password)
            open_.callback(client.close)
            client.ping()
            clients.append(client.client_id())
            return client

        graces: list[float] = []

        def sleep(seconds: float) -> None:
            if seconds == 7.0:
                log_in(world.fields()["password"] if graces else password)
                graces.append(seconds)
            else:
                time.sleep(seconds)

        log_in(password)
        done = answered(rotations, grace_seconds=7.0, sleep=sleep)

        with closing(world.admin()) as admin:
            left = {int(each["id"]) for each in admin.client_list() if each["user"] == world.user}
        assert done.sessions is not None
        assert done.sessions.ended == 2
        assert not world.logs_in(password)
        assert world.logs_in(world.fields()["password"])
        assert left == {clients[2]}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("strategy", ["postgres-single", "postgres-alternating"])
def test_a_service_loses_no_request(environment: Sandbox, strategy: str) -> None:
    """Under load, and told of it, the service comes over within the grace; only the thief's session ends."""
    with own_secret(environment, strategy) as rotations:
        settings = Settings(
            database_secret_id=rotations.secret_id, refresh_interval_seconds=300, startup_timeout_seconds=20
        )
        with ConnectionManager(settings) as db, session_of(rotations, rotations.value()) as thief:
            with Load(db) as load:
                status = cli.main(
                    ["rotate", rotations.secret_id, "--strategy", strategy, "--compromised",
                     "--grace-seconds", "5"]
                )  # fmt: skip
                so_far = load.answered
                eventually(lambda: load.answered > so_far + 50, "the service goes on")

            assert status == 0
            assert load.failures == []
            assert not is_open(thief)


class Load:
    """Requests from four threads, for as long as the block lasts."""

    def __init__(self, db: ConnectionManager) -> None:
        self._db = db
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]
        self.answered = 0
        self.failures: list[BaseException] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                with self._db.session() as session:
                    session.execute(text("SELECT 1"))
                self.answered += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                self.failures.append(error)


def interrupt(*arguments: object) -> Any:
    """Press Ctrl-C in the place of a verb."""
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("verb", "told"),
    [
        ("apply", "a rotation has begun; the leaked password may log in"),
        ("end_sessions", "the leaked password is dead; sessions that logged in with it may be open"),
    ],
)
def test_who_interrupts_it_is_told_what_is_true(
    pair: Rotations,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    told: str,
) -> None:
    """With the command that goes on, which begins anew and ends well."""
    leaked = pair.value()
    with monkeypatch.context() as patched:
        patched.setattr(PostgresAlternatingRotator, verb, interrupt)
        status = cli.main(["rotate", pair.secret_id, "--compromised", "--grace-seconds", "0"])
    printed = capsys.readouterr().err

    assert status != 0
    assert told in printed
    assert f"ledger-db rotate {pair.secret_id} --compromised" in printed
    assert cli.main(["rotate", pair.secret_id, "--compromised", "--grace-seconds", "0"]) == 0
    assert is_refused(pair, leaked)
    assert leaked["password"] not in printed + "".join(capsys.readouterr())


def test_a_grace_that_is_interrupted_leaves_the_first_rotation(pair: Rotations) -> None:
    """Between the two rotations AWSCURRENT is new, and the message says what is still open."""
    leaked = pair.value()

    def sleep(seconds: float) -> None:
        if seconds:
            raise KeyboardInterrupt

    stopped = Leak(
        pair.runner(), pair.secret_id, grace_seconds=9.0, deadline=Deadline.after(60.0), sleep=sleep
    )
    with pytest.raises(KeyboardInterrupt):
        stopped.run()

    assert stopped.state.startswith("AWSCURRENT is new; the leaked password may log in; to go on: ")
    assert pair.logs_in()
    assert not is_refused(pair, leaked)


def test_a_failed_step_says_what_the_leak_may_still_open(pair: Rotations) -> None:
    """In the outermost message, which is all that a function's log shows."""
    pair.execute(f"ALTER ROLE {pair.value()['users'][1]} NOLOGIN")
    pair.execute(f"ALTER ROLE {pair.value()['users'][0]} NOLOGIN")

    with pytest.raises(StepFailed, match="the leaked password may log in; to go on: ledger-db rotate "):
        answered(pair)
    for user in pair.value()["users"]:
        pair.execute(f"ALTER ROLE {user} LOGIN")


def test_what_still_logs_in_is_told(pair: Rotations) -> None:
    """Where the version before is of a role that no rotation touches, nobody is told that it is dead."""
    stranger = f"{pair.value()['users'][0]}_clone"
    pair.execute(f"CREATE ROLE {stranger} LOGIN PASSWORD 'known-to-many-0'")
    before = pair.value()
    pair.put(lambda value: {**value, "username": stranger, "password": "known-to-many-0"})
    pair.put(lambda value: before)

    with pytest.raises(CheckFailed, match="still accepts the password of version"):
        answered(pair, deadline=Deadline.after(25.0))


def test_too_little_time_is_told_before_anything_is_done(pair: Rotations) -> None:
    """A function that would be ended in the middle does not begin."""
    labels = pair.labels()

    with pytest.raises(TimeUsedUp, match=r"1 x 30 s of grace and 20 s beside .* nothing was changed; give"):
        answered(pair, grace_seconds=30.0, extend=False)
    assert labels == pair.labels()
