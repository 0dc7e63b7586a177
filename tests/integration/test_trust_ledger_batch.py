"""Is each item of a batch treated as if it had come alone?"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from ledger_db.sandbox import Sandbox
from tests.support.trust_ledger import append, ledger_service, tampering, walk


@pytest.fixture
async def service(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """Run the service in this process, on an empty database."""
    async with ledger_service(box, monkeypatch) as client:
        yield client


@pytest.fixture
def picky_database(box: Sandbox, service: httpx.AsyncClient) -> Iterator[None]:
    """Let PostgreSQL refuse one account, for a reason that the service knows nothing of."""
    with tampering(box) as cursor:
        cursor.execute("ALTER TABLE entries ADD CONSTRAINT picky CHECK (account <> 'mallory')")
        yield
        cursor.execute("ALTER TABLE entries DROP CONSTRAINT picky")


def item(key: str, **changes: Any) -> dict[str, Any]:
    """Make an item with the idempotency key *key*."""
    return {"idempotency_key": key, "account": "ada", "amount": 1250, "memo": "rent"} | changes


async def send(service: httpx.AsyncClient, *items: object) -> list[dict[str, Any]]:
    """Send a batch, and return what became of each item."""
    answer = await service.post("/entries/batch", json={"items": items})
    assert answer.status_code == 200, answer.text
    outcomes: list[dict[str, Any]] = answer.json()["items"]
    return outcomes


async def test_a_batch_is_appended_in_its_order(service: httpx.AsyncClient) -> None:
    """Every item is an entry of the chain, as if it had been appended by itself."""
    outcomes = await send(service, item("k1"), item("k2"), item("k3"))

    assert [outcome["status"] for outcome in outcomes] == [201, 201, 201]
    assert [outcome["entry"]["id"] for outcome in outcomes] == [1, 2, 3]
    assert (await service.get("/entries/2")).json() == outcomes[1]["entry"]
    assert (await walk(service))[-1]["verified"] is True


async def test_a_batch_that_is_sent_again_adds_what_is_missing(service: httpx.AsyncClient) -> None:
    """A client that has heard no answer sends the same again, and every item is there once."""
    first = await send(service, item("k1"), item("k2"))
    again = await send(service, item("k1"), item("k2"), item("k3"))

    assert [outcome["entry"] for outcome in again[:2]] == [outcome["entry"] for outcome in first]
    assert [outcome["replayed"] for outcome in again] == [True, True, False]
    assert (await walk(service))[-1]["entries"] == 3


async def test_a_key_means_the_same_alone_and_in_a_batch(service: httpx.AsyncClient) -> None:
    """One key is one entry, on whichever way it comes."""
    alone = (await append(service, "k1")).json()
    outcomes = await send(service, item("k1"), item("k2"))
    later = await append(service, "k2")

    assert outcomes[0] == {"status": 201, "replayed": True, "entry": alone, "problem": None}
    assert later.json() == outcomes[1]["entry"]
    assert later.headers["Idempotency-Replayed"] == "true"


async def test_a_conflict_does_not_undo_the_others(service: httpx.AsyncClient) -> None:
    """An item whose key stands for something else is refused, and says for what; the others are there."""
    outcomes = await send(service, item("k1"), item("k1", amount=999), item("k2"), item("k1"))

    assert [outcome["status"] for outcome in outcomes] == [201, 422, 201, 201]
    assert "entry 1" in outcomes[1]["problem"]
    assert outcomes[3]["entry"] == outcomes[0]["entry"]
    assert (await walk(service))[-1]["entries"] == 2


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (item("k2", amount=1.5), "amount"),
        (item("k2", memo="nul\x00"), "memo"),
        (item(""), "idempotency_key"),
        (item("k2", extra=1), "item"),
        ("no object", "item"),
        (None, "item"),
    ],
    ids=str,
)
async def test_an_item_that_is_wrong_does_not_send_back_the_others(
    service: httpx.AsyncClient, wrong: object, where: str
) -> None:
    """What is wrong with an item is said where it stands, and the items around it are recorded."""
    outcomes = await send(service, item("k1"), wrong, item("k3"))

    assert [outcome["status"] for outcome in outcomes] == [201, 422, 201]
    assert outcomes[1]["problem"].startswith(f"{where}: ")
    assert [outcome["entry"]["id"] for outcome in (outcomes[0], outcomes[2])] == [1, 2]


async def test_an_item_that_postgresql_refuses_does_not_undo_the_others(
    service: httpx.AsyncClient, picky_database: None
) -> None:
    """A statement that fails costs its item and nothing else, and leaves no gap in the chain."""
    outcomes = await send(service, item("k1"), item("k2", account="mallory"), item("k3"))

    assert [outcome["status"] for outcome in outcomes] == [201, 422, 201]
    assert "mallory" not in outcomes[1]["problem"]
    assert outcomes[2]["entry"]["previous_hash"] == outcomes[0]["entry"]["hash"]
    assert (await walk(service))[-1]["verified"] is True


async def test_an_append_that_postgresql_refuses_is_a_clean_answer(
    service: httpx.AsyncClient, picky_database: None
) -> None:
    """The same alone: a problem document, nothing recorded, nothing of the database in it."""
    answer = await append(service, "k1", account="mallory")

    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "mallory" not in answer.text
    assert (await walk(service))[-1]["entries"] == 0


@pytest.mark.parametrize("items", [[], [item(f"k{number}") for number in range(101)]], ids=["none", "101"])
async def test_a_batch_has_a_size(service: httpx.AsyncClient, items: list[dict[str, Any]]) -> None:
    """Everybody waits for a batch, so it has an end; an empty one is a mistake."""
    answer = await service.post("/entries/batch", json={"items": items})

    assert answer.status_code == 422
    assert (await walk(service))[-1]["entries"] == 0


async def test_batches_at_once_make_one_chain(service: httpx.AsyncClient) -> None:
    """Batches with refused items in them neither mix nor deadlock."""
    batches = [
        [item(f"k{batch}-{number}", amount="x" if number == 0 else batch) for number in range(5)]
        for batch in range(8)
    ]
    outcomes = await asyncio.gather(*(send(service, *batch) for batch in batches))
    ids = [[outcome["entry"]["id"] for outcome in batch[1:]] for batch in outcomes]

    assert all(batch == list(range(batch[0], batch[0] + 4)) for batch in ids)
    assert (await walk(service))[-1]["entries"] == 32
