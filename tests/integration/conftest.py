"""What tests on real servers share: what leads to them, and what only one of them may break."""

import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger_db import Settings
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import DRIVERS, direct_settings
from tests.support.commit_cutter import CommitCutter
from tests.support.endpoint import Endpoint
from tests.support.redis_world import RedisWorld, redis_world
from tests.support.replica import Pair, pair_of_servers
from tests.support.role_givers import Answers, Giver, Role, Start
from tests.support.rotations import Rotations, new_client, own_secret


@pytest.fixture
def environment(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """The sandbox, with the environment that leads to it; its faults are cleared before and after."""
    for name, value in box.environment.items():
        monkeypatch.setenv(name, value)
    box.secrets_manager.clear_faults()
    yield box
    box.secrets_manager.clear_faults()


@pytest.fixture
def role(environment: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Role:
    """A process without keys of AWS's, in the sandbox's environment otherwise."""
    return Role(monkeypatch, tmp_path)


@pytest.fixture
def start_giver() -> Iterator[Start]:
    """Starts servers that give the credentials of a role."""
    started: list[Giver] = []

    def start(answer: Answers, port: int = 0) -> Giver:
        started.append(Giver(answer, port=port))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def settings(environment: Sandbox) -> Settings:
    """Settings for tests: nothing is polled unless a test says so, and patience is short."""
    return Settings(refresh_interval_seconds=300, login_patience_seconds=3, startup_timeout_seconds=20)


@pytest.fixture(scope="module")
def direct(box: Sandbox) -> Settings:
    """Settings that lead to the database directly; see `direct_settings`."""
    return direct_settings(box)


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """Each of the drivers."""
    name: str = request.param
    return name


@pytest.fixture
def cutter(box: Sandbox) -> Iterator[CommitCutter]:
    """A proxy in front of the server that can lose a COMMIT or its answer."""
    with CommitCutter(box.postgres.host, box.postgres.port) as cutter:
        yield cutter


@pytest.fixture(scope="module")
def own_box() -> Iterator[Sandbox]:
    """A sandbox whose servers may be stopped and killed without disturbing other tests."""
    with Sandbox() as box:
        yield box


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Pair, Endpoint]]:
    """A primary and its standby, behind an endpoint."""
    with pair_of_servers() as servers:
        yield servers


@pytest.fixture
def both(servers: tuple[Pair, Endpoint]) -> Pair:
    """Two servers that may change places."""
    return servers[0]


@pytest.fixture
def front(servers: tuple[Pair, Endpoint]) -> Endpoint:
    """The endpoint in front of them, which leads to the primary until it is told otherwise."""
    pair, front = servers
    pair.lead(front)
    return front


@pytest.fixture
def pair(environment: Sandbox) -> Iterator[Rotations]:
    """A secret of the test's own, with a pair of roles."""
    with own_secret(environment, "postgres-alternating") as rotations:
        yield rotations


@pytest.fixture
def world(box: Sandbox) -> Iterator[RedisWorld]:
    """A Redis user of the test's own, with its secret."""
    box.secrets_manager.clear_faults()
    with redis_world(box) as world:
        yield world


@pytest.fixture
def rotations(world: RedisWorld) -> Iterator[Rotations]:
    """Rotations of that user's secret."""
    with closing(new_client(world.box)) as client:
        yield Rotations(world.box, client, "redis-acl", world.secret_id)


@pytest.fixture
def test_client() -> Any:
    """Starlette's, which regrets at import that it uses httpx."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastapi.testclient import TestClient  # noqa: PLC0415
    return TestClient
