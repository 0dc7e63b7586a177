"""From a secret, and what the settings say about the server, to credentials."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger_db.answers.secret import Secret, SecretProblem, Server, secret_in
from ledger_db.credentials.model import Credentials
from ledger_db.errors import CredentialsInvalid

_HOST_SETTINGS: Final[Mapping[Server, str]] = {
    "PostgreSQL": "LEDGER_DB_DATABASE_HOST",
    "Redis": "LEDGER_DB_REDIS_HOST",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the server is, as far as the settings say; what they say goes before what the secret says."""

    host: str | None = None
    port: int | None = None
    database: str | None = None


def credentials_from(
    answer: Mapping[str, Any] | None, server: Server, *, secret_id: str, address: Address
) -> Credentials | None:
    """
    Read an *answer* of GetSecretValue.

    Args:
        answer: As boto3 gives it; None if there is none.

        server: Which engines are right.

        secret_id: For messages.

        address: What the settings say about the server.

    Raises:
        CredentialsInvalid: Names the field and what was expected, never what was found.

        AnswerProblem: It is no such answer.
    """
    if answer is None:
        return None
    try:
        return _read(secret_in(answer, name=secret_id), server, address)
    except SecretProblem as error:
        problem = str(error)
    # Out here, so that the error is neither cause nor context: its frames hold the secret, as does this one.
    del answer
    raise CredentialsInvalid(f"{problem}; mend the secret")


def _read(secret: Secret, server: Server, address: Address) -> Credentials:
    secret.check_engine(server)
    elsewhere = f"a name or address, here or in {_HOST_SETTINGS[server]}"
    return Credentials(
        username=secret.username_for(server),
        password=secret.password,
        version=secret.version,
        host=address.host or secret.host_for(server, expected=elsewhere),
        port=address.port or secret.port(server),
        database=address.database or secret.database(server),
        names_database=address.database is not None or secret.names_database,
    )
