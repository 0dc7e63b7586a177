"""
What can be configured, from the environment or by hand.

Every setting is read from ``LEDGER_DB_<NAME>``.  AWS itself is configured the AWS way: AWS_REGION,
AWS_PROFILE, AWS_ENDPOINT_URL and the rest are boto3's, never names of our own.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ledger_db.answers.announcement import DEFAULT_CHANNEL
from ledger_db.answers.host import why_no_host
from ledger_db.answers.secret import NOT_PICKLED
from ledger_db.answers.server_settings import TIMEOUTS, in_milliseconds, why_not_set
from ledger_db.errors import ConfigurationError
from ledger_db.variables import tell_unknown

_ALONE: Final[Mapping[str, Any]] = {"renewal_spread_seconds": 0.0, "announcement_spread_seconds": 0.0}

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    # One process is no fleet: what it does about a rotation is seen at once.
    "development": {"pool_size": 2, "max_overflow": 3, "echo": True, **_ALONE},
    # Nothing is kept, so nothing is shared between tests or their event loops.
    "test": {"pool": "none", **_ALONE},
}
"""By profile, what differs from the defaults, which are those of production."""

# Beyond 24 days a socket's time-out does not fit into what the system counts it in; a week is below that, and
# more than anybody waits for a server.
MOST_SECONDS: Final = 7 * 86400.0
"""The most that a number of seconds may be, where it has no closer bound."""

# One client that keeps an old password is in everybody's way: the pooler tries it on its server, and then
# lets nobody in for some seconds.
_LONGEST_SPREAD_BEHIND_A_POOLER: Final = 2.0

POOLER_PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    # What a login finds says nothing about the next transaction: that may go to another of its servers.
    "transaction": {
        "database_target": "any",
        "renewal_spread_seconds": _LONGEST_SPREAD_BEHIND_A_POOLER,
    },
}
"""By pooler, what differs from the defaults; a profile's presets go before these."""

# No host, no user and no options: nothing in it can be secret, and SQLAlchemy has nothing to misunderstand.
_SQLITE_URL: Final = re.compile(r"sqlite(\+(pysqlite|aiosqlite))?://(/[^?]*)?")


def _server_timeout(description: str) -> Any:
    return Field(default=None, gt=0, le=MOST_SECONDS, description=description)


