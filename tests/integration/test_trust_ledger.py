"""Does the Trust Ledger keep its promises, on a real PostgreSQL and a real Redis?"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from ledger_db.sandbox import Sandbox
from tests.support.trust_ledger import append, ledger_service, tampering, walk


@pytest.fixture
def admin(box: Sandbox) -> Iterator[Any]:
    """Log in to PostgreSQL as the superuser, to look at and tamper with what the service wrote."""
    with tampering(box) as cursor:
        yield cursor


@pytest.fixture
def redis_admin(box: Sandbox) -> Iterator[Any]:
    """Log in to Redis as its administrator."""
    with closing(box.redis.connect()) as client:
        yield client


@pytest.fixture
async def service(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """Run the service in this process, on an empty database."""
    async with ledger_service(box, monkeypatch) as client:
        yield client


async def test_an_acknowledged_entry_is_committed(service: httpx.AsyncClient, admin: Any) -> None:
    """By the time the client hears of an entry, everybody else can see it."""
    answer = await append(service, "k1")
    admin.execute("SELECT id, account, amount, memo, hash FROM entries")

    assert answer.status_code == 201
    assert admin.fetchall() == [(1, "ada", 1250, "rent", answer.json()["hash"])]


async def test_entries_can_be_read_back(service: httpx.AsyncClient) -> None:
    """An entry looks the same in the answer to the append, on its own, and in the list."""
    entry = (await append(service, "k1")).json()

    assert (await service.get("/entries/1")).json() == entry
    assert (await service.get("/entries")).json() == {"entries": [entry], "next": None}
    assert (await service.get("/entries/2")).status_code == 404


async def test_entries_are_chained(service: httpx.AsyncClient) -> None:
    """Each entry names the hash of the one before it, the first one names nothing."""
    first = (await append(service, "k1")).json()
    second = (await append(service, "k2")).json()

    assert first["previous_hash"] == "0" * 64
    assert second["previous_hash"] == first["hash"]
    assert (await walk(service))[-1] == {
        "verified": True,
        "entries": 2,
        "hash": second["hash"],
        "flaw": None,
    }


async def test_an_empty_ledger_verifies(service: httpx.AsyncClient) -> None:
    """Before the first entry there is a chain of none."""
    assert (await walk(service))[-1]["verified"] is True


@pytest.mark.parametrize("forgetful", [False, True], ids=["remembered", "forgotten"])
async def test_a_repeated_request_is_one_entry(
    service: httpx.AsyncClient, redis_admin: Any, *, forgetful: bool
) -> None:
    """The same key and body again: the same answer and no second entry, whatever Redis has lost."""
    first = await append(service, "k1")
    if forgetful:
        redis_admin.flushall()
    again = await append(service, "k1")

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first.headers["Idempotency-Replayed"] == "false"
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len((await service.get("/entries")).json()["entries"]) == 1


@pytest.mark.parametrize("forgetful", [False, True], ids=["remembered", "forgotten"])
async def test_a_key_can_not_be_used_for_another_entry(
    service: httpx.AsyncClient, redis_admin: Any, *, forgetful: bool
) -> None:
    """The same key with another body is the client's mistake, and changes nothing."""
    await append(service, "k1")
    if forgetful:
        redis_admin.flushall()
    answer = await append(service, "k1", amount=999)

    assert answer.status_code == 422
    assert "entry 1" in answer.json()["detail"]
    assert len((await service.get("/entries")).json()["entries"]) == 1


async def test_an_append_without_a_key_is_refused(service: httpx.AsyncClient) -> None:
    """Without a key nobody could repeat the request safely, so it is not accepted at all."""
    answer = await service.post("/entries", json={"account": "ada", "amount": 1, "memo": ""})

    assert answer.status_code == 422
    assert [problem["loc"] for problem in answer.json()["errors"]] == [["header", "Idempotency-Key"]]
    assert (await service.get("/entries")).json()["entries"] == []


async def test_duplicates_in_flight_are_one_entry(service: httpx.AsyncClient) -> None:
    """A client that sends a request twenty times at once gets one entry and twenty equal answers."""
    answers = await asyncio.gather(*(append(service, "k1") for _ in range(20)))

    assert {answer.status_code for answer in answers} == {201}
    assert {answer.json()["hash"] for answer in answers} == {answers[0].json()["hash"]}
    assert sum(answer.headers["Idempotency-Replayed"] == "false" for answer in answers) == 1
    assert len((await service.get("/entries")).json()["entries"]) == 1


async def test_concurrent_appends_do_not_fork_the_chain(service: httpx.AsyncClient) -> None:
    """Many clients at once make one chain without gaps."""
    answers = await asyncio.gather(*(append(service, f"k{number}") for number in range(30)))

    assert sorted(answer.json()["id"] for answer in answers) == list(range(1, 31))
    assert (await walk(service))[-1]["verified"] is True


async def test_a_list_is_read_page_by_page(service: httpx.AsyncClient) -> None:
    """Following ``next`` shows every entry once, in the order of the chain."""
    for number in range(7):
        await append(service, f"k{number}")
    pages: list[list[int]] = []
    after: int | None = 0
    while after is not None:
        page = (await service.get("/entries", params={"after": after, "limit": 3})).json()
        pages.append([entry["id"] for entry in page["entries"]])
        after = page["next"]

    assert pages == [[1, 2, 3], [4, 5, 6], [7]]


@pytest.mark.parametrize(
    ("tampering", "flaw"),
    [
        ("UPDATE entries SET amount = amount + 1 WHERE id = 2", "entry 2 was changed"),
        ("DELETE FROM entries WHERE id = 2", "entry 3 follows entry 1"),
        ("DELETE FROM entries WHERE id = 4", "should end with entry 4, but ends with entry 3"),
    ],
)
async def test_tampering_is_noticed(
    service: httpx.AsyncClient, admin: Any, tampering: str, flaw: str
) -> None:
    """Whoever changes the database behind the service's back is found out, with the place."""
    for number in range(4):
        await append(service, f"k{number}")
    admin.execute(tampering)
    verification = (await walk(service))[-1]

    assert verification["verified"] is False
    assert flaw in verification["flaw"]


@pytest.mark.parametrize(
    "changes",
    [
        {"account": ""},
        {"account": "nul\x00"},
        {"memo": "nul\x00"},
        {"memo": "x" * 281},
        {"amount": 2**63},
        {"amount": 1.5},
        {"amount": 1.0},
        {"amount": True},
        {"amount": "1"},
        {"amount": "much"},
    ],
    ids=str,
)
async def test_what_can_not_be_recorded_is_refused(
    service: httpx.AsyncClient, changes: dict[str, Any]
) -> None:
    """Input that the database could not keep exactly is the client's mistake, never a failure here."""
    assert (await append(service, "k1", **changes)).status_code == 422
    assert (await walk(service))[-1]["entries"] == 0


async def test_an_unpaired_surrogate_is_refused(service: httpx.AsyncClient) -> None:
    """JSON can spell half a character; no text can hold it."""
    body = b'{"account": "ada", "amount": 1, "memo": "\\ud800"}'
    headers = {"Idempotency-Key": "k1", "Content-Type": "application/json"}

    assert (await service.post("/entries", content=body, headers=headers)).status_code == 422


async def test_the_service_says_that_it_is_well(service: httpx.AsyncClient) -> None:
    """A load balancer can ask whether the service can work."""
    assert (await service.get("/health/ready")).status_code == 200
