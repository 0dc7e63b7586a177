"""What do the clients of the built-in load do, and what do they hold the ledger to?"""

import json
import secrets
from typing import Any

import httpx

from ledger_db.drill.load import RequestPlan

_REQUESTS_IN_TURN = ("append", "show", "append again", "list")
_FLAWS_KEPT = 5


class LedgerWorkload:
    """
    Clients that append, look at what they appended, and now and then send an append a second time on purpose.

    Every acknowledged entry is remembered with its hash.  At the end each of them has to be in a chain that
    holds.
    """

    def __init__(self) -> None:
        self.acknowledged: dict[int, bytes] = {}
        self._newest = 0
        self._turns: dict[int, int] = {}
        self._latest: dict[int, tuple[RequestPlan, dict[str, Any]]] = {}

    def plan(self, client: int) -> RequestPlan:
        """Choose the next request of *client*: they append and read in turn."""
        turn = self._turns.get(client, client)
        self._turns[client] = turn + 1
        kind = _REQUESTS_IN_TURN[turn % len(_REQUESTS_IN_TURN)]
        if kind == "list":
            return RequestPlan(kind, "GET", f"/entries?after={max(0, self._newest - 20)}&limit=20")
        if client not in self._latest or kind == "append":
            return _plan_append(client)
        sent, entry = self._latest[client]
        if kind == "show":
            return RequestPlan(kind, "GET", f"/entries/{entry['id']}")
        return RequestPlan(kind, "POST", sent.path, headers=sent.headers, body=sent.body)

    def judge(self, client: int, request: RequestPlan, response: httpx.Response) -> str | None:
        """Look at an answer, and remember the entry that it acknowledges."""
        flaw = self._judge(client, request, response.json())
        # The service answers without Redis too.  Here that is a failure: Redis is up, its password rotates.
        if flaw is None and response.headers.get("Idempotency-Cache") == "unavailable":
            return "the service could not use Redis"
        return flaw

    def _judge(self, client: int, request: RequestPlan, answer: dict[str, Any]) -> str | None:
        if request.name == "list":
            ids = [entry["id"] for entry in answer["entries"]]
            return None if ids == sorted(ids) else f"entries out of order: {ids}"
        if request.name != "append":
            return (
                None
                if answer == self._latest[client][1]
                else f"not the entry that was acknowledged: {answer}"
            )
        entry_hash = bytes.fromhex(answer["hash"])
        if self.acknowledged.setdefault(answer["id"], entry_hash) != entry_hash:
            return f"two entries have the number {answer['id']}"
        self._newest = max(self._newest, answer["id"])
        self._latest[client] = (request, answer)
        return None

    async def inspect(self, service: httpx.AsyncClient) -> tuple[str, ...]:
        """Verify the chain, and find every acknowledged entry in it."""
        walk = (await service.get("/verify")).raise_for_status().text.splitlines()
        verdict = json.loads(walk[-1])
        # Without a verdict in its last line the walk was broken off, and has verified nothing.
        verified = verdict.get("verified") is True
        flaws = [] if verified else [f"the chain does not verify: {verdict.get('flaw', 'no verdict')}"]
        missing = dict(self.acknowledged)
        after: int | None = 0
        while after is not None:
            page = await service.get("/entries", params={"after": after, "limit": 500})
            answer = page.raise_for_status().json()
            for entry in answer["entries"]:
                if missing.get(entry["id"]) == bytes.fromhex(entry["hash"]):
                    del missing[entry["id"]]
            after = answer["next"]
        if missing:
            some = ", ".join(str(entry_id) for entry_id in sorted(missing)[:_FLAWS_KEPT])
            flaws.append(
                f"{len(missing)} acknowledged entries are not there as they were acknowledged: {some}"
            )
        return tuple(flaws)


def _plan_append(client: int) -> RequestPlan:
    return RequestPlan(
        "append",
        "POST",
        "/entries",
        headers={"Idempotency-Key": secrets.token_urlsafe(12)},
        body={"account": f"client-{client}", "amount": secrets.randbelow(100_000), "memo": "drill"},
    )
