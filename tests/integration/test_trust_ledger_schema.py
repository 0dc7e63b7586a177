"""Does the Trust Ledger do what its OpenAPI document says, whatever it is sent?"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.trust_ledger.app import create_app
from examples.trust_ledger.run import make_service
from ledger_db.drill.service import Service, listen_from
from ledger_db.sandbox import Sandbox
from tests.support.trust_ledger import prepare_ledger

PROJECT = Path(__file__).resolve().parents[2]
ONLY_THE_ROUTER = "unsupported_method,allow_header_conformance"
"""
Checks that are left out: Starlette looks at one route at a time.  So GET /entries/batch is a request for an
entry called "batch", and the Allow header of a 405 names the methods of one route of several.
"""


@pytest.fixture
def service(box: Sandbox) -> Iterator[Service]:
    """Run the service as a process of its own, on an empty ledger."""
    prepare_ledger(box)
    with make_service(
        "examples.trust_ledger.app:app", listener=listen_from(18_500), environment=box.environment
    ) as service:
        service.wait_ready()
        yield service


def test_no_request_fails_the_service_or_breaks_its_document(service: Service, tmp_path: Path) -> None:
    """Made-up requests, sound and unsound, get documented answers, and none of them a 5xx."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"),
            *("--seed", "1", "--max-examples", "25", "--continue-on-failure", "--no-color"),
            *("--exclude-checks", ONLY_THE_ROUTER),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks",
        },
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    verdict = httpx.get(f"{service.url}/verify", trust_env=False).text.splitlines()[-1]

    assert done.returncode == 0, done.stdout + done.stderr + service.last_lines()
    assert "No issues found" in done.stdout
    assert '"verified":true' in verdict


def operations() -> list[tuple[str, dict[str, Any]]]:
    """Return the operations of the ledger, with their names."""
    document = create_app().openapi()
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        if not path.startswith("/health")
        for method, operation in methods.items()
    ]


@pytest.mark.parametrize("operation", [pytest.param(each, id=name) for name, each in operations()])
def test_every_operation_is_described(operation: dict[str, Any]) -> None:
    """Whoever reads the document learns what each operation does, and how it can fail."""
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    assert "_" in operation["operationId"]
    assert {"500", "503", "504"} <= set(operation["responses"])
    for parameter in operation.get("parameters", []):
        assert parameter["description"]


def test_a_problem_is_described_once() -> None:
    """The document refers to one description of problems instead of repeating it."""
    schemas = create_app().openapi()["components"]["schemas"]
    referred = {
        response["content"]["application/problem+json"]["schema"]["$ref"]
        for _, operation in operations()
        for status, response in operation["responses"].items()
        if int(status) >= 400
    }

    assert referred == {"#/components/schemas/Problem"}
    assert {"type", "title", "status", "detail"} <= set(schemas["Problem"]["properties"])
