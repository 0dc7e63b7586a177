"""Do the clients of the Trust Ledger notice a ledger that does not keep its promises?"""

import json
from typing import Any

import httpx
import pytest

from examples.trust_ledger.workload import LedgerWorkload

ENTRY = {"id": 1, "hash": "ab" * 32, "account": "client-0"}


def answer(body: Any, **headers: str) -> httpx.Response:
    """Make an answer of the service."""
    return httpx.Response(200, json=body, headers=headers)


@pytest.fixture
def workload() -> LedgerWorkload:
    """Make a workload in which client 0 has one acknowledged entry."""
    made = LedgerWorkload()
    assert made.judge(0, made.plan(0), answer(ENTRY)) is None
    return made


async def inspect(
    workload: LedgerWorkload, entries: list[dict[str, Any]], *, flaw: str | None, verify_lines: int = 2
) -> tuple[str, ...]:
    """Let *workload* inspect a ledger that holds *entries*, two on a page."""

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/verify":
            lines = [{"checked": 1, "entries": 1}, {"verified": flaw is None, "flaw": flaw}]
            return httpx.Response(200, text="".join(f"{json.dumps(line)}\n" for line in lines[:verify_lines]))
        after = int(request.url.params["after"])
        page = [entry for entry in entries if entry["id"] > after][:2]
        return answer({"entries": page, "next": page[-1]["id"] if len(page) == 2 else None})

    async with httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://ledger") as service:
        return await workload.inspect(service)


def test_a_client_appends_and_reads_in_turn(workload: LedgerWorkload) -> None:
    """Reads and writes are mixed, and every append that is not a repetition has a key of its own."""
    plans = [workload.plan(0) for _ in range(5)]

    assert [plan.name for plan in plans] == ["show", "append again", "list", "append", "show"]
    assert plans[0].path == "/entries/1"
    assert plans[1].headers["Idempotency-Key"] != plans[3].headers["Idempotency-Key"]


def test_clients_are_not_in_step() -> None:
    """Not everybody reads at the same time."""
    workload = LedgerWorkload()

    assert len({workload.plan(client).name for client in range(4)}) > 1


@pytest.mark.parametrize("turns", [1, 2], ids=["show", "append again"])
def test_another_answer_than_the_acknowledged_entry_is_noticed(workload: LedgerWorkload, turns: int) -> None:
    """What was acknowledged is what is shown, and what a repeated request is answered with."""
    plan = [workload.plan(0) for _ in range(turns)][-1]

    assert workload.judge(0, plan, answer(ENTRY)) is None
    assert "not the entry" in str(workload.judge(0, plan, answer(ENTRY | {"account": "else"})))


def test_a_number_that_was_given_twice_is_noticed(workload: LedgerWorkload) -> None:
    """Two entries can not have one place in the chain."""
    plan = workload.plan(4)

    assert "two entries have the number 1" in str(
        workload.judge(4, plan, answer(ENTRY | {"hash": "cd" * 32}))
    )


def test_a_service_that_can_not_use_redis_is_noticed(workload: LedgerWorkload) -> None:
    """The service hides the loss of Redis from its users; the drill must not let it hide from the report."""
    response = answer(ENTRY | {"id": 2}, **{"Idempotency-Cache": "unavailable"})

    assert "could not use Redis" in str(workload.judge(4, workload.plan(4), response))


def test_a_list_out_of_order_is_noticed(workload: LedgerWorkload) -> None:
    """A page shows entries in the order of the chain."""
    plan = [workload.plan(0) for _ in range(3)][-1]

    assert workload.judge(0, plan, answer({"entries": [{"id": 1}, {"id": 2}]})) is None
    assert "out of order" in str(workload.judge(0, plan, answer({"entries": [{"id": 2}, {"id": 1}]})))


async def test_a_ledger_with_every_acknowledged_entry_has_no_flaw(workload: LedgerWorkload) -> None:
    """Entries of others, on any number of pages, do not disturb."""
    others = [{"id": number, "hash": "00" * 32} for number in range(2, 6)]

    assert await inspect(workload, [ENTRY, *others], flaw=None) == ()


@pytest.mark.parametrize("entries", [[], [ENTRY | {"hash": "cd" * 32}]], ids=["missing", "changed"])
async def test_an_acknowledged_entry_that_is_not_there_is_a_flaw(
    workload: LedgerWorkload, entries: list[dict[str, Any]]
) -> None:
    """An acknowledged entry has to be there for ever, as it was."""
    flaws = await inspect(workload, entries, flaw=None)

    assert flaws == ("1 acknowledged entries are not there as they were acknowledged: 1",)


async def test_a_chain_that_does_not_verify_is_a_flaw(workload: LedgerWorkload) -> None:
    """The service's own verdict on its chain counts too."""
    flaws = await inspect(workload, [ENTRY], flaw="entry 1 was changed")

    assert flaws == ("the chain does not verify: entry 1 was changed",)


async def test_a_verification_without_a_verdict_is_a_flaw(workload: LedgerWorkload) -> None:
    """A walk along the chain that was broken off has verified nothing."""
    flaws = await inspect(workload, [ENTRY], flaw=None, verify_lines=1)

    assert flaws == ("the chain does not verify: no verdict",)
