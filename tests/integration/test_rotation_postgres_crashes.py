"""Does a rotation survive being killed, before and after every single call that it makes?"""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.sandbox import Sandbox
from tests.support.crashes import DIED, Boundaries, WatchedClient, in_child, watched_postgres
from tests.support.rotations import Rotations, new_client, new_token


@pytest.fixture
def service(settings: Settings) -> Iterator[ConnectionManager]:
    """A service that runs through all of it."""
    with ConnectionManager(settings) as db:
        yield db


def killed(rotations: Rotations, token: str, *, fatal: int | None) -> tuple[int, int]:
    """Rotate in a process that dies at the boundary *fatal*."""
    # Made here, where it is quick, and never used here: a connection must not be shared with the child.
    client = new_client(rotations.box)

    def work(boundaries: Boundaries) -> None:
        with watched_postgres(boundaries):
            rotations.run(token, runner=rotations.runner(WatchedClient(client, boundaries)))

    with closing(client):
        return in_child(work, fatal=fatal)


def serves(db: ConnectionManager) -> bool:
    """Whether a request is answered that needs a new login."""
    db.engine.pool.connect().invalidate()
    with db.session() as session:
        return bool(session.execute(text("SELECT 1")).scalar_one() == 1)


@pytest.mark.timeout(600)  # some seventy processes, each with two rotations
@pytest.mark.parametrize("strategy", ["postgres-single", "postgres-alternating"])
def test_every_crash_ends_well(
    environment: Sandbox,
    service: ConnectionManager,
    strategy: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Killed anywhere and tried again, it ends consistent; meanwhile nobody is locked out."""
    with closing(new_client(environment)) as client:
        rotations = Rotations(environment, client, strategy)
        rotations.settle()
        status, boundaries = killed(rotations, new_token(), fatal=None)
        assert status == 0

        dead = []
        for fatal in range(1, boundaries + 1):
            token = new_token()
            assert killed(rotations, token, fatal=fatal) == (DIED, 0)
            if not rotations.logs_in():
                dead.append(fatal)
            assert serves(service), f"no service after a crash at {fatal} of {boundaries}"

            rotations.run(token)

            assert rotations.labels().keys() == {"AWSCURRENT", "AWSPREVIOUS"}
            assert rotations.labels()["AWSCURRENT"] == token
            assert rotations.logs_in()
        assert serves(service)

    record_property("crash_points", boundaries)
    record_property("crash_points_with_dead_awscurrent", len(dead))
    assert boundaries >= 38
    # The single-user strategy cannot do better; that is what AWSPENDING is read for.
    assert not dead or strategy == "postgres-single"
