"""How does a test talk to a Secrets Manager, and to a stand-in as whoever injects faults?"""

import json
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

PATIENCE_SECONDS = 20.0


@contextmanager
def client_for(url: str, **options: Any) -> Iterator["SecretsManagerClient"]:
    """A boto3 client that tries once, and is closed again."""
    client = boto3.client(
        "secretsmanager",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="contract",
        aws_secret_access_key="contract",
        config=Config(retries={"total_max_attempts": 1}, **options),
    )
    try:
        yield client
    finally:
        client.close()


def ask(url: str, method: str = "GET", body: object = None) -> Any:
    """Talk to the stand-in itself, as another process does."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return json.load(answer)


def token() -> str:
    """An id for a version."""
    return str(uuid.uuid4())


def stages(client: "SecretsManagerClient", name: str) -> dict[str, list[str]]:
    """The labels of every version, sorted."""
    described = client.describe_secret(SecretId=name)
    return {version: sorted(labels) for version, labels in described.get("VersionIdsToStages", {}).items()}


def current(client: "SecretsManagerClient", name: str) -> str:
    """The value that AWSCURRENT names."""
    return client.get_secret_value(SecretId=name, VersionStage="AWSCURRENT")["SecretString"]


def listed(client: "SecretsManagerClient", **parameters: Any) -> list[str]:
    """The names that ListSecrets answers, all pages."""
    pages = client.get_paginator("list_secrets").paginate(**parameters)
    return [secret["Name"] for page in pages for secret in page["SecretList"]]
