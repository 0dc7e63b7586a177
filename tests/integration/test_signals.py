"""Does a service follow a rotation because it was announced, long before it would have polled?"""

import json
import logging
import multiprocessing
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import redis
from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.answers.announcement import DEFAULT_CHANNEL, Announcement
from ledger_db.credentials.model import Credentials
from ledger_db.rotation import journal
from ledger_db.rotation.announce import Announcer
from ledger_db.rotation.events import event_handler
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.steps import STEPS
from ledger_db.sandbox import Sandbox
from tests.support.events import event_of
from tests.support.lambda_calls import Context, awscurrent_moved
from tests.support.redis_world import RedisWorld, redis_world
from tests.support.rotations import Rotations, new_client, new_token
from tests.support.waiting import eventually

ROUNDS = 10
# Longer than two looks have to be apart.
BEYOND_THE_FLOOR_SECONDS = 0.55


def announce(box: Sandbox, secret_id: str, version: str) -> None:
    """Announce as the function that rotates does: as a user that may do nothing else."""
    announcer = Announcer(RedisWorld(box, "", "", "").tools(), box.environment)
    announcer.announce(Announcement(secret_id, version, "test"), Deadline.after(10))


def listeners(box: Sandbox, channel: str = DEFAULT_CHANNEL) -> int:
    """Return how many connections listen."""
    with closing(box.redis.connect()) as admin:
        return int(admin.pubsub_numsub(channel)[0][1])


@contextmanager
def listening(settings: Settings, box: Sandbox) -> Iterator[ConnectionManager]:
    """Open a manager that is known to listen."""
    before = listeners(box)
    with ConnectionManager(settings) as db:
        eventually(lambda: listeners(box) == before + 1, "the manager listens")
        yield db


def version_of(db: ConnectionManager, server: str) -> str | None:
    """Return which version *server* is on."""
    return next(s.credentials.version for s in db.health().servers if s.name == server)


class Stopwatch:
    """Waits for one version at a time, and says when it was adopted."""

    def __init__(self, db: ConnectionManager) -> None:
        self._adopted: dict[str, float] = {}
        self._changed = threading.Condition()
        for server in db._servers:
            server.provider.subscribe(self._note)

    def _note(self, credentials: Credentials) -> None:
        with self._changed:
            self._adopted[credentials.version] = time.monotonic()
            self._changed.notify_all()

    def adopted_at(self, version: str) -> float:
        """Return when *version* became current."""
        with self._changed:
            assert self._changed.wait_for(lambda: version in self._adopted, timeout=60), "never adopted"
            return self._adopted[version]


def test_a_rotation_is_followed_when_it_is_announced(settings: Settings, environment: Sandbox) -> None:
    """Nothing is polled for five minutes here, and no login is refused: only the announcement can be it."""
    waited_ms: list[float] = []
    with listening(settings, environment) as db:
        stopwatch = Stopwatch(db)
        for number in range(ROUNDS):
            is_redis = number % 2 == 1
            version = (
                environment.rotate_redis() if is_redis else environment.rotate_database("alternating-users")
            )
            secret_id = environment.redis_secret_id if is_redis else environment.database_secret_id
            finished_at = time.monotonic()
            announce(environment, secret_id, version)
            waited_ms.append(1000 * (stopwatch.adopted_at(version) - finished_at))
            time.sleep(BEYOND_THE_FLOOR_SECONDS)

    figures = (
        f"min {min(waited_ms):.1f}, median {statistics.median(waited_ms):.1f}, max {max(waited_ms):.1f} ms"
    )
    print(f"\nfrom finishSecret to the new credentials: {figures}")  # noqa: T201 - a figure for who runs it
    assert len(waited_ms) == ROUNDS


async def test_an_asynchronous_service_hears_it_too(settings: Settings, environment: Sandbox) -> None:
    """The thread listens for both kinds of manager."""
    before = listeners(environment)
    async with ConnectionManager(settings) as db:
        eventually(lambda: listeners(environment) == before + 1, "the manager listens")
        version = environment.rotate_redis()
        announce(environment, environment.redis_secret_id, version)
        eventually(lambda: version_of(db, "Redis") == version, "the rotation is followed")
        assert await db.async_redis.ping()
    assert listeners(environment) == before


