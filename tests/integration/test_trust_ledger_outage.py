"""What do users of the Trust Ledger see while one of its servers is away?"""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from examples.trust_ledger.app import create_app
from ledger_db.sandbox import Sandbox

BODY = {"account": "ada", "amount": 1250, "memo": "rent"}


@pytest.fixture(scope="module")
def own_box() -> Iterator[Sandbox]:
    """Start servers that may be stopped."""
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def service(own_box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """Run the service in this process; whatever a test stopped is started again."""
    for name, value in own_box.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEDGER_DB_LOGIN_PATIENCE_SECONDS", "1")
    app = create_app()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ledger", timeout=30) as client,
    ):
        yield client


async def test_without_redis_an_append_takes_the_long_way(
    service: httpx.AsyncClient, own_box: Sandbox
) -> None:
    """A lost Redis costs time and loses nothing: one key is still one entry, and the answer says why."""
    headers = {"Idempotency-Key": "no-redis"}
    own_box.redis.stop()
    try:
        first = await service.post("/entries", json=BODY, headers=headers)
        again = await service.post("/entries", json=BODY, headers=headers)
    finally:
        own_box.redis.start()
    later = await service.post("/entries", json=BODY, headers=headers)

    assert [answer.status_code for answer in (first, again, later)] == [201, 201, 201]
    assert first.json() == again.json() == later.json()
    assert first.headers["Idempotency-Cache"] == "unavailable"
    assert later.headers["Idempotency-Cache"] == "used"


async def test_without_postgresql_an_append_may_be_tried_again(
    service: httpx.AsyncClient, own_box: Sandbox
) -> None:
    """Nothing is acknowledged while PostgreSQL is away; sent again later, the same request is one entry."""
    headers = {"Idempotency-Key": "no-postgres"}
    own_box.postgres.stop()
    try:
        away = await service.post("/entries", json=BODY, headers=headers)
    finally:
        own_box.postgres.start()
    back = await service.post("/entries", json=BODY, headers=headers)

    assert away.status_code == 503
    assert away.headers["Retry-After"] == "1"
    assert back.status_code == 201
    assert back.headers["Idempotency-Replayed"] == "false"
