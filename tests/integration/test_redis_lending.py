"""Is a connection to Redis renewed where it is lent, and never taken from somebody who uses it?"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis

from ledger_db import Settings
from ledger_db.sandbox import Sandbox
from tests.support.redis_clients import KINDS, RedisClient, ended, redis_client
from tests.support.redis_world import RedisWorld, redis_world
from tests.support.rotations import Rotations, new_client
from tests.support.waiting import eventually

MESSAGES = 100
TIMEOUT_SECONDS = 1.0


@pytest.fixture
def world(environment: Sandbox) -> Iterator[RedisWorld]:
    """A user who may do everything, with its secret."""
    environment.secrets_manager.clear_faults()
    with redis_world(environment, rights="~* &* +@all") as world:
        yield world


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, world: RedisWorld) -> Iterator[RedisClient]:
    """A client that logs in as that user."""
    settings = Settings(
        database_secret_id=None,
        redis_secret_id=world.secret_id,
        login_patience_seconds=3,
        redis_timeout_seconds=TIMEOUT_SECONDS,
    )
    with redis_client(request.param, settings) as client:
        yield client


@pytest.fixture
def rotate(client: RedisClient, world: RedisWorld) -> Iterator[Callable[[], None]]:
    """Rotates the user's password, and returns when the manager has adopted the new one."""
    with closing(new_client(world.box)) as secrets:
        rotations = Rotations(world.box, secrets, "redis-acl", world.secret_id)

        def rotate() -> None:
            before = client.db.health().servers[0].credentials.generation
            rotations.run()
            client.db.look_now()
            eventually(
                lambda: client.db.health().servers[0].credentials.generation > before,
                "the rotation is adopted",
            )

        yield rotate


def kill(world: RedisWorld, *what: str) -> None:
    """End sessions of the user, as a server does that is restarted."""
    with closing(world.admin()) as admin:
        admin.execute_command("CLIENT", "KILL", "USER", world.user, *what)  # type: ignore[no-untyped-call]


def publish(world: RedisWorld, count: int = MESSAGES) -> None:
    """Publish numbers."""
    with closing(world.admin()) as admin:
        for number in range(count):
            assert admin.publish("orders", str(number)) == 1


def received(client: RedisClient, subscriber: Any, count: int = MESSAGES) -> list[int]:
    """Return what a subscriber is told, as far as *count* messages."""
    numbers: list[int] = []
    while len(numbers) < count:
        message = client.do(lambda _: subscriber.get_message(timeout=30))
        if message is None:
            break
        numbers.append(int(message["data"]))
    return numbers


@pytest.fixture(params=["subscribe", "psubscribe"])
def subscriber(request: pytest.FixtureRequest, client: RedisClient) -> Iterator[Any]:
    """A subscriber of the application's own, which the server has confirmed."""
    made: list[Any] = []

    def make(redis_client: Any) -> Any:
        made.append(redis_client.pubsub())
        return getattr(made[0], request.param)("orders")

    client.do(make)
    confirmed = client.do(lambda _: made[0].get_message(timeout=30))
    assert confirmed["type"] == request.param
    made[0].ignore_subscribe_messages = True
    yield made[0]
    client.do(lambda _: ended(made[0]))


def test_a_subscriber_loses_nothing(
    client: RedisClient, subscriber: Any, world: RedisWorld, rotate: Callable[[], None]
) -> None:
    """What was delivered before a rotation, and what comes after it, is all received."""
    publish(world)
    rotate()
    publish(world)

    assert received(client, subscriber, 2 * MESSAGES) == [*range(MESSAGES), *range(MESSAGES)]


def test_a_subscriber_that_is_cut_off_subscribes_again(
    client: RedisClient, subscriber: Any, world: RedisWorld, rotate: Callable[[], None]
) -> None:
    """After two rotations its first password is gone; it logs in with the new one and goes on."""
    rotate()
    rotate()
    kill(world)
    # It notices while it listens.
    client.do(lambda _: subscriber.get_message(timeout=1))
    client.do(lambda _: subscriber.get_message(timeout=0.2))
    publish(world)

    assert received(client, subscriber) == list(range(MESSAGES))


def test_a_watch_lasts_through_a_rotation(
    client: RedisClient, world: RedisWorld, rotate: Callable[[], None]
) -> None:
    """A transaction that was begun before is done on the same connection, and still sees who interferes."""
    made: list[Any] = []

    def watch(redis_client: Any) -> Any:
        made.append(redis_client.pipeline())
        return made[0].watch("watched")

    client.do(watch)
    rotate()
    made[0].multi()
    made[0].set("watched", "mine")
    with closing(world.admin()) as admin:
        admin.set("watched", "theirs")

    with pytest.raises(redis.WatchError):
        client.do(lambda _: made[0].execute())


def test_who_holds_one_connection_keeps_it(client: RedisClient, rotate: Callable[[], None]) -> None:
    """A client of one connection has the same one before and after, whatever rotates meanwhile."""
    held: list[Any] = []

    def hold(redis_client: Any) -> Any:
        held.append(redis_client.client())
        return held[0].client_id()

    before = client.do(hold)
    rotate()

    assert client.do(lambda _: held[0].client_id()) == before
    client.do(lambda _: ended(held[0]))


def test_a_monitor_sees_all(client: RedisClient, world: RedisWorld, rotate: Callable[[], None]) -> None:
    """What the server does is heard through a rotation, and in a silence that is longer than the time-out."""
    monitor = client.do(_monitor)
    rotate()
    time.sleep(TIMEOUT_SECONDS + 0.5)
    with closing(world.admin()) as admin:
        admin.set("seen", "by the monitor")

    def is_there() -> bool:
        return "SET seen by the monitor" in client.do(lambda _: monitor.next_command())["command"]

    eventually(is_there, "the monitor sees the command")
    client.do(lambda _: _end(monitor))


def test_what_is_lent_next_is_logged_in_anew(client: RedisClient, rotate: Callable[[], None]) -> None:
    """An idle connection of before a rotation is replaced where it is lent, once."""
    before = client.do(lambda c: c.client_id())
    rotate()
    after = client.do(lambda c: c.client_id())

    assert after != before
    assert client.do(lambda c: c.client_id()) == after


def test_a_connection_that_the_server_has_ended_is_never_lent(client: RedisClient, world: RedisWorld) -> None:
    """A server that ends idle sessions costs no request, not even one that may not be repeated."""
    for number in range(20):
        assert client.do(lambda c: c.incr(world.user)) == number + 1
        kill(world)
    client.do(lambda c: c.delete(world.user))


def _monitor(redis_client: Any) -> Any:
    monitor = redis_client.monitor()
    if hasattr(monitor, "__aenter__"):
        return monitor.__aenter__()
    return monitor.__enter__()


def _end(monitor: Any) -> Any:
    if hasattr(monitor, "__aexit__"):
        return monitor.__aexit__(None, None, None)
    return monitor.__exit__(None, None, None)
