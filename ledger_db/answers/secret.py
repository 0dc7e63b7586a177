"""
What does a secret say?

AWS writes one JSON object in several shapes: with or without an address (RDS-managed secrets hold only a user
name and a password), with the port as number or text, with or without a database name.  A service and a
rotation read it here, so that neither takes what the other one refuses.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn, Self

from ledger_db.answers.field_names import look_alike
from ledger_db.answers.host import why_no_host
from ledger_db.answers.secret_text import parsed, why_no_text

Server = Literal["PostgreSQL", "Redis"]

ENGINES: Final[Mapping[Server, frozenset[str]]] = {
    "PostgreSQL": frozenset({"postgres", "postgresql", "aurora-postgresql"}),
    "Redis": frozenset({"redis", "valkey", "elasticache", "memorydb"}),
}
"""What AWS calls the kinds of server, in lower case."""

PORTS: Final[Mapping[Server, int]] = {"PostgreSQL": 5432, "Redis": 6379}

# int() itself takes underscores, signs and the digits of other scripts, and refuses thousands of them.
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
# AWS's own rotation code connects to "postgres" where a secret names no database.  A dbInstanceIdentifier
# names the instance, not a database on it.
DATABASES: Final[Mapping[Server, str]] = {"PostgreSQL": "postgres", "Redis": "0"}

# AWS's own word goes first, as in AWS's own rotation functions.
ADMINISTRATOR_FIELDS: Final = ("masterarn", "admin_secret_arn")
"""Where a secret names that of an administrator; the first that is there counts."""


NOT_PICKLED: Final = (
    "a password is not pickled; let the other process read the secret, or its environment, itself"
)
"""What whoever tries is told: a queue, a cache or a file would keep it."""


class Password(str):
    """
    A string that does not show itself.

    Drivers need a real ``str``.  Tools that print the local variables of every frame of a traceback use
    ``repr()``, and the frames of a failed login hold the password.
    """

    __module__ = "ledger_db"

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(NOT_PICKLED)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class SecretProblem(Exception):
    """A secret does not have what is needed: the text names the field and what was expected, no value."""


class AnswerProblem(Exception):
    """This is no answer of Secrets Manager: something in between has spoken."""


@dataclass(frozen=True, slots=True)
class Secret:
    """
    One version of a secret.  A field is judged when it is asked for, and by nobody else.

    Attributes:
        name: What messages call the secret.

        version: Id of the version.

        fields: Everything in it, unknown fields included: a rotation carries them into the next version.

        is_binary: Whether it is stored as SecretBinary; the next version is stored the same way.
    """

    name: str
    version: str
    fields: Mapping[str, Any] = field(repr=False)
    is_binary: bool = False

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(NOT_PICKLED)

    @property
    def engine(self) -> str:
        """What AWS calls the kind of server, in lower case; empty if the secret does not say."""
        return str(self.fields.get("engine") or "").lower()

    @property
    def username(self) -> str:
        """Who logs in; ``default`` where a secret of a Redis engine names nobody."""
        return self.username_for("Redis" if self.engine in ENGINES["Redis"] else "PostgreSQL")

    @property
    def password(self) -> Password:
        """The password; its repr is masked."""
        # White space around it may be meant: a server takes it, and says whether it is right.
        return Password(self.text("password", trimmed=False))

    @property
    def host(self) -> str:
        """Name or address of the server."""
        return self.host_for("Redis" if self.engine in ENGINES["Redis"] else "PostgreSQL")

    @property
    def administrator_field(self) -> str | None:
        """The field that names the secret of an administrator; None if the secret names none."""
        return next((name for name in ADMINISTRATOR_FIELDS if self.fields.get(name)), None)

    def has(self, name: str) -> bool:
        """Whether the field *name* is there; one that is meant by another spelling is refused."""
        return self._given(name)[1] is not None

    def check_engine(self, server: Server) -> None:
        """Insist on an engine that is a *server*, where the secret names one."""
        _, engine = self._given("engine")
        if engine is not None and (not isinstance(engine, str) or engine.lower() not in ENGINES[server]):
            raise self.problem("engine", f"one of {', '.join(sorted(ENGINES[server]))} for {server}")

    def check(self, server: Server) -> None:
        """
        Insist on all that a login to a *server* needs.

        Raises:
            SecretProblem: Names the first field that is wrong.
        """
        self.check_engine(server)
        # Asking for a field is checking it.
        _ = self.username_for(server), self.password, self.port(server), self.database(server)
        # A cluster of Redis is named node by node.
        if self.fields.get("nodes") is None:
            _ = self.host_for(server)

    def username_for(self, server: Server) -> str:
        """Return who logs in to a *server*."""
        # An ElastiCache AUTH token and Redis' requirepass belong to the user "default".
        if server == "Redis" and self._given("username")[1] is None:
            return "default"
        return self.text("username")

    def host_for(self, server: Server, *, expected: str = "a name or address") -> str:
        """Return the name or address of a *server*; of PostgreSQL it may be the folder of a socket."""
        host = self.text("host", expected=expected, trimmed=False)
        why_not = why_no_host(host, sockets=server == "PostgreSQL")
        if why_not is not None:
            raise SecretProblem(f"secret {self.name!r}: field 'host' {why_not}")
        return host

    def port(self, server: Server) -> int:
        """Return the TCP port, which is stored as number or as text; the usual one if none is."""
        _, port = self._given("port")
        if port is None:
            return PORTS[server]
        if isinstance(port, str) and _NUMBER.fullmatch(port.strip()):
            port = int(port)
        # bool is an int in Python, and no port.
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            raise self.problem("port", "a number from 1 to 65535, or the same as text")
        return port

    def database(self, server: Server) -> str:
        """Return the name of the database, of Redis the number as text; the usual one if none is named."""
        name, value = self._given("dbname", "database")
        if value is None:
            return DATABASES[server]
        if server == "PostgreSQL":
            return self.text(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not _NUMBER.fullmatch(value):
            raise self.problem(name, "the number of a Redis database, or nothing")
        return value

    @property
    def names_database(self) -> bool:
        """Whether it says which database is meant."""
        return self._given("dbname", "database")[1] is not None

    def text(self, name: str, *, expected: str = "a non-empty text", trimmed: bool = True) -> str:
        """
        Return the text of the field *name*.

        Args:
            name: Of the field.

            expected: What it should be, for the message.

            trimmed: Whether white space around it is a mistake.

        Raises:
            SecretProblem: It is missing, or is no text that a server could have been given.
        """
        _, found = self._given(name)
        wrong = why_no_text(found, expected, trimmed=trimmed)
        if wrong is None:
            return str(found)
        # The frames of an error may be shown with their variables, and this may be a password.
        del found
        raise self.problem(name, wrong)

    def _given(self, *names: str) -> tuple[str, Any]:
        """Return which of *names* is there, and what it holds; None if it is there in no spelling."""
        for name in names:
            if self.fields.get(name) is not None:
                return name, self.fields[name]
        meant = next((meant for name in names if (meant := look_alike(name, self.fields))), None)
        if meant is not None:
            raise SecretProblem(
                f"secret {self.name!r}: field {names[0]!r} is missing, and {meant!r} is not read in its "
                f"place; rename that to {names[0]!r}"
            )
        return names[0], None

    def problem(self, name: str, expected: str) -> SecretProblem:
        """Return what to raise for the field *name*; *expected* must not tell what is in it."""
        state = "is missing" if self.fields.get(name) is None else "has another form"
        return SecretProblem(f"secret {self.name!r}: field {name!r} {state}; expected {expected}")


def secret_in(answer: Mapping[str, Any], *, name: str) -> Secret:
    """
    Return the secret in an *answer* of GetSecretValue.

    Args:
        answer: As boto3 gives it; SecretBinary is taken as UTF-8.

        name: What messages call the secret.

    Raises:
        SecretProblem: It is no JSON object.

        AnswerProblem: It is no such answer.
    """
    text, version = answer.get("SecretString", answer.get("SecretBinary")), answer.get("VersionId")
    if not isinstance(text, str | bytes) or not isinstance(version, str):
        raise AnswerProblem("Secrets Manager answered GetSecretValue with something else")
    fields, why_not = parsed(text)
    if not isinstance(fields, dict):
        raise SecretProblem(
            f"secret {name!r}: {why_not}; expected a JSON object with at least 'username' and 'password', in "
            "the shape that AWS documents for database secrets"
        )
    return Secret(name, version, fields, is_binary="SecretString" not in answer)
