"""Does a sandbox's environment lead to its servers and to no others, whatever the shell says?"""

import contextlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import boto3.session
import botocore.session
import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.operate.sandbox_commands import format_exports
from ledger_db.sandbox import Sandbox

# Nobody listens there.
ELSEWHERE = "http://127.0.0.1:9"
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
SHELLS: Mapping[str, Mapping[str, str]] = {
    "a proxy": dict.fromkeys(PROXIES, ELSEWHERE),
    "a proxy but for others": {**dict.fromkeys(PROXIES, ELSEWHERE), "NO_PROXY": "example.com"},
    "ignored endpoints": {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true", "HTTPS_PROXY": ELSEWHERE},
    "a profile that is not there": {"AWS_PROFILE": "nobody"},
    "the older name of that": {"AWS_DEFAULT_PROFILE": "nobody"},
    "another endpoint": {"AWS_ENDPOINT_URL": ELSEWHERE, "AWS_ENDPOINT_URL_SECRETS_MANAGER": ELSEWHERE},
    "a session": {"AWS_SESSION_TOKEN": "x", "AWS_SECURITY_TOKEN": "x"},
    "a session that has ended": {"AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z"},
    "a session of which nobody knows when it ends": {"AWS_CREDENTIAL_EXPIRATION": "soon"},
    "no such files": {"AWS_CONFIG_FILE": "/no/such", "AWS_SHARED_CREDENTIALS_FILE": "/no/such"},
    "another authority": {"AWS_CA_BUNDLE": "/no/such", "REQUESTS_CA_BUNDLE": "/no/such"},
    "endpoints of other kinds": {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
    "endpoints of an account": {"AWS_ACCOUNT_ID_ENDPOINT_MODE": "required"},
    "another region": {"AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-central-1"},
    "another role": {"AWS_ROLE_ARN": "arn:aws:iam::1:role/x", "AWS_WEB_IDENTITY_TOKEN_FILE": "/no/such"},
    "a container": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": ELSEWHERE},
    "another machine": {
        "AWS_EC2_METADATA_DISABLED": "false",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": "nonsense",
    },
    "another address of PostgreSQL": {"PGHOSTADDR": "127.0.0.9", "PGHOST": "127.0.0.9"},
    "another database": {"LEDGER_DB_DATABASE_HOST": "elsewhere", "LEDGER_DB_DATABASE_PASSWORD": "x"},
}

# How and how often AWS is asked, not where or as whom.
HARMLESS = {
    "AWS_METADATA_SERVICE_TIMEOUT",
    "AWS_METADATA_SERVICE_NUM_ATTEMPTS",
    "AWS_EC2_METADATA_V1_DISABLED",
    "AWS_IMDS_USE_IPV6",
    "AWS_CSM_HOST",
    "AWS_CSM_PORT",
    "AWS_CSM_CLIENT_ID",
    "AWS_ENDPOINT_DISCOVERY_ENABLED",
    "AWS_RETRY_MODE",
    "AWS_DEFAULTS_MODE",
    "AWS_MAX_ATTEMPTS",
    "AWS_SDK_UA_APP_ID",
    "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES",
    "AWS_DISABLE_REQUEST_COMPRESSION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "AWS_DISABLE_HOST_PREFIX_INJECTION",
    "BOTOCORE_TCP_KEEPALIVE",
    "AWS_S3_DISABLE_EXPRESS_SESSION_AUTH",
}


def enter(monkeypatch: pytest.MonkeyPatch, *shells: Mapping[str, str]) -> None:
    """Set the variables of each shell, one over the other."""
    for shell in shells:
        for name, value in shell.items():
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
def test_no_shell_leads_a_service_elsewhere(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, shell: Mapping[str, str]
) -> None:
    """The secret is read from the stand-in, and opens the sandbox's own server."""
    enter(monkeypatch, shell, box.environment)
    settings = Settings(redis_secret_id=None, startup_timeout_seconds=8)
    with ConnectionManager(settings) as db, db.session() as session:
        found = session.execute(text("SELECT inet_server_port()")).scalar()

    assert found == box.postgres.port


@pytest.mark.parametrize("shell", SHELLS.values(), ids=SHELLS)
def test_no_shell_leads_the_sandbox_elsewhere(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, shell: Mapping[str, str]
) -> None:
    """What it does itself, it does on its own servers, without its own environment too."""
    enter(monkeypatch, shell)
    with contextlib.closing(box.client()) as client, contextlib.closing(box.postgres.connect()):
        assert client.describe_secret(SecretId=box.database_secret_id)["Name"] == box.database_secret_id
        assert client.meta.endpoint_url == box.secrets_manager.url


def test_a_shell_that_takes_it_over_has_the_same(box: Sandbox) -> None:
    """What is told to be unset is, and a program of that shell is led to the stand-in."""
    odd = "\n".join(f"export {name}='{value}'" for shell in SHELLS.values() for name, value in shell.items())
    program = (
        "import boto3; "
        f"print(boto3.client('secretsmanager').describe_secret(SecretId='{box.database_secret_id}')['Name'])"
    )
    script = f'{odd}\n{format_exports(box.environment)}\nexec {sys.executable} -c "{program}"'
    done = subprocess.run(["/bin/sh", "-c", script], check=False, capture_output=True, text=True, timeout=60)

    assert done.stdout.strip() == box.database_secret_id, done.stderr


def test_every_variable_of_the_sdk_is_decided_about(box: Sandbox) -> None:
    """A new version of botocore that listens to another one is noticed here."""
    known = {
        name
        for _, variables, _, _ in botocore.session.Session.SESSION_VARIABLES.values()
        for name in ([variables] if isinstance(variables, str) else variables or [])
    }

    assert known - box.environment.keys() <= HARMLESS


def test_a_shell_keeps_its_own_exceptions_from_a_proxy(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is added to whom no proxy is asked for; everything stays everything."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "example.com, 127.0.0.1")

    assert box.environment["NO_PROXY"] == box.environment["no_proxy"] == "example.com,127.0.0.1,localhost,::1"

    monkeypatch.setenv("no_proxy", "*")

    assert box.environment["NO_PROXY"] == "*"


def test_the_profile_is_a_file_of_the_sandbox(box: Sandbox) -> None:
    """With nothing of anybody in it; it goes with the folder."""
    file = Path(box.environment["AWS_CONFIG_FILE"])

    assert file.parent == box.directory
    assert file.read_text() == "[default]\n[profile '']\n"


def test_a_client_of_the_applications_own_is_led_there_too(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an empty variable is set instead of none."""
    enter(
        monkeypatch, SHELLS["a profile that is not there"], SHELLS["the older name of that"], box.environment
    )
    with contextlib.closing(boto3.session.Session().client("secretsmanager")) as client:
        assert client.describe_secret(SecretId=box.database_secret_id)["Name"] == box.database_secret_id
