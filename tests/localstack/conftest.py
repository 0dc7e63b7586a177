"""
What do the tests share: one LocalStack, with the hooks run in it for servers that nobody else uses.

Installing it takes half a minute and 230 MB, so ``make test`` leaves out what needs it;
``make test-localstack`` installs it and says so in ``LEDGER_DB_LOCALSTACK``.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import boto3.session
import pytest
from botocore.config import Config

from ledger_db.sandbox import Sandbox
from localstack import seed
from localstack.host import READY_HOOKS, LocalStack
from tests.localstack.clients import Clients

NEEDING = ["test_functions.py", "test_hooks.py", "test_life.py", "test_rotation.py", "test_template.py"]
collect_ignore = [] if os.environ.get("LEDGER_DB_LOCALSTACK") else NEEDING


@pytest.fixture(scope="session")
def servers() -> Iterator[Sandbox]:
    """
    PostgreSQL and Valkey whose passwords LocalStack's functions rotate.

    Not `box`: its own Secrets Manager would not know of it.
    """
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def localstack(servers: Sandbox) -> Iterator[LocalStack]:
    """LocalStack, with everything that `make localstack` makes in it."""
    variables = seed.write(servers, servers.directory / "code")
    folder = servers.directory / "localstack"
    with LocalStack(folder, environment=variables, hooks=READY_HOOKS) as running:
        yield running


@pytest.fixture(scope="session")
def clients(localstack: LocalStack) -> Iterator[Clients]:
    """boto3 clients by the name of the service; they try once."""
    with ExitStack() as stack:
        made: dict[str, Any] = {}
        session = boto3.session.Session(
            aws_access_key_id="localstack", aws_secret_access_key="localstack", region_name="us-east-1"
        )
        config = Config(retries={"total_max_attempts": 1}, read_timeout=60)

        def client(service: str) -> Any:
            if service not in made:
                opened = session.client(service, endpoint_url=localstack.url, config=config)  # type: ignore[call-overload] # by name
                made[service] = stack.enter_context(closing(opened))
            return made[service]

        yield client