class Settings(BaseSettings):
    """
    All settings of a manager.  All times are in seconds.

    Either server may be absent: using what it would have configured is a `ConfigurationError`.

    Raises:
        ConfigurationError: Names each setting that is wrong and what was expected, never its value.
    """

    __module__ = "ledger_db"

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="LEDGER_DB_",
        # LEDGER_DB_REDIS_HOST="" in a compose file means "not set".
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    profile: Literal["production", "development", "test"] = Field(
        default="production", description="Presets for what is not set by itself: pools, echo"
    )

    database_secret_id: str | None = Field(
        default=None, description="Name or ARN of the PostgreSQL secret in AWS Secrets Manager"
    )
    database_iam_auth: bool = Field(
        default=False, description="Log in to RDS with IAM tokens for `database_user`, without a secret"
    )
    database_user: str | None = Field(default=None, description="User, where there is no secret")
    database_password: SecretStr | None = Field(
        default=None, description="Password, where there is no secret: a developer's own server"
    )
    database_url: str | None = Field(
        default=None,
        description="A SQLite database for development, instead of PostgreSQL: `sqlite:///dev.db` is a file, "
        "`sqlite://` is in memory",
    )
    database_host: str | None = Field(default=None, description="Goes before the secret's host")
    database_port: int | None = Field(
        default=None, ge=1, le=65535, description="Goes before the secret's port; 5432 if neither is set"
    )
    database_name: str | None = Field(
        default=None, description="Goes before the secret's dbname; `postgres` if neither is set"
    )
    database_driver: Literal["psycopg2", "psycopg"] = Field(
        default="psycopg2", description="Driver of `engine`"
    )
    async_database_driver: Literal["asyncpg", "psycopg"] = Field(
        default="asyncpg", description="Driver of `async_engine`"
    )
    database_sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = (
        Field(default=None, description="As libpq's; `verify-full` if not set, `prefer` on loopback")
    )
    database_sslrootcert: str | None = Field(
        default=None, description="PEM file of the authorities to trust; the system's if not set"
    )
    database_sslcert: str | None = Field(
        default=None, description="PEM file of this client's own certificate, where the server wants one"
    )
    database_sslkey: str | None = Field(
        default=None, description="PEM file of its key, without a passphrase; nobody else may read it"
    )
    database_target: Literal["primary", "any"] = Field(
        default="primary",
        description="`primary`: only a server that takes writes is good enough; `any`: a standby is too",
    )
    pooler: Literal["none", "session", "transaction"] = Field(
        default="none",
        description="What stands before the server: nothing, or PgBouncer with this `pool_mode`; RDS Proxy "
        "counts as `transaction`",
    )
    pool: Literal["queue", "none"] = Field(
        default="queue",
        description="`none`: each connection is closed when it is returned, and nothing limits their number",
    )
    pool_size: int = Field(default=5, ge=1, description="Connections that an engine keeps open")
    max_overflow: int = Field(default=10, ge=0, description="Connections beyond that, closed when returned")
    pool_timeout_seconds: float = Field(
        default=5.0, gt=0, le=MOST_SECONDS, description="How long a request waits for a free connection"
    )
    pool_recycle_seconds: float = Field(
        default=1800.0, gt=0, le=MOST_SECONDS, description="Age at which a connection is replaced"
    )
    pool_pre_ping: bool = Field(
        default=False, description="Ask the server at each checkout; costs 25 to 40 % of a small request"
    )
    connect_timeout_seconds: float = Field(
        default=5.0, gt=0, le=MOST_SECONDS, description="How long one connection attempt may take"
    )
    silence_timeout_seconds: float = Field(
        default=15.0,
        ge=1,
        le=3600,
        description="How long a server or a network may be silent until a connection counts as broken",
    )
    application_name: str = Field(
        default="ledger_db",
        min_length=1,
        # PostgreSQL cuts at 63, and the health check's own connection has ".probe" behind it.
        max_length=57,
        description="What pg_stat_activity shows of this service",
    )
    server_settings: dict[str, str] = Field(
        default_factory=dict,
        description='What each connection begins with, as JSON: `{"search_path": "billing"}`',
    )
    statement_timeout_seconds: float | None = _server_timeout(
        "How long a statement may take; the server's own if not set"
    )
    lock_timeout_seconds: float | None = _server_timeout(
        "How long a statement may wait for a lock; the server's own if not set"
    )
    idle_in_transaction_session_timeout_seconds: float | None = _server_timeout(
        "How long a transaction may do nothing; the server's own if not set"
    )
    retry_patience_seconds: float = Field(
        default=10.0,
        ge=0,
        le=MOST_SECONDS,
        description="How long `run` repeats a transaction that meets conflicts or loses its connection",
    )
    echo: bool = Field(default=False, description="Log each statement, without its parameters")
    log_pool_events: bool = Field(
        default=False, description="Log each connection that is opened, borrowed, returned or closed"
    )

    redis_secret_id: str | None = Field(
        default=None, description="Name or ARN of the Redis secret in AWS Secrets Manager"
    )
    redis_user: str | None = Field(default=None, description="User, where there is no secret")
    redis_password: SecretStr | None = Field(default=None, description="Password, where there is no secret")
    redis_host: str | None = Field(default=None, description="Goes before the secret's host")
    redis_port: int | None = Field(
        default=None, ge=1, le=65535, description="Goes before the secret's port; 6379 if neither is set"
    )
    redis_db: int | None = Field(
        default=None, ge=0, description="Goes before the secret's database number; 0 if neither is set"
    )
    redis_tls: bool = Field(default=False, description="Speak TLS, and check certificate and name")
    redis_tls_ca_file: str | None = Field(
        default=None, description="PEM file of the authorities to trust; the system's if not set"
    )
    redis_max_connections: int = Field(default=50, ge=1, description="The most connections of a client")
    redis_timeout_seconds: float = Field(
        default=5.0,
        gt=0,
        le=3600,
        description="How long an answer may take, beyond what a blocking command itself asks to wait",
    )
    redis_retries: int = Field(
        default=3,
        ge=0,
        le=100,
        description="How often connecting is tried again, and a read whose connection was lost",
    )
    redis_repeat_writes: bool = Field(
        default=False,
        description="Send again any command whose answer was lost, not only reads: it may be done twice",
    )
    redis_decode_responses: bool = Field(default=False, description="Answers are text instead of bytes")

    announcements_channel: str = Field(
        default=DEFAULT_CHANNEL,
        min_length=1,
        description="Redis channel on which rotations are announced; listened to if there is a Redis",
    )
    refresh_interval_seconds: float = Field(
        default=300.0,
        # Less is a mistake: each look is billed, and throttled.
        ge=0.05,
        le=MOST_SECONDS,
        description="The longest time between two looks at a secret; jittered by U(1/2, 1)",
    )
    renewal_spread_seconds: float = Field(
        default=30.0,
        ge=0,
        le=600,
        description="Over how long a rotation's logins are spread; at most 2 behind a pooler by transaction",
    )
    announcement_spread_seconds: float = Field(
        default=15.0,
        ge=0,
        le=600,
        description="The most that a look waits after an announcement, drawn by each process",
    )
    login_patience_seconds: float = Field(
        default=10.0,
        gt=0,
        le=MOST_SECONDS,
        description="How long a refused login looks for newer credentials; a start: as long as it may take",
    )
    startup_timeout_seconds: float = Field(
        default=30.0, gt=0, le=MOST_SECONDS, description="How long a start may take, all retries included"
    )

    def __init__(self, **values: Any) -> None:
        tell_unknown(os.environ, type(self).model_fields)
        problems = ""
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = "; ".join(
                _describe(problem["loc"], problem["msg"])
                for problem in error.errors(include_input=False, include_url=False, include_context=False)
            )
        except ValueError:
            # Of pydantic-settings, which names it elsewhere in each version.  It is the only setting that is
            # more than a word or a number; its text goes with the error.
            problems = "LEDGER_DB_SERVER_SETTINGS: is no JSON object"
        if problems:
            # Out here, and without what was given: the error's frames, and those of its context, may be shown
            # with their variables, and a password is one of them.
            values.clear()
            raise ConfigurationError(f"{problems}; mend the environment or the arguments")

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def __getstate__(self) -> dict[Any, Any]:
        if self.database_password or self.redis_password:
            raise TypeError(NOT_PICKLED)
        return super().__getstate__()

    @model_validator(mode="before")
    @classmethod
    def _preset_by_profile(cls, values: dict[str, Any]) -> dict[str, Any]:
        # The values of the environment and of the arguments are merged by now: either goes before a preset.
        pooler = POOLER_PRESETS.get(str(values.get("pooler")), {})
        return {**pooler, **PRESETS.get(str(values.get("profile")), {}), **values}

    @field_validator("*")
    @classmethod
    def _as_it_was_meant(cls, value: object) -> object:
        if isinstance(value, str) and value != value.strip():
            raise ValueError("has white space around it; remove that")
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(text, str) and "\x00" in text:
            raise ValueError("holds the character NUL, which no server accepts")
        return value

    @field_validator("database_host", "redis_host")
    @classmethod
    def _only_a_host(cls, host: str | None, info: ValidationInfo) -> str | None:
        why_not = host and why_no_host(host, sockets=info.field_name == "database_host")
        if why_not:
            raise ValueError(why_not)
        return host

    @field_validator("database_url")
    @classmethod
    def _only_sqlite(cls, url: str | None) -> str | None:
        if url is not None and not _SQLITE_URL.fullmatch(url):
            raise ValueError(
                "only sqlite:///<file> and sqlite:// (in memory) are accepted: a password in a URL never "
                "rotates; use database_secret_id, or database_user, database_host and database_password"
            )
        return url

    @model_validator(mode="after")
    def _one_database(self) -> Self:
        servers = {
            "database_secret_id": self.database_secret_id,
            "database_iam_auth": self.database_iam_auth,
            "database_user": self.database_user,
            "database_password": self.database_password,
            "database_host": self.database_host,
            "pooler": self.pooler != "none",
        }
        too_many = [name for name, value in servers.items() if value]
        if self.database_url is not None and too_many:
            raise ValueError(
                f"LEDGER_DB_DATABASE_URL stands alone; remove it, or "
                f"{', '.join(f'LEDGER_DB_{name.upper()}' for name in too_many)}"
            )
        return self

    @model_validator(mode="after")
    def _what_a_pooler_can_do(self) -> Self:
        # Neither is a default of ours behind such a pooler: somebody has asked for it.
        if self.pooler == "transaction" and self.database_target == "primary":
            raise ValueError(
                "LEDGER_DB_DATABASE_TARGET=primary does not hold with LEDGER_DB_POOLER=transaction: each "
                "transaction may go to another server; remove it, and let the pooler lead to the writer"
            )
        longest = _LONGEST_SPREAD_BEHIND_A_POOLER
        if self.pooler == "transaction" and self.renewal_spread_seconds > longest:
            raise ValueError(
                f"LEDGER_DB_RENEWAL_SPREAD_SECONDS: at most {longest:g} with LEDGER_DB_POOLER=transaction, "
                "where a connection with an old password is in everybody's way; lower it, or remove it"
            )
        if self.pooler != "none" and self.server_parameters:
            raise ValueError(
                f"LEDGER_DB_POOLER={self.pooler} and what a server is told at login "
                f"({', '.join(self.server_parameters)}) exclude each other: a pooler refuses that, as its "
                "connections are shared; use ALTER ROLE ... SET, or ALTER DATABASE ... SET, for all of them"
            )
        return self

    @property
    def server_parameters(self) -> dict[str, str]:
        """What each connection to PostgreSQL begins with, by PostgreSQL's names."""
        limits = {name: getattr(self, f"{name}_seconds") for name in TIMEOUTS}
        return {**self.server_settings, **in_milliseconds(limits)}

    @field_validator("server_settings")
    @classmethod
    def _what_a_server_can_be_told(cls, given: dict[str, str]) -> dict[str, str]:
        if why_not := why_not_set(given, own=cls.model_fields):
            raise ValueError(why_not)
        return given

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        ways = [self.database_secret_id, self.database_iam_auth or None, self.database_password]
        if sum(way is not None for way in ways) > 1:
            raise ValueError(
                "database_secret_id, database_iam_auth and database_password exclude each other; keep one"
            )
        if (self.database_iam_auth or self.database_password) and not (
            self.database_user and self.database_host
        ):
            raise ValueError("without a secret, database_user and database_host are needed")
        if self.redis_secret_id is not None and self.redis_password is not None:
            raise ValueError("redis_secret_id and redis_password exclude each other; keep one")
        if self.redis_password is not None and not self.redis_host:
            raise ValueError("without a secret, redis_host is needed")
        if (self.database_sslcert is None) != (self.database_sslkey is None):
            raise ValueError("database_sslcert and database_sslkey belong together; set both, or neither")
        return self


def _describe(place: tuple[int | str, ...], message: str) -> str:
    """Say what is wrong with which variable; what concerns several names them itself."""
    text = message.removeprefix("Value error, ")
    return f"LEDGER_DB_{'_'.join(map(str, place)).upper()}: {text}" if place else text
