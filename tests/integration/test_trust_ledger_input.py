"""Is everything that a client can send answered as its own mistake, and never as a failure of the service?"""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from ledger_db.sandbox import Sandbox
from tests.support.trust_ledger import ledger_service, walk

JSON = {"Idempotency-Key": "k1", "Content-Type": "application/json"}
SOUND = b'{"account": "ada", "amount": 1, "memo": ""}'


# One service for all: none of these requests leaves anything behind.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(box: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    """Run the service in this process, on an empty database."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        async with ledger_service(box, monkeypatch) as client:
            yield client


@pytest.mark.parametrize(
    ("body", "changes", "status"),
    [
        (b'{"account": "ada", "amount": 1, "memo": "\\ud800"}', {}, 422),
        (b'{"account": "\\udfff", "amount": 1}', {}, 422),
        (b'{"account": "nul\\u0000", "amount": 1}', {}, 422),
        (b'{"account": "ada", "amount": 9007199254740992}', {}, 422),
        (b'{"account": "ada", "amount": ' + b"9" * 4000 + b"}", {}, 422),
        (b'{"account": "ada", "amount": ' + b"9" * 5000 + b"}", {}, 400),
        (b'{"account": "ada", "amount": NaN}', {}, 422),
        (b'{"account": "ada", "amount": 1e400}', {}, 422),
        (b"[" * 100_000, {}, 400),
        (SOUND.replace(b"ada", b"\xff"), {}, 400),
        (b"", {}, 422),
        (b"{", {}, 422),
        (b"[]", {}, 422),
        (SOUND.replace(b'"ada"', b'"' + b"x" * (1024 * 1024) + b'"'), {}, 413),
        (SOUND, {"Content-Type": "text/plain"}, 422),
        (SOUND, {"Content-Type": "application/xml"}, 422),
        (SOUND, {"Content-Type": "multipart/form-data; boundary=x"}, 422),
        (SOUND, {"Idempotency-Key": "ü".encode("latin-1")}, 422),
        (SOUND, {"Idempotency-Key": "two words"}, 422),
        (SOUND, {"Idempotency-Key": "x" * 256}, 422),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_is_no_entry_is_refused(
    service: httpx.AsyncClient, body: bytes, changes: dict[str, Any], status: int
) -> None:
    """A request that can not be understood or kept exactly is refused, and nothing is recorded."""
    answer = await service.post("/entries", content=body, headers={**JSON, **changes})

    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (await walk(service))[-1]["entries"] == 0


@pytest.mark.parametrize("body", [b'{"items": ["\\ud800"]}', b'{"items": [{"\\ud800": 1}]}'])
async def test_half_a_character_in_a_batch_is_refused(service: httpx.AsyncClient, body: bytes) -> None:
    """What could not be sent back is not repeated in the outcome of an item."""
    answer = await service.post("/entries/batch", content=body, headers=JSON)

    assert answer.status_code == 200
    assert [item["status"] for item in answer.json()["items"]] == [422]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/entries?limit=0", 422),
        ("/entries?limit=501", 422),
        ("/entries?limit=much", 422),
        ("/entries?after=-1", 422),
        (f"/entries?after={2**63}", 422),
        (f"/entries?after={'9' * 5000}", 422),
        ("/entries?limit=1&limit=2", 200),
        ("/entries?after=%00", 422),
        ("/entries?after=%ff", 422),
        ("/entries?other=1", 200),
        ("/entries/0", 422),
        ("/entries/-1", 422),
        (f"/entries/{2**63}", 422),
        ("/entries/%00", 422),
        ("/entries/1%27", 422),
        ("/entries/7", 404),
        ("/entries/7/proof", 404),
        ("/entries/0/proof", 422),
        ("/nothing", 404),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_can_not_be_read_is_no_failure(service: httpx.AsyncClient, path: str, status: int) -> None:
    """Whatever is asked for, the answer says what is wrong with the question."""
    answer = await service.get(path)

    assert answer.status_code == status, answer.text
    if status >= 400:
        assert answer.headers["Content-Type"] == "application/problem+json"


async def test_another_method_is_refused(service: httpx.AsyncClient) -> None:
    """There is no way to change or to remove an entry."""
    answers = [await service.request(method, "/entries/1") for method in ("PUT", "PATCH", "DELETE")]

    assert [answer.status_code for answer in answers] == [405, 405, 405]
