"""Does a client of Redis find the server that took over, and leave the one that did not?"""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis

from ledger_db.connections import addresses
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.redis import EmbeddedRedis
from tests.support.endpoint import HOST, Endpoint, endpoint
from tests.support.redis_clients import KINDS, RedisClient, direct_redis_settings, redis_client
from tests.support.waiting import eventually

THERE = "127.0.0.2"

# How a write is asked for: what is refused where it is sent, where it is queued, and inside of a script.
WRITES: dict[str, Callable[[Any], Any]] = {
    "a command": lambda client: client.set("failover", "1"),
    "a transaction": lambda client: client.pipeline(transaction=True).set("failover", "1").execute(),
    "a pipeline": lambda client: client.pipeline(transaction=False).set("failover", "1").execute(),
    "a script": lambda client: client.eval("return redis.call('set', KEYS[1], '1')", 1, "failover"),
}


@pytest.fixture(scope="module")
def replica(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A server that was the primary once."""
    folder, password = tmp_path_factory.mktemp("replica"), box.redis.admin_password
    server = EmbeddedRedis(folder / "redis", admin_password=password, give_up=threading.Event())
    server.write_users()
    server.start()
    try:
        assert server.port is not None
        user = box.redis.admin_user
        with closing(redis.Redis(host=HOST, port=server.port, username=user, password=password)) as admin:
            admin.replicaof(HOST, 1)  # nobody is there, and nobody has to be
        yield server
    finally:
        server.stop()


@pytest.fixture
def late(replica: EmbeddedRedis) -> Iterator[Endpoint]:
    """An endpoint that leads to the replica still."""
    assert replica.port is not None
    with endpoint(replica.port) as late:
        yield late


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_replica_refuses_a_write_once(
    box: Sandbox, late: Endpoint, kind: str, write: Callable[[Any], Any]
) -> None:
    """An endpoint that follows a failover late costs what was refused, and no restart."""
    settings = direct_redis_settings(box, redis_port=late.port)
    with redis_client(kind, settings) as client:
        assert client.do(lambda client: client.get("nothing")) is None
        with pytest.raises(redis.ReadOnlyError):
            client.do(write)

        late.leads_to = box.redis.port

        assert client.do(write)


@pytest.mark.parametrize("kind", KINDS)
def test_who_only_reads_stays_where_it_is(box: Sandbox, late: Endpoint, kind: str) -> None:
    """A replica that is asked for nothing else is as good as any."""
    with redis_client(kind, direct_redis_settings(box, redis_port=late.port)) as client:
        connections = {client.do(lambda client: client.client_id()) for _ in range(3)}

    assert len(connections) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers at every address of the loopback")
@pytest.mark.parametrize("kind", KINDS)
def test_connections_at_an_address_that_the_name_has_left_are_replaced(
    box: Sandbox, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old server may live on and say nothing, and nobody is kept there for it."""
    monkeypatch.setattr(addresses, "INTERVAL_SECONDS", 0.02)
    found_at, resolve = [HOST], socket.getaddrinfo

    def resolve_here(host: Any, *arguments: Any, **named: Any) -> Any:
        return resolve(found_at[0] if host == "localhost" else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    with endpoint(box.redis.port) as here:
        settings = direct_redis_settings(box, redis_host="localhost", redis_port=here.port)
        with redis_client(kind, settings) as client:
            before = own_id(client)
            assert own_id(client) == before
            with endpoint(box.redis.port, host=THERE, own_port=here.port) as there:
                found_at[0] = THERE
                eventually(lambda: own_id(client) != before, "it is a new one")
                after = own_id(client)
                assert own_id(client) == after
                assert there.led <= 2  # the client's, and the one that showed that a login works there


def own_id(client: RedisClient) -> int:
    """Return the server's number for the connection that is lent now."""
    found: int = client.do(lambda client: client.client_id())
    return found
