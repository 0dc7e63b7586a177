"""Would the containers find each other, and is what they are given right?  Nothing here needs a container."""

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # it comes without types

from ledger_db.sandbox import Sandbox
from localstack import seed
from localstack.host import PROJECT

FOLDER = PROJECT / "localstack"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SEED: dict[str, Any] = json.loads((FOLDER / "compose" / "seed.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def servers() -> Iterator[Sandbox]:
    """Servers of the same kind, that this module may take apart."""
    with Sandbox() as sandbox:
        yield sandbox


def exported() -> dict[str, str]:
    """Return what a shell gets."""
    lines = (FOLDER / "compose" / "environment").read_text(encoding="utf-8").splitlines()
    words = [word for line in lines if line.startswith("export ") for word in shlex.split(line)[1:]]
    return dict(word.split("=", 1) for word in words)


def test_every_image_is_pinned() -> None:
    """The same commit starts the same servers; and LocalStack is one that wants no account."""
    images = {name: service["image"] for name, service in SERVICES.items()}

    assert images["localstack"] == "localstack/localstack:4.14.0"
    assert all(re.search(r":\d[\d.]*$", image) for image in images.values())


def test_nobody_on_the_network_reaches_a_container() -> None:
    """Passwords of a development environment are known to everybody."""
    ports = [port for service in SERVICES.values() for port in service["ports"]]

    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_is_mounted_is_there() -> None:
    """No container gets an empty folder in the place of a file that was renamed."""
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]]
    ours = [Path(name) for name in mounted if name.startswith("./")]

    assert len(ours) == 4
    assert [name for name in ours if not (FOLDER / name).exists()] == []


def test_it_waits_for_what_it_needs() -> None:
    """The hook rotates real passwords, so both servers are healthy before LocalStack starts."""
    needs = SERVICES["localstack"]["depends_on"]

    assert needs == {name: {"condition": "service_healthy"} for name in ("postgres", "valkey")}
    assert all("healthcheck" in service for service in SERVICES.values())


def test_the_secrets_are_those_of_the_sandbox(servers: Sandbox) -> None:
    """Who has run in the sandbox runs here: the same names, users and fields."""
    ours = seed.secrets_of(servers)
    placed = {"host", "port", "password"}

    assert tuple(SEED["rotated"]) == seed.ROTATED
    assert {name: strip(value, placed) for name, value in SEED["secrets"].items()} == {
        name: strip(value, placed) for name, value in ours.items()
    }
    assert {name: set(value) for name, value in SEED["secrets"].items()} == {
        name: set(value) for name, value in ours.items()
    }


def strip(value: dict[str, Any], fields: set[str]) -> dict[str, Any]:
    """Leave fields out."""
    return {name: content for name, content in value.items() if name not in fields}


def test_hosts_in_the_secrets_are_services() -> None:
    """A function finds a server by the name that the network knows it by."""
    hosts = {value["host"] for value in SEED["secrets"].values()}

    assert hosts == set(SERVICES) - {"localstack"}
    assert (
        SERVICES["localstack"]["environment"]["LAMBDA_DOCKER_NETWORK"]
        == COMPOSE["networks"]["default"]["name"]
    )


def test_a_shell_gets_what_the_sandbox_gives(servers: Sandbox) -> None:
    """Nothing that a program needs is missing, and no password is among it."""
    given = exported()
    hosts = {"LEDGER_DB_DATABASE_HOST", "LEDGER_DB_REDIS_HOST"}
    # An empty one is for a variable that must not be set; others undo what a shell of somebody's says.
    names = {
        name.removesuffix("_SECRETS_MANAGER")
        for name, value in servers.environment.items()
        if value and (name.startswith("LEDGER_DB_") or re.search("KEY|REGION$|ENDPOINT_URL_|DISABLED", name))
    }

    assert set(given) - hosts == names
    assert given["LEDGER_DB_DATABASE_SECRET_ID"] in SEED["secrets"]
    assert {given[name] for name in hosts} == {"127.0.0.1"}


def test_the_roles_can_be_made(servers: Sandbox) -> None:
    """A fresh PostgreSQL accepts the script, and the first role logs in as the secret says."""
    with closing(servers.postgres.connect(dbname="postgres")) as admin, admin.cursor() as cursor:
        cursor.execute("DROP DATABASE ledger")
        cursor.execute("DROP ROLE ledger_app_a, ledger_app_b, ledger_owner")
        cursor.execute("CREATE DATABASE ledger")
        cursor.execute((FOLDER / "compose" / "roles.sql").read_text(encoding="utf-8"))
    value = SEED["secrets"][Sandbox.database_secret_id]
    with (
        closing(servers.postgres.connect(user=value["username"], password=value["password"])) as application,
        application.cursor() as cursor,
    ):
        cursor.execute("CREATE TABLE things (); SELECT tableowner FROM pg_tables WHERE tablename = 'things'")

        assert cursor.fetchone() == ("ledger_owner",)


def test_the_users_of_valkey_can_be_made(servers: Sandbox) -> None:
    """Valkey accepts the users, and the application's logs in as the secret says."""
    with closing(servers.redis.connect()) as admin:
        for line in (FOLDER / "compose" / "users.acl").read_text(encoding="utf-8").splitlines():
            _, name, *rules = line.split()
            admin.execute_command("ACL", "SETUSER", name, *rules)  # type: ignore[no-untyped-call] # by redis-py
    value = SEED["secrets"][Sandbox.redis_secret_id]
    with closing(
        servers.redis.connect(username=value["username"], password=value["password"])
    ) as application:
        assert application.set("key", "value")