def test_a_service_may_not_announce(settings: Settings) -> None:
    """One that is taken over has nobody else read or log in, in the sandbox as with the template."""
    with ConnectionManager(settings) as db:
        assert db.redis.set("key", "value")
        with pytest.raises(redis.exceptions.NoPermissionError):
            db.redis.publish(DEFAULT_CHANNEL, "{}")


def test_who_announces_need_have_no_other_right(settings: Settings, environment: Sandbox) -> None:
    """As the template's user has it, and also in the middle of the rotation of its own password."""
    rights = "resetchannels &ledger_db:rotations -@all +publish"
    with redis_world(environment, rights=rights) as world, listening(settings, environment) as db:
        announcer = Announcer(world.tools(), {"LEDGER_DB_ANNOUNCEMENTS_SECRET_ID": world.secret_id})
        rotations = Rotations(environment, new_client(environment), "redis-acl", world.secret_id)
        token = new_token()
        for step in STEPS:
            rotations.step(step, token)
            version = environment.rotate_database("alternating-users")
            announcement = Announcement(environment.database_secret_id, version, "test")
            announcer.announce(announcement, Deadline.after(10))
            eventually(lambda: version_of(db, "PostgreSQL") == version, f"heard after {step}")  # noqa: B023
        rotations.client.close()


def test_it_is_announced_by_arn_or_by_name(settings: Settings, environment: Sandbox) -> None:
    """The service knows the secret by its name, AWS's events by its ARN."""
    with closing(environment.client()) as client:
        arn = client.describe_secret(SecretId=environment.database_secret_id)["ARN"]
    with listening(settings, environment) as db:
        version = environment.rotate_database("alternating-users")
        announce(environment, arn, version)

        eventually(lambda: version_of(db, "PostgreSQL") == version, "the rotation is followed")


