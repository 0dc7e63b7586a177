"""Can the whole ledger, and one entry in it, be checked from outside?"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from examples.trust_ledger import chain, ledger, verification
from examples.trust_ledger.merkle import verify_inclusion
from ledger_db.sandbox import Sandbox
from tests.support.trust_ledger import append, ledger_service, tampering, walk


@pytest.fixture
async def service(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """Run the service in this process, with a ledger of seven entries that is read three at a time."""
    monkeypatch.setenv("TRUST_LEDGER_VERIFY_PAGE_ENTRIES", "3")
    async with ledger_service(box, monkeypatch) as client:
        for number in range(7):
            assert (await append(client, f"k{number}")).status_code == 201
        yield client


async def test_a_long_walk_tells_how_far_it_is(service: httpx.AsyncClient) -> None:
    """Whoever waits for a verdict sees that something happens."""
    *progress, verdict = await walk(service)

    assert progress == [{"checked": checked, "entries": 7} for checked in (3, 6, 7)]
    assert (verdict["verified"], verdict["entries"]) == (True, 7)


async def test_a_flaw_ends_the_walk_on_any_page(service: httpx.AsyncClient, box: Sandbox) -> None:
    """The walk goes on where the page before ended, and ends where the chain is broken."""
    with tampering(box) as cursor:
        cursor.execute("UPDATE entries SET memo = 'forged' WHERE id = 7")
    *progress, verdict = await walk(service)

    assert [step["checked"] for step in progress] == [3, 6]
    assert (verdict["verified"], verdict["entries"]) == (False, 6)


async def test_a_forged_end_is_noticed(service: httpx.AsyncClient, box: Sandbox) -> None:
    """Whoever replaces the last entry by another one has to change the end of the chain as well."""
    with tampering(box) as cursor:
        cursor.execute("UPDATE chain_end SET hash = repeat('0', 64)")
    verdict = (await walk(service))[-1]

    assert verdict["verified"] is False
    assert "entry 7 is not the one" in verdict["flaw"]


async def test_a_walk_holds_no_connection_between_pages(
    service: httpx.AsyncClient, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a client takes to read, requests and rotations have all connections to themselves."""
    held: list[int] = []

    def look(*arguments: Any, **named: Any) -> str | None:
        with tampering(box) as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'ledger_app_%' AND state <> 'idle'"
            )
            held.append(cursor.fetchone()[0])
        return chain.find_flaw(*arguments, **named)

    monkeypatch.setattr(verification, "find_flaw", look)

    assert (await walk(service))[-1]["verified"] is True
    assert held == [0] * 7


async def test_entries_of_the_same_moment_do_not_disturb_a_walk(service: httpx.AsyncClient) -> None:
    """What is appended while somebody verifies is not part of that verification, and no flaw."""
    verdicts = [walk(service) for _ in range(5)]
    appends = [append(service, f"meanwhile-{number}") for number in range(20)]
    results: list[Any] = await asyncio.gather(*verdicts, *appends)

    assert all(lines[-1]["verified"] is True for lines in results[:5])
    assert (await walk(service))[-1]["entries"] == 27


async def test_a_walk_that_can_not_be_finished_gives_no_verdict(
    service: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that goes away in the middle is neither a flaw nor a clean bill of health."""

    async def read_once(session: Any, *, after: int, limit: int) -> Any:
        if after:
            await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return await ledger.read_page(session, after=after, limit=limit)

    monkeypatch.setattr(verification, "read_page", read_once)
    *progress, verdict = await walk(service)

    assert [step["checked"] for step in progress] == [3]
    assert (verdict["verified"], verdict["entries"]) == (None, 3)


async def test_every_entry_can_be_proven(service: httpx.AsyncClient) -> None:
    """A client that keeps the root can check each of its entries, without trusting the service."""
    root = (await service.get("/root")).json()
    entries = (await service.get("/entries")).json()["entries"]

    assert root["size"] == 7
    for entry in entries:
        proof = (await service.get(f"/entries/{entry['id']}/proof")).json()
        assert proof["root"] == root["root"]
        assert verify_inclusion(
            bytes.fromhex(entry["hash"]),
            index=entry["id"] - 1,
            size=root["size"],
            proof=[bytes.fromhex(step) for step in proof["proof"]],
            root=bytes.fromhex(root["root"]),
        )


async def test_an_entry_that_is_not_there_can_not_be_proven(service: httpx.AsyncClient) -> None:
    """There is no proof for what was never recorded."""
    answer = await service.get("/entries/8/proof")

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_a_changed_ledger_has_another_root(service: httpx.AsyncClient, box: Sandbox) -> None:
    """Whoever has kept a root notices a change, even one with every later hash made to fit."""
    before = (await service.get("/root")).json()["root"]
    with tampering(box) as cursor:
        cursor.execute("UPDATE entries SET hash = repeat('1', 64) WHERE id = 2")

    assert (await service.get("/root")).json()["root"] != before


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM entries WHERE id = 2",
        "DELETE FROM entries WHERE id = 7",
        "UPDATE entries SET hash = 'no hash' WHERE id = 5",
    ],
)
async def test_a_damaged_ledger_has_no_root(service: httpx.AsyncClient, box: Sandbox, damage: str) -> None:
    """A tree over what is left would prove nothing."""
    with tampering(box) as cursor:
        cursor.execute(damage)
    answer = await service.get("/root")

    assert answer.status_code == 500
    assert "verify the chain" in answer.json()["detail"]
