"""Do redis-py's own clients keep working while the password of their user rotates?"""

import pickle
from typing import Any

import pytest
import redis
import redis.asyncio

import ledger_db
from tests.support.redis_world import RedisWorld
from tests.support.rotations import Rotations
from tests.support.waiting import eventually


@pytest.fixture
def provider(world: RedisWorld, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One for the test's own user."""
    for name, value in world.box.environment.items():
        monkeypatch.setenv(name, value)
    return ledger_db.redis_credentials(world.secret_id)


def address(world: RedisWorld) -> dict[str, Any]:
    """Return what the client knows by itself."""
    return {"host": world.box.redis.host, "port": world.box.redis.port}


@pytest.mark.parametrize("pool", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_a_client_goes_on(world: RedisWorld, rotations: Rotations, provider: Any, pool: Any) -> None:
    """Connected all the time, or with a login for each command, over rotations that end older passwords."""
    lasting = redis.Redis(connection_pool=pool(credential_provider=provider, **address(world)))
    url = f"redis://{world.box.redis.host}:{world.box.redis.port}/0"
    anew = redis.Redis.from_url(url, credential_provider=provider)
    for number in range(4):
        assert lasting.set("key", number)
        anew.connection_pool.disconnect()
        assert anew.get("key") == str(number).encode()
        rotations.run()
        password = world.fields()["password"]
        provider._looked_at = float("-inf")  # two seconds later

        def is_known(password: str = password) -> bool:
            return bool(provider.get_credentials()[1] == password)

        eventually(is_known, "the rotation is followed")
    lasting.close()
    anew.close()


async def test_an_asynchronous_client_goes_on(world: RedisWorld, rotations: Rotations, provider: Any) -> None:
    """The same provider serves it."""
    client = redis.asyncio.Redis(credential_provider=provider, **address(world))
    assert await client.ping()
    await client.connection_pool.disconnect()
    rotations.run()
    assert await client.ping()
    await client.aclose()


def test_it_is_made_again_elsewhere(world: RedisWorld, provider: Any) -> None:
    """A spawned worker is sent the client's arguments."""
    again = pickle.loads(pickle.dumps(provider))

    assert again.get_credentials() == provider.get_credentials()
    assert again._shared is provider._shared


def test_programs_hear_errors_of_redis(environment: Any) -> None:
    """They retry on those, and know nothing else."""
    provider = ledger_db.redis_credentials("test/not-there", startup_timeout_seconds=1)

    with pytest.raises(redis.ConnectionError, match="test/not-there"):
        provider.get_credentials()
