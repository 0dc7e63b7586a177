"""How long does an answer of Redis take at most: as long as was asked for, and the time-out on top?"""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis

from ledger_db import Settings
from ledger_db.sandbox import Sandbox
from tests.support.redis_clients import KINDS, RedisClient, Work, direct_redis_settings, ended, redis_client
from tests.support.redis_front import RedisFront, redis_front

TIMEOUT_SECONDS = 0.6
WAIT_SECONDS = 1.3


@pytest.fixture
def front(box: Sandbox) -> Iterator[RedisFront]:
    """A proxy in front of the server, whose keys are gone."""
    with closing(box.redis.connect()) as admin:
        admin.flushall()
    with redis_front(box.redis.host, box.redis.port) as front:
        yield front


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, box: Sandbox, front: RedisFront) -> Iterator[RedisClient]:
    """A client that does not wait long by itself."""
    settings = direct_redis_settings(box, redis_port=front.port, redis_timeout_seconds=TIMEOUT_SECONDS)
    with redis_client(request.param, settings) as client:
        yield client


def seconds_until_timeout(client: RedisClient, work: Work) -> float:
    """Return after how long *work* ends in a time-out."""
    began = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        client.do(work)
    return time.monotonic() - began


@pytest.mark.parametrize(
    "work",
    [
        lambda client: client.blpop(["l"], timeout=WAIT_SECONDS),
        lambda client: client.brpop(["l"], timeout=WAIT_SECONDS),
        lambda client: client.brpoplpush("l", "m", timeout=WAIT_SECONDS),
        lambda client: client.blmove("l", "m", timeout=WAIT_SECONDS),
        lambda client: client.blmpop(WAIT_SECONDS, 1, "l", direction="LEFT"),
        lambda client: client.bzpopmin(["z"], timeout=WAIT_SECONDS),
        lambda client: client.bzpopmax(["z"], timeout=WAIT_SECONDS),
        lambda client: client.bzmpop(WAIT_SECONDS, 1, ["z"], min=True),
        lambda client: client.xread({"s": "$"}, block=int(WAIT_SECONDS * 1000)),
        lambda client: client.wait(1, int(WAIT_SECONDS * 1000)),
        lambda client: client.execute_command("blpop", "l", WAIT_SECONDS),
    ],
    ids=[
        "blpop",
        "brpop",
        "brpoplpush",
        "blmove",
        "blmpop",
        "bzpopmin",
        "bzpopmax",
        "bzmpop",
        "xread",
        "wait",
        "by-hand",
    ],
)
def test_a_blocking_command_waits_as_long_as_it_says(client: RedisClient, work: Work) -> None:
    """It answers that there was nothing, when its own time is over, and not the time-out of the client."""
    began = time.monotonic()
    answer = client.do(work)

    assert not answer
    assert time.monotonic() - began >= WAIT_SECONDS


def test_a_consumer_of_a_group_waits_too(client: RedisClient) -> None:
    """A group called BLOCK does not confuse anybody."""
    client.do(lambda client: client.xgroup_create("s", "BLOCK", mkstream=True))

    def read(client: Any) -> Any:
        return client.xreadgroup("BLOCK", "c", {"s": ">"}, block=int(WAIT_SECONDS * 1000))

    assert not client.do(read)


def test_those_of_a_pipeline_wait_one_after_the_other(client: RedisClient) -> None:
    """The answer after two of them takes as long as both."""

    def both(client: Any) -> Any:
        pipe = client.pipeline(transaction=False)
        return pipe.blpop(["l"], timeout=0.5).blpop(["l"], timeout=0.5).get("k").execute()

    assert client.do(both) == [None, None, None]


def test_one_that_waits_for_ever_is_answered(client: RedisClient, box: Sandbox) -> None:
    """Zero is without a limit: it is answered whenever there is something."""

    def push_later() -> None:
        time.sleep(WAIT_SECONDS)
        with closing(box.redis.connect()) as admin:
            admin.rpush("l", "job")

    thread = threading.Thread(target=push_later)
    thread.start()
    try:
        assert list(client.do(lambda client: client.blpop(["l"], timeout=0))) == [b"l", b"job"]
    finally:
        thread.join()


def test_a_subscriber_waits_as_long_as_it_takes(client: RedisClient, box: Sandbox) -> None:
    """A channel on which nothing is said for longer than the time-out is no failure."""
    made: list[Any] = []

    def subscribe(client: Any) -> Any:
        made.append(client.pubsub(ignore_subscribe_messages=True))
        return made[0].subscribe("orders")

    def publish_later() -> None:
        time.sleep(WAIT_SECONDS)
        with closing(box.redis.connect()) as admin:
            admin.publish("orders", "late")

    def next_message(client: Any) -> Any:
        return made[0].get_message(timeout=None)

    client.do(subscribe)
    assert client.do(next_message) is None  # the confirmation, which is ignored
    thread = threading.Thread(target=publish_later)
    thread.start()
    try:
        assert client.do(next_message)["data"] == b"late"
    finally:
        thread.join()
        client.do(lambda _: ended(made[0]))


def test_a_stalled_server_ends_a_read_after_the_timeout(client: RedisClient, front: RedisFront) -> None:
    """Nobody waits for it twice, and the next request has a connection that works."""
    client.do(lambda client: client.get("k"))
    with front.stalled():
        seconds = seconds_until_timeout(client, lambda client: client.get("k"))
    front.hang_up()

    assert TIMEOUT_SECONDS * 0.9 <= seconds < 20
    assert client.do(lambda client: client.get("k")) is None


def test_a_stalled_server_ends_a_login_after_the_timeout(client: RedisClient, front: RedisFront) -> None:
    """The same where the connection has to be made first."""
    front.hang_up()
    with front.stalled():
        seconds = seconds_until_timeout(client, lambda client: client.get("k"))

    assert seconds < 20


def test_a_stalled_server_ends_a_blocking_command(client: RedisClient, front: RedisFront) -> None:
    """It ends the time-out after it should have answered by itself."""
    client.do(lambda client: client.get("k"))
    with front.stalled():
        seconds = seconds_until_timeout(client, lambda client: client.blpop(["l"], timeout=WAIT_SECONDS))

    assert WAIT_SECONDS + TIMEOUT_SECONDS * 0.9 <= seconds < WAIT_SECONDS + 20


def test_after_a_blocking_command_the_timeout_is_the_usual_one(
    client: RedisClient, front: RedisFront
) -> None:
    """What one command asked for is not there for the next one on its connection."""
    client.do(lambda client: client.rpush("l", "at once"))
    client.do(lambda client: client.blpop(["l"], timeout=30))
    with front.stalled():
        assert seconds_until_timeout(client, lambda client: client.get("k")) < 20


def test_by_default_a_stalled_server_ends_a_read_within_ten_seconds() -> None:
    """Nothing has to be set for that, and connecting first is counted."""
    settings = Settings()

    assert settings.connect_timeout_seconds + settings.redis_timeout_seconds <= 10.0


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_text_on_request(kind: str, box: Sandbox) -> None:
    """Bytes by default, text for whoever sets it; the manager itself does not mind."""
    with redis_client(kind, direct_redis_settings(box, redis_decode_responses=True)) as client:
        client.do(lambda client: client.set("k", "v"))

        assert client.do(lambda client: client.get("k")) == "v"
        assert client.db.probe().ok
