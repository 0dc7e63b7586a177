"""Does a rotation of a Redis user survive being killed, before and after every single call that it makes?"""

from contextlib import closing

from ledger_db import ConnectionManager, Settings
from ledger_db.sandbox import Sandbox
from tests.support.crashes import DIED, Boundaries, WatchedClient, in_child, watched_redis
from tests.support.redis_world import RedisWorld
from tests.support.rotations import Rotations, new_client, new_token


def killed(rotations: Rotations, token: str, *, fatal: int | None) -> tuple[int, int]:
    """Rotate in a process that dies at the boundary *fatal*."""
    client = new_client(rotations.box)

    def work(boundaries: Boundaries) -> None:
        with watched_redis(boundaries):
            rotations.run(token, runner=rotations.runner(WatchedClient(client, boundaries)))

    with closing(client):
        return in_child(work, fatal=fatal)


def test_every_crash_ends_well(environment: Sandbox, world: RedisWorld) -> None:
    """Killed anywhere, AWSCURRENT logs in; tried again with the same token, the rotation ends."""
    settings = Settings(
        database_secret_id=None, redis_secret_id=world.secret_id, refresh_interval_seconds=300
    )
    with closing(new_client(environment)) as client, ConnectionManager(settings) as db:
        rotations = Rotations(environment, client, "redis-acl", world.secret_id)
        status, boundaries = killed(rotations, new_token(), fatal=None)
        assert status == 0

        for fatal in range(1, boundaries + 1):
            token = new_token()
            assert killed(rotations, token, fatal=fatal) == (DIED, 0)
            assert world.logs_in(world.fields()["password"]), f"AWSCURRENT is dead after {fatal}"
            db.redis.connection_pool.disconnect()
            assert db.redis.ping(), f"no service after a crash at {fatal} of {boundaries}"

            rotations.run(token)

            assert rotations.labels().keys() == {"AWSCURRENT", "AWSPREVIOUS"}
            assert rotations.labels()["AWSCURRENT"] == token
            assert world.logs_in(world.fields()["password"])
            assert len(world.known()) == 2

    print(f"\nredis-acl: {boundaries} crash points, AWSCURRENT dead at 0, all ended consistent")  # noqa: T201
    assert boundaries >= 38


def test_a_new_rotation_after_a_crash_ends_well_too(environment: Sandbox, world: RedisWorld) -> None:
    """The one that crashed is given up at every point, and AWSCURRENT logs in whatever it left behind."""
    with closing(new_client(environment)) as client:
        rotations = Rotations(environment, client, "redis-acl", world.secret_id)
        _, boundaries = killed(rotations, new_token(), fatal=None)

        for fatal in range(1, boundaries + 1, 3):
            killed(rotations, new_token(), fatal=fatal)
            rotations.repair()
            assert "AWSPENDING" not in rotations.labels()
            token = rotations.run()

            assert rotations.labels()["AWSCURRENT"] == token
            assert world.logs_in(world.fields()["password"])
            assert len(world.known()) == 2
