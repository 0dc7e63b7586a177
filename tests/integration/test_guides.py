"""Do the programs in the guides run as they stand there?"""

import asyncio
import re
import types
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from ledger_db.fastapi import problem_kinds
from ledger_db.sandbox import Sandbox
from tests.test_docs import code_blocks, run_script

DOCS = Path(__file__).resolve().parents[2] / "docs"
TABLES = ("demo_accounts", "visits", "model_accounts")


@pytest.fixture
def tidy(environment: Sandbox) -> Iterator[Sandbox]:
    """Servers without the tables of the guides, before and after."""
    with closing(environment.postgres.connect()) as admin, admin.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {', '.join(TABLES)}")
        yield environment
        cursor.execute(f"DROP TABLE IF EXISTS {', '.join(TABLES)}")


@pytest.mark.parametrize(
    ("guide", "printed"),
    [
        ("transactions", "100 cents\n"),
        ("models", "['Cid', 'Bob', 'Ann']\n"),
        ("any-program", "ledger\n"),
    ],
)
def test_the_program_of_a_guide_runs(tidy: Sandbox, tmp_path: Path, guide: str, printed: str) -> None:
    """Its first block is a whole program, which does what the text says."""
    source = code_blocks(DOCS / f"{guide}.md", "python")[0]

    assert run_script(source, box=tidy, folder=tmp_path) == printed


@pytest.mark.parametrize("page", ["from-caching-client", "from-aws-wrapper", "from-rds-proxy"])
def test_what_a_page_shows_in_place_of_something_else_runs(
    environment: Sandbox, tmp_path: Path, page: str
) -> None:
    """Its last block is a whole program, for whoever comes from something else."""
    run_script(code_blocks(DOCS / f"{page}.md", "python")[-1], box=environment, folder=tmp_path)


async def ask(app: FastAPI, *requests: tuple[str, str]) -> list[httpx.Response]:
    """Start the service, send requests, and end it."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        return [await client.request(method, path) for method, path in requests]


def service_in(block: str) -> FastAPI:
    """Execute a block of the page; return the application that it makes."""
    module = types.ModuleType("service")
    exec(compile(block, "fastapi.md", "exec"), module.__dict__)
    app: FastAPI = module.__dict__["app"]
    return app


def test_the_service_of_the_fastapi_guide_answers(tidy: Sandbox) -> None:
    """What is shown as a whole service is one: it writes, reads and is healthy."""
    app = service_in(code_blocks(DOCS / "fastapi.md", "python")[0])
    paths = [("POST", "/visits"), ("GET", "/visits"), ("GET", "/health/ready")]
    answers = asyncio.run(ask(app, *paths))

    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert answers[1].json() == {"visits": 1}


def test_the_stream_of_the_fastapi_guide_is_whole(tidy: Sandbox) -> None:
    """Batches follow each other without a gap."""
    (block,) = (each for each in code_blocks(DOCS / "fastapi.md", "python") if "StreamingResponse" in each)
    (answer,) = asyncio.run(ask(service_in(block), ("GET", "/numbers")))

    assert [int(line) for line in answer.text.splitlines()] == list(range(3_000))


def test_the_dependency_of_the_fastapi_guide_ends_in_time(tidy: Sandbox) -> None:
    """What is set before its yield holds for the endpoint, and what comes after it still has the session."""
    (block,) = (each for each in code_blocks(DOCS / "fastapi.md", "python") if "Depends(audited)" in each)
    (answer,) = asyncio.run(ask(service_in(block), ("GET", "/audited")))

    assert (answer.status_code, answer.json()) == (200, "seven")


def test_the_table_of_problems_is_the_code_s() -> None:
    """Whoever looks a problem up finds its status, and how long to wait."""
    kinds = [kind for kind in vars(problem_kinds).values() if isinstance(kind, problem_kinds.Kind)]
    page = (DOCS / "fastapi.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([\w-]+)` \| (\d+) \| (\d*) ?\|", page, re.MULTILINE))

    assert rows == {(kind.name, str(kind.status), str(kind.retry_after_seconds or "")) for kind in kinds}
