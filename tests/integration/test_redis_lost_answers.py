"""Is what was asked of Redis done once, whatever becomes of its answer?"""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from ledger_db.sandbox import Sandbox
from tests.support.redis_clients import KINDS, RedisClient, Work, direct_redis_settings, redis_client
from tests.support.redis_front import RedisFront, redis_front

TRIES = 4  # the first, and as many retries as there are by default
LOST = (redis.ConnectionError, redis.TimeoutError)


@pytest.fixture
def front(box: Sandbox) -> Iterator[RedisFront]:
    """A proxy in front of the server, whose keys are gone."""
    client: Any = box.redis.connect()
    client.flushall()
    client.close()
    with redis_front(box.redis.host, box.redis.port) as front:
        yield front


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each of the clients."""
    name: str = request.param
    return name


@pytest.fixture
def client(kind: str, box: Sandbox, front: RedisFront) -> Iterator[RedisClient]:
    """A client whose answers may be lost."""
    with redis_client(kind, direct_redis_settings(box, redis_port=front.port)) as client:
        yield client


def incr_under_watch(client: Any) -> Any:
    """Count as redis-py's own helper does, which begins anew at each WatchError."""

    def count(pipe: Any) -> None:
        pipe.multi()
        pipe.incr("n")

    async def count_on_loop(pipe: Any) -> None:
        count(pipe)

    return client.transaction(count if isinstance(client, redis.Redis) else count_on_loop, "watched")


@pytest.mark.parametrize(
    ("word", "work", "left"),
    [
        ("INCR", lambda client: client.incr("n"), lambda client: client.get("n")),
        ("incr", lambda client: client.execute_command("incr", "n"), lambda client: client.get("n")),
        ("INCRBY", lambda client: client.pipeline().incr("n").execute(), lambda client: client.get("n")),
        (
            "INCRBY",
            lambda client: client.pipeline(transaction=False).get("n").incr("n").get("n").execute(),
            lambda client: client.get("n"),
        ),
        ("EXEC", incr_under_watch, lambda client: client.get("n")),
        (
            "EVAL",
            lambda client: client.eval("return redis.call('incr', KEYS[1])", 1, "n"),
            lambda client: client.get("n"),
        ),
        ("RPUSH", lambda client: client.rpush("l", "job"), lambda client: client.llen("l")),
        ("XADD", lambda client: client.xadd("s", {"k": "v"}), lambda client: client.xlen("s")),
    ],
    ids=["single", "small-letters", "transaction", "pipeline", "watch", "script", "list", "stream"],
)
def test_what_may_have_been_done_is_not_done_again(
    client: RedisClient, front: RedisFront, word: str, work: Work, left: Work
) -> None:
    """A command that changes something is done once, and the caller hears that its answer is lost."""
    front.lose(word, times=2)

    with pytest.raises(LOST) as lost:
        client.do(work)

    front.lose(word, times=0)
    assert int(client.do(left)) == 1
    assert "LEDGER_DB_REDIS_REPEAT_WRITES" in "".join(lost.value.__notes__)


def test_what_was_popped_is_not_popped_again(client: RedisClient, front: RedisFront) -> None:
    """Of three jobs one is gone with the answer, not more."""
    client.do(lambda client: client.rpush("l", "a", "b", "c"))
    front.lose("BLPOP", times=2)

    with pytest.raises(LOST):
        client.do(lambda client: client.blpop(["l"], timeout=1))

    assert client.do(lambda client: client.lrange("l", 0, -1)) == [b"b", b"c"]


@pytest.mark.parametrize(
    ("word", "work", "answer"),
    [
        ("GET", lambda client: client.get("k"), b"v"),
        ("MGET", lambda client: client.mget("k", "k"), [b"v", b"v"]),
        ("HGETALL", lambda client: client.hgetall("none"), {}),
        ("GET", lambda client: client.pipeline(transaction=False).get("k").get("k").execute(), [b"v", b"v"]),
        ("EXEC", lambda client: client.pipeline().get("k").execute(), [b"v"]),
    ],
    ids=["single", "several", "hash", "pipeline", "transaction"],
)
def test_a_read_is_repeated(
    client: RedisClient, front: RedisFront, word: str, work: Work, answer: object
) -> None:
    """Whoever only reads hears nothing of a connection that breaks, as often as retries are set."""
    client.do(lambda client: client.set("k", "v"))
    front.lose(word, times=TRIES - 1)

    assert client.do(work) == answer
    assert front.lost == TRIES - 1


def test_a_read_is_not_repeated_for_ever(client: RedisClient, front: RedisFront) -> None:
    """Once all retries are used up the error is told, and the next request works."""
    front.lose("GET", times=TRIES)

    with pytest.raises(LOST):
        client.do(lambda client: client.get("k"))

    assert client.do(lambda client: client.get("k")) is None


def test_how_often_is_a_setting(kind: str, box: Sandbox, front: RedisFront) -> None:
    """Nothing is repeated where somebody else repeats."""
    with redis_client(kind, direct_redis_settings(box, redis_port=front.port, redis_retries=0)) as client:
        front.lose("GET")

        with pytest.raises(LOST):
            client.do(lambda client: client.get("k"))

    assert front.lost == 1


@pytest.mark.parametrize(
    "work",
    [lambda client: client.incr("n"), lambda client: client.pipeline().incr("n").execute()],
    ids=["single", "transaction"],
)
def test_writes_are_repeated_for_whoever_wants_it(
    kind: str, box: Sandbox, front: RedisFront, work: Work
) -> None:
    """With the setting a lost answer is asked for again, and what it asked is done as often."""
    settings = direct_redis_settings(box, redis_port=front.port, redis_repeat_writes=True)
    with redis_client(kind, settings) as client:
        front.lose("INCRBY", times=2)
        client.do(work)

        assert client.do(lambda client: client.get("n")) == b"3"


def test_what_was_never_sent_is_sent_again(client: RedisClient, front: RedisFront) -> None:
    """A write whose connection could not be made is tried again: nothing of it has reached the server."""
    client.do(lambda client: client.get("n"))
    front.hang_up()
    front.lose("AUTH", times=2)

    assert client.do(lambda client: client.incr("n")) == 1
    assert front.lost == 2
