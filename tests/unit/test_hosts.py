"""Is a text that no server can have as its host refused at once, wherever it comes from?"""

import json

import pytest

from ledger_db import ConfigurationError, Credentials, CredentialsInvalid, Password, RdsIamSource, Settings
from ledger_db.answers.host import why_no_host
from ledger_db.answers.secret import Secret, SecretProblem, Server, secret_in
from ledger_db.credentials.from_secret import Address, credentials_from
from ledger_db.rotation.redis_login import nodes_of

GOOD = [
    "db",
    "db.example.com",
    "db.example.com.",
    "ledger_db-1",
    "xn--mnchen-3ya.example",
    "127.0.0.1",
    "::1",
    "fe80::1%eth0",
    "app.cluster-abc.eu-central-1.rds.amazonaws.com",
]
ODD = {
    "127.0.0.1:5432": "port",
    "db.example:": "port",
    "[::1]:5432": "port",
    "[::1]": "brackets",
    " db": "white space around",
    "db\n": "white space around",
    "db example": "white space in",
    "postgresql://db:5432/x": "URL",
    "jdbc:postgresql://db/x": "URL",
    "a,b": "list",
    "a:1,b:2": "list",
    "app@db": "user",
    "db/ledger": "path",
    "db\x07": "cannot be seen",
    "db\u200b": "DNS",
    "münchen.example": "DNS",
    "${DB_HOST}": "neither",
    "<host>": "neither",
    "5432": "neither",
    "300.1.2.3": "neither",
    "a..b": "neither",
    "x" * 64: "neither",
    "x." * 200: "longer",
}
SERVERS: tuple[Server, ...] = ("PostgreSQL", "Redis")


def answer(host: str) -> dict[str, str]:
    """Return what Secrets Manager says of a secret with this *host*."""
    value = {"username": "app", "password": "p", "host": host}
    return {"SecretString": json.dumps(value), "VersionId": "v1"}


@pytest.mark.parametrize("host", GOOD)
def test_a_name_and_an_address_are_hosts(host: str) -> None:
    """Whatever a resolver may know is left to it."""
    assert why_no_host(host) is None


def test_the_folder_of_a_socket_is_a_host_of_postgresql_alone() -> None:
    """As libpq has it; Redis is reached over TCP."""
    assert why_no_host("/run/postgresql", sockets=True) is None
    assert why_no_host("/run/a,/run/b", sockets=True) is not None
    assert why_no_host("/run/redis.sock") is not None


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(("host", "mistake"), ODD.items())
def test_a_secret_with_no_host_is_refused_by_field(server: Server, host: str, mistake: str) -> None:
    """A service reads the field and the likely mistake, and never what is in it."""
    with pytest.raises(CredentialsInvalid, match=f"'s/1': field 'host' .*{mistake}") as caught:
        credentials_from(answer(host), server, secret_id="s/1", address=Address())

    assert host not in str(caught.value)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("host", ODD)
def test_a_rotation_refuses_it_alike(server: Server, host: str) -> None:
    """Both halves read one secret in one way."""
    with pytest.raises(SecretProblem, match="'host'"):
        secret_in(answer(host), name="s/1").check(server)


@pytest.mark.parametrize("name", ["database_host", "redis_host"])
@pytest.mark.parametrize("host", ODD)
def test_a_setting_is_refused_by_name(name: str, host: str) -> None:
    """What goes before the secret is looked at as well, and with it what IAM tokens are made for."""
    with pytest.raises(ConfigurationError, match=f"LEDGER_DB_{name.upper()}: "):
        Settings(**{name: host})


@pytest.mark.parametrize("host", ODD)
def test_a_source_of_ones_own_is_no_way_around(host: str) -> None:
    """Credentials and IAM tokens made in code are held to the same."""
    with pytest.raises(CredentialsInvalid, match="host "):
        Credentials("app", Password("p"), "v1", host, 5432, "ledger")
    with pytest.raises(CredentialsInvalid, match="host "):
        RdsIamSource("app", host)


@pytest.mark.parametrize("text", ["app\x00", "\x00"])
@pytest.mark.parametrize("name", ["username", "password", "database"])
def test_no_server_takes_the_character_nul(name: str, text: str) -> None:
    """It would end the text for one driver, and be refused in its own words by the next."""
    given = {"username": "app", "password": "p", "database": "ledger", name: text}

    with pytest.raises(CredentialsInvalid, match=f"^{name} .*NUL"):
        Credentials(version="v1", host="db", port=1, **given)  # type: ignore[arg-type] # a text will do


@pytest.mark.parametrize(
    ("node", "expected"),
    [("a:1", ("a", 1)), ("[::1]:6379", ("::1", 6379)), ("10.0.0.1:65535", ("10.0.0.1", 65535))],
)
def test_a_node_is_a_host_and_a_port(node: str, expected: tuple[str, int]) -> None:
    """An address of IPv6 is told from its port by brackets, which are not a part of it."""
    found = nodes_of(Secret("s/1", "v1", {"nodes": [node]}))

    assert [(each.host, each.port) for each in found] == [expected]


@pytest.mark.parametrize(
    "node", ["a", "a:", ":1", "a:0", "a:65536", "redis://a:1", "a b:1", "[]:1", "::1:6379", 5]
)
def test_what_is_no_node_is_refused_by_field(node: object) -> None:
    """A rotation of a cluster says so before it has begun."""
    with pytest.raises(SecretProblem, match="'nodes'"):
        nodes_of(Secret("s/1", "v1", {"nodes": ["good:1", node]}))
