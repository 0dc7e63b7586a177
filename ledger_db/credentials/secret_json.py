"""
What the text of a secret says.

AWS writes one JSON object in several shapes: with or without an address (RDS-managed secrets hold only a user
name and a password), with the port as number or text, with or without a database name.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from ledger_db.credentials.model import Credentials, Password
from ledger_db.errors import CredentialsInvalid

Server = Literal["PostgreSQL", "Redis"]

_ENGINES: dict[Server, frozenset[str]] = {
    "PostgreSQL": frozenset({"postgres", "postgresql", "aurora-postgresql"}),
    "Redis": frozenset({"redis", "valkey", "elasticache", "memorydb"}),
}
_PORTS: dict[Server, int] = {"PostgreSQL": 5432, "Redis": 6379}
# AWS's own rotation code connects to "postgres" where a secret names no database.  A dbInstanceIdentifier
# names the instance, not a database on it.
_DATABASES: dict[Server, str] = {"PostgreSQL": "postgres", "Redis": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the server is, as far as the settings say; what they say goes before what the secret says."""

    host: str | None = None
    port: int | None = None
    database: str | None = None


def credentials_from(
    text: str | bytes, server: Server, *, secret_id: str, version: str, address: Address
) -> Credentials:
    """
    Read the *text* of one version of a secret.

    Args:
        text: A JSON object, as SecretString or as UTF-8 SecretBinary.

        server: Which engines are right.

        secret_id: For messages.

        version: What the credentials will be known by.

        address: What the settings say about the server.

    Raises:
        CredentialsInvalid: Names the field and what was expected, never what was found.
    """
    fields = _Fields(_json_object(text, secret_id), server, secret_id)
    fields.check_engine()
    return Credentials(
        username=fields.username(),
        password=fields.password(),
        version=version,
        host=address.host or fields.host(),
        port=address.port or fields.port(),
        database=address.database or fields.database(),
    )


def _json_object(text: str | bytes, secret_id: str) -> dict[str, object]:
    value: object = None
    # Nothing is raised in place of these errors while they are handled: they carry the whole secret as an
    # attribute, and a new one would hold on to them as its context.
    with suppress(UnicodeDecodeError, json.JSONDecodeError):
        value = json.loads(text)
    if not isinstance(value, dict):
        raise CredentialsInvalid(
            f"secret {secret_id!r}: expected a JSON object with at least 'username' and 'password'; "
            "store it in the shape that AWS documents for database secrets"
        )
    return value


class _Fields:
    """One field of the secret a method; each says what it expected."""

    def __init__(self, values: dict[str, object], server: Server, secret_id: str) -> None:
        self._values = values
        self._server = server
        self._secret_id = secret_id

    def check_engine(self) -> None:
        engine = self._values.get("engine")
        expected = _ENGINES[self._server]
        if engine is not None and (not isinstance(engine, str) or engine.lower() not in expected):
            raise self._invalid("engine", f"one of {', '.join(sorted(expected))} for {self._server}")

    def username(self) -> str:
        # An ElastiCache AUTH token and Redis' requirepass belong to the user "default".
        if self._server == "Redis" and self._values.get("username") is None:
            return "default"
        return self._text("username", "a non-empty text")

    def password(self) -> Password:
        password = self._text("password", "a non-empty text")
        if "\x00" in password:
            raise self._invalid("password", "a text without the character NUL, which no server accepts")
        return Password(password)

    def host(self) -> str:
        if self._values.get("host") is None:
            prefix = "DATABASE" if self._server == "PostgreSQL" else "REDIS"
            raise self._invalid("host", f"a name or address, here or in LEDGER_DB_{prefix}_HOST")
        return self._text("host", "a name or address")

    def port(self) -> int:
        port = self._values.get("port")
        if port is None:
            return _PORTS[self._server]
        if isinstance(port, str) and port.strip().isascii() and port.strip().isdecimal():
            port = int(port)
        # bool is an int in Python, and no port.
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            raise self._invalid("port", "a number from 1 to 65535, or the same as text")
        return port

    def database(self) -> str:
        for name in ("dbname", "database"):
            value = self._values.get(name)
            if self._server == "Redis" and isinstance(value, int) and not isinstance(value, bool):
                return str(value)
            if value is not None:
                text = self._text(name, "a non-empty text")
                if self._server == "Redis" and not (text.isascii() and text.isdecimal()):
                    raise self._invalid(name, "the number of a Redis database, or nothing")
                return text
        return _DATABASES[self._server]

    def _text(self, name: str, expected: str) -> str:
        value = self._values.get(name)
        if not isinstance(value, str) or not value:
            raise self._invalid(name, expected)
        return value

    def _invalid(self, name: str, expected: str) -> CredentialsInvalid:
        state = "is missing" if self._values.get(name) is None else "has another form"
        return CredentialsInvalid(
            f"secret {self._secret_id!r}: field {name!r} {state}; expected {expected}; mend the secret"
        )
