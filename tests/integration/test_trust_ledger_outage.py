"""What do users of the Trust Ledger see while one of its servers is away?"""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from ledger_db.sandbox import Sandbox
from tests.support.commit_cutter import CommitCutter, Cut
from tests.support.trust_ledger import append, ledger_service, walk


@pytest.fixture
async def service(own_box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """Run a service without patience; whatever a test stopped is started again."""
    async with ledger_service(
        own_box,
        monkeypatch,
        LEDGER_DB_LOGIN_PATIENCE_SECONDS="1",
        LEDGER_DB_RETRY_PATIENCE_SECONDS="1",
    ) as client:
        yield client


@pytest.fixture
async def patient_service(
    own_box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a service with the patience that it has by default."""
    async with ledger_service(own_box, monkeypatch) as client:
        yield client


async def test_without_redis_an_append_takes_the_long_way(
    service: httpx.AsyncClient, own_box: Sandbox
) -> None:
    """A lost Redis costs time and loses nothing: one key is still one entry, and the answer says why."""
    own_box.redis.stop()
    try:
        first = await append(service, "no-redis")
        again = await append(service, "no-redis")
    finally:
        own_box.redis.start()
    later = await append(service, "no-redis")

    assert [answer.status_code for answer in (first, again, later)] == [201, 201, 201]
    assert first.json() == again.json() == later.json()
    assert first.headers["Idempotency-Cache"] == "unavailable"
    assert later.headers["Idempotency-Cache"] == "used"


async def test_without_postgresql_an_append_may_be_tried_again(
    service: httpx.AsyncClient, own_box: Sandbox
) -> None:
    """Nothing is acknowledged while PostgreSQL is away; sent again later, the same request is one entry."""
    own_box.postgres.stop()
    try:
        away = await append(service, "no-postgres")
    finally:
        own_box.postgres.start()
    back = await append(service, "no-postgres")

    assert away.status_code == 503
    assert int(away.headers["Retry-After"]) >= 1
    assert away.headers["Content-Type"] == "application/problem+json"
    assert back.status_code == 201
    assert back.headers["Idempotency-Replayed"] == "false"


@pytest.mark.parametrize("path", ["/entries", "/entries/1", "/verify", "/root"])
async def test_without_postgresql_nothing_can_be_read(
    service: httpx.AsyncClient, own_box: Sandbox, path: str
) -> None:
    """A stream that has not begun is refused like everything else; nobody learns where the database is."""
    own_box.postgres.stop()
    try:
        away = await service.get(path)
    finally:
        own_box.postgres.start()

    assert away.status_code == 503
    assert "Retry-After" in away.headers
    assert away.headers["Content-Type"] == "application/problem+json"
    assert str(own_box.postgres.port) not in away.text


async def test_a_restart_of_postgresql_fails_no_append(
    patient_service: httpx.AsyncClient, own_box: Sandbox
) -> None:
    """Whoever appends while PostgreSQL restarts waits a little longer for an answer, and that is all."""
    gone = asyncio.Event()

    async def keep_appending(client: int) -> list[httpx.Response]:
        answers = []
        number = 0
        while not gone.is_set():
            answers.append(await append(patient_service, f"restart-{client}-{number}"))
            number += 1
        answers.append(await append(patient_service, f"restart-{client}-{number}"))
        return answers

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(keep_appending(client)) for client in range(8)]
        await asyncio.to_thread(own_box.postgres.kill)
        await asyncio.to_thread(own_box.postgres.start)
        gone.set()
    answers = [answer for client in clients for answer in client.result()]
    verdict = (await walk(patient_service))[-1]

    assert {answer.status_code for answer in answers} == {201}
    assert sorted(answer.json()["id"] for answer in answers) == list(range(1, len(answers) + 1))
    assert (verdict["verified"], verdict["entries"]) == (True, len(answers))


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_an_append_whose_commit_gets_no_answer_is_one_entry(
    own_box: Sandbox, monkeypatch: pytest.MonkeyPatch, cut: Cut
) -> None:
    """The service finds out by itself whether the entry is there, and it is there once."""
    postgres = own_box.postgres
    with CommitCutter(postgres.host, postgres.port) as cutter:
        async with ledger_service(own_box, monkeypatch, LEDGER_DB_DATABASE_PORT=str(cutter.port)) as service:
            cutter.arm(cut)
            answer = await append(service, "k1")
            verdict = (await walk(service))[-1]

    assert cutter.cut == 1
    assert answer.status_code == 201
    # Found there or written a second time, after the first was lost.
    assert answer.headers["Idempotency-Replayed"] == ("true" if cut == "after" else "false")
    assert (verdict["verified"], verdict["entries"]) == (True, 1)


async def test_a_batch_whose_commit_gets_no_answer_is_recorded_once(
    own_box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What holds for one append holds for each of a batch."""
    postgres = own_box.postgres
    body = {
        "items": [{"idempotency_key": f"k{number}", "account": "ada", "amount": 1} for number in range(3)]
    }
    with CommitCutter(postgres.host, postgres.port) as cutter:
        async with ledger_service(own_box, monkeypatch, LEDGER_DB_DATABASE_PORT=str(cutter.port)) as service:
            cutter.arm("after")
            answer = await service.post("/entries/batch", json=body)
            verdict = (await walk(service))[-1]

    assert cutter.cut == 1
    assert [item["status"] for item in answer.json()["items"]] == [201, 201, 201]
    assert (verdict["verified"], verdict["entries"]) == (True, 3)