def test_an_event_of_aws_is_heard_too(
    settings: Settings, environment: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret that RDS or a person changed is announced by the second function."""
    # It is for whole programs, and this one has other tests.
    monkeypatch.setattr(journal, "write_to_standard_output", lambda: None)
    with closing(environment.client()) as client, listening(settings, environment) as db:
        arn = client.describe_secret(SecretId=environment.database_secret_id)["ARN"]
        version = environment.rotate_database("alternating-users")
        event_handler(awscurrent_moved(arn, version), Context())

        eventually(lambda: version_of(db, "PostgreSQL") == version, "the change is followed")


def test_listening_survives_the_rotation_of_its_own_password(
    settings: Settings, environment: Sandbox
) -> None:
    """The connection that listens is cut off after its password has changed twice, and comes back."""
    with listening(settings, environment) as db:
        for _ in range(2):
            version = environment.rotate_redis()
        with closing(environment.redis.connect()) as admin:
            admin.client_kill_filter(_type="pubsub")
        # Nobody announced anything: what was missed is looked for when the subscription is back.
        eventually(lambda: version_of(db, "Redis") == version, "the gap is made up for")
        eventually(lambda: listeners(environment) == 1, "it listens again")
        time.sleep(BEYOND_THE_FLOOR_SECONDS)

        version = environment.rotate_database("alternating-users")
        announce(environment, environment.database_secret_id, version)
        eventually(lambda: version_of(db, "PostgreSQL") == version, "it hears the next announcement")


def test_noise_on_the_channel_costs_nothing(settings: Settings, environment: Sandbox) -> None:
    """No read of Secrets Manager, no lost connection."""
    with listening(settings, environment) as db, closing(environment.redis.connect()) as admin:
        reads = environment.secrets_manager.calls()["GetSecretValue"]
        for noise in (b"", b"{", b"x" * 1_000_000, json.dumps({"secret_id": "somebody/else"}).encode()):
            admin.publish(DEFAULT_CHANNEL, noise)
        # The last message on the channel is heard after all of them.
        version = environment.rotate_database("alternating-users")
        reads_of_the_rotation = environment.secrets_manager.calls()["GetSecretValue"] - reads
        announcement = {"secret_id": environment.database_secret_id, "version_id": version}
        assert admin.publish(DEFAULT_CHANNEL, json.dumps(announcement)) == 1
        eventually(lambda: version_of(db, "PostgreSQL") == version, "the rotation is followed")

        assert environment.secrets_manager.calls()["GetSecretValue"] == reads + reads_of_the_rotation + 1


def test_a_flood_of_falsehoods_costs_a_few_reads_and_no_request(
    settings: Settings, environment: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """A rotation in the middle of it is followed all the same: a login that is refused asks by itself."""
    with listening(settings, environment) as db, closing(environment.redis.connect()) as admin:
        before = environment.secrets_manager.calls()["GetSecretValue"]

        def is_distrusted() -> bool:
            message = {"secret_id": environment.database_secret_id, "version_id": uuid.uuid4().hex}
            admin.publish(DEFAULT_CHANNEL, json.dumps(message))
            db.run(lambda session: session.execute(text("SELECT 1")))
            return "signals.distrusted" in caplog.text

        eventually(is_distrusted, "nothing is believed any more")
        eventually(lambda: listeners(environment) == 0, "nor heard")
        assert environment.secrets_manager.calls()["GetSecretValue"] - before <= 8

        version = environment.rotate_database()
        db.engine.dispose()
        db.run(lambda session: session.execute(text("SELECT 1")))
        assert version_of(db, "PostgreSQL") == version


def test_a_channel_of_ones_own_is_listened_to(settings: Settings, environment: Sandbox) -> None:
    """Two installations on one Redis need not hear each other."""
    with ConnectionManager(settings.model_copy(update={"announcements_channel": "ledger_db:mine"})):
        eventually(lambda: listeners(environment, "ledger_db:mine") == 1, "the manager listens there")
        assert listeners(environment) == 0
    eventually(lambda: listeners(environment, "ledger_db:mine") == 0, "nobody is left")


def test_who_may_not_listen_still_works(environment: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """A Redis user without the right to the channel costs one warning; polling goes on."""
    rights = "~* resetchannels +@all -@admin -@dangerous +acl|whoami"
    with redis_world(environment, rights=rights) as world, caplog.at_level(logging.WARNING):
        settings = Settings(redis_secret_id=world.secret_id)
        with ConnectionManager(settings) as db:
            eventually(lambda: "signals.lost" in map(event_of, caplog.records), "it is said once")
            assert db.redis.ping()
            assert db.health().ok
    assert [event_of(record) for record in caplog.records].count("signals.lost") == 1


def test_closing_is_quick_and_complete(settings: Settings, environment: Sandbox) -> None:
    """The thread is waiting for a message that never comes, and ends all the same."""
    with listening(settings, environment):
        began = time.monotonic()
    took = time.monotonic() - began

    assert took < 10
    assert [t for t in threading.enumerate() if t.name == "ledger_db-signals"] == []
    eventually(lambda: listeners(environment) == 0, "nobody is left")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_worker_listens_for_itself(settings: Settings, environment: Sandbox) -> None:
    """The child has a subscription of its own, and the parent keeps the one that it has."""
    context = multiprocessing.get_context("fork")
    with listening(settings, environment) as db:
        ours, theirs = context.Pipe()

        def work() -> None:
            version = theirs.recv()
            eventually(lambda: version_of(db, "Redis") == version, "the child follows the rotation")
            theirs.send("followed")
            theirs.recv()

        child = context.Process(target=work)
        child.start()
        eventually(lambda: listeners(environment) == 2, "both listen")
        version = environment.rotate_redis()
        ours.send(version)
        announce(environment, environment.redis_secret_id, version)
        assert ours.poll(30)
        assert ours.recv() == "followed"
        eventually(lambda: version_of(db, "Redis") == version, "so does the parent")
        ours.send("end")
        child.join(30)
        ours.close()
        theirs.close()

        assert child.exitcode == 0
        eventually(lambda: listeners(environment) == 1, "the parent still listens")


def test_it_listens_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Announced, followed and closed without waiting, where the server insists on TLS."""
    with Sandbox(tls=True) as box:
        for name, value in box.environment.items():
            monkeypatch.setenv(name, value)
        with listening(Settings(), box) as db:
            version = box.rotate_redis()
            announce(box, box.redis_secret_id, version)
            eventually(lambda: version_of(db, "Redis") == version, "the rotation is followed")
            began = time.monotonic()
        assert time.monotonic() - began < 10
