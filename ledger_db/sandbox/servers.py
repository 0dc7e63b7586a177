"""What can a program do with each of the servers in its sandbox?"""

import http.client
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from ledger_db.answers.extensions import advise_on_extension
from ledger_db.errors import ServerUnreachable

if TYPE_CHECKING:
    import redis
    from psycopg2.extensions import connection as PostgresConnection  # noqa: N812 - it is a class

    from ledger_db.stand_in.faults import Fault

_HTTP_TIMEOUT_SECONDS = 10.0


class Command(Protocol):
    """Has the supervisor do something, and waits until it is done."""

    def __call__(self, what: str, details: object = None, /) -> None:
        """Do *what*, for example ``postgres.stop``."""
        ...


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """
    The PostgreSQL of a sandbox.

    Attributes:
        host: Always the loopback address.

        port: Stays the same over a stop and a start.

        database: Where the application's tables live.

        admin_user: The superuser.

        admin_password: The superuser's password, which never changes.

        log_file: What the server writes.

        ca_file: What to trust if the server insists on TLS, else None.
    """

    __module__ = "ledger_db.sandbox"

    host: str
    port: int
    database: str
    admin_user: str
    admin_password: str = field(repr=False)
    log_file: Path
    ca_file: Path | None
    _command: Command = field(repr=False)

    def connect(self, **changes: Any) -> "PostgresConnection":
        """
        Return a psycopg2 connection as the superuser, in autocommit mode; the caller closes it.

        Args:
            changes: Other connection parameters, as ``user=`` and ``password=``.
        """
        import psycopg2  # noqa: PLC0415 - not everybody who starts a sandbox connects

        security = (
            {"sslmode": "disable"}
            if self.ca_file is None
            else {"sslmode": "verify-full", "sslrootcert": str(self.ca_file)}
        )
        parameters: dict[str, Any] = {
            "host": self.host,
            # A shell's PGHOSTADDR would go before the host.
            "hostaddr": "",
            "port": self.port,
            "dbname": self.database,
            "user": self.admin_user,
            "password": self.admin_password,
            "connect_timeout": 10,
            "cursor_factory": _advising_cursor(),
            **security,
            **changes,
        }
        connection = psycopg2.connect(**parameters)
        connection.autocommit = True
        return connection

    def stop(self) -> None:
        """Shut the server down in good order; connections are refused from then on."""
        self._command("postgres.stop")

    def start(self) -> None:
        """Start it again with its data, on its port."""
        self._command("postgres.start")

    def kill(self) -> None:
        """End it as a crash would; ``start`` recovers its data."""
        self._command("postgres.kill")


@dataclass(frozen=True, slots=True)
class RedisServer:
    """
    The Valkey (or Redis) of a sandbox.

    Attributes:
        host: Always the loopback address.

        port: Stays the same over a stop and a start.

        admin_user: May do everything.

        admin_password: Its password, which never changes.

        log_file: What the server writes.

        ca_file: What to trust if the server insists on TLS, else None.
    """

    __module__ = "ledger_db.sandbox"

    host: str
    port: int
    admin_user: str
    admin_password: str = field(repr=False)
    log_file: Path
    ca_file: Path | None
    _command: Command = field(repr=False)

    def connect(self, **changes: Any) -> "redis.Redis":
        """
        Return a redis-py client as the administrator; the caller closes it.

        Args:
            changes: Other parameters of the client, as ``username=`` and ``password=``.
        """
        import redis  # noqa: PLC0415 - not everybody who starts a sandbox connects
        from redis.backoff import NoBackoff  # noqa: PLC0415 - as above
        from redis.retry import Retry  # noqa: PLC0415 - as above

        security: dict[str, Any] = (
            {} if self.ca_file is None else {"ssl": True, "ssl_ca_certs": str(self.ca_file)}
        )
        parameters: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "username": self.admin_user,
            "password": self.admin_password,
            "decode_responses": True,
            # redis-py repeats a refused login for three seconds; here it is an answer, not an accident.
            "retry": Retry(NoBackoff(), 0),
            **security,
            **changes,
        }
        return redis.Redis(**parameters)

    def stop(self) -> None:
        """Shut the server down in good order; connections are refused from then on."""
        self._command("redis.stop")

    def start(self) -> None:
        """Start it again with its data, on its port."""
        self._command("redis.start")

    def kill(self) -> None:
        """End it as a crash would; ``start`` finds its data again."""
        self._command("redis.kill")


@dataclass(frozen=True, slots=True)
class SecretsManagerServer:
    """
    The Secrets Manager stand-in of a sandbox.

    Attributes:
        url: What boto3 calls the endpoint.
    """

    __module__ = "ledger_db.sandbox"

    url: str
    _command: Command = field(repr=False)

    def inject(self, *faults: "Fault") -> None:
        """Let requests fail on purpose, after the faults that are there already."""
        # Not by HTTP, which can only replace them all: one that is used up meanwhile would be there again.
        self._command("secrets_manager.inject", [fault.to_json() for fault in faults])

    def clear_faults(self) -> None:
        """Let every request succeed again."""
        self._call("DELETE", "faults")

    def calls(self) -> dict[str, int]:
        """Count the requests so far, by operation."""
        counted: dict[str, int] = self._call("GET", "calls")
        return counted

    def stop(self) -> None:
        """Stop answering; connections are refused from then on."""
        self._command("secrets_manager.stop")

    def start(self) -> None:
        """Answer again, with every secret as it was."""
        self._command("secrets_manager.start")

    def _call(self, method: str, what: str) -> Any:
        place = urlsplit(self.url)
        assert place.hostname is not None
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=_HTTP_TIMEOUT_SECONDS)
        try:
            connection.request(method, f"/_sandbox/{what}", headers={"Connection": "close"})
            response = connection.getresponse()
            answer = response.read()
        except OSError as error:
            raise ServerUnreachable(
                f"the Secrets Manager stand-in at {self.url} does not answer; was it stopped? Start it again"
            ) from error
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise ServerUnreachable(
                f"the Secrets Manager stand-in answered {response.status} to {method} {what}: "
                f"{answer.decode(errors='replace')[:300]}"
            )
        return json.loads(answer) if answer.strip() else None


@cache
def _advising_cursor() -> Any:
    """Return psycopg2's cursor, which says what to do where the server lacks an extension."""
    from psycopg2.extensions import cursor  # noqa: PLC0415 - not everybody who starts a sandbox connects

    class AdvisingCursor(cursor):  # type: ignore[misc] # psycopg2 is untyped
        def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - psycopg2's name
            try:
                super().execute(query, vars)
            except Exception as error:
                advise_on_extension(error, query)
                raise

    return AdvisingCursor
