"""From settings to servers: which source, which options, which defaults."""

from typing import TYPE_CHECKING

from pydantic import SecretStr

from ledger_db.answers.secret import DATABASES, PORTS, Password
from ledger_db.connections.engine_arguments import NOTHING_GIVEN, Given
from ledger_db.connections.engines import EngineOptions
from ledger_db.connections.postgres_server import Drivers, PostgresServer
from ledger_db.credentials.from_secret import Address
from ledger_db.credentials.model import Credentials, CredentialSource
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.schedule import Schedule
from ledger_db.credentials.secrets_manager import SecretsManagerSource
from ledger_db.event_log import EventLog
from ledger_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger_db.connections.redis_server import RedisServer
    from ledger_db.connections.server import Database, Server
    from ledger_db.signals.listener import SignalListener


log: EventLog = EventLog(__name__)


def database_server(
    settings: Settings, source: CredentialSource | None = None, *, given: Given = NOTHING_GIVEN
) -> "Database | None":
    """Return the database that *settings* name, not connected yet; None if they name none."""
    if source is None and settings.database_url is not None:
        return _sqlite_server(settings, settings.database_url, given)
    return postgres_server(settings, source, given=given)


def postgres_server(
    settings: Settings, source: CredentialSource | None = None, *, given: Given = NOTHING_GIVEN
) -> PostgresServer | None:
    """Return the PostgreSQL server that *settings* name, not connected yet; None if they name none."""
    source = source or _database_source(settings)
    if source is None:
        return None
    return PostgresServer(
        _provider(source, settings),
        options=_engine_options(settings, given),
        drivers=Drivers(sync=settings.database_driver, on_loop=settings.async_database_driver),
        patience_seconds=settings.login_patience_seconds,
    )


def redis_server(settings: Settings, source: CredentialSource | None = None) -> "RedisServer | None":
    """Return the Redis that *settings* name, not connected yet; None if they name none."""
    source = source or _redis_source(settings)
    if source is None:
        return None
    # Here, not above: redis-py takes 6 MB and 40 ms of a process that may have no Redis.
    from ledger_db.connections.redis import RedisOptions  # noqa: PLC0415
    from ledger_db.connections.redis_server import RedisServer  # noqa: PLC0415

    return RedisServer(
        _provider(source, settings),
        options=RedisOptions(
            max_connections=settings.redis_max_connections,
            pool_timeout_seconds=settings.pool_timeout_seconds,
            connect_timeout_seconds=settings.connect_timeout_seconds,
            timeout_seconds=settings.redis_timeout_seconds,
            silence_timeout_seconds=settings.silence_timeout_seconds,
            retries=settings.redis_retries,
            repeat_writes=settings.redis_repeat_writes,
            tls=settings.redis_tls,
            tls_ca_file=settings.redis_tls_ca_file,
            decode_responses=settings.redis_decode_responses,
        ),
        patience_seconds=settings.login_patience_seconds,
    )


def redis_provider(settings: Settings) -> CredentialProvider | None:
    """Return what provides the Redis credentials that *settings* name, for clients that are not ours."""
    source = _redis_source(settings)
    return None if source is None else _provider(source, settings)


def signal_listener(
    settings: Settings, redis: "RedisServer | None", servers: "Sequence[Server]"
) -> "SignalListener | None":
    """Return who hears of rotations of *servers*; None without a Redis, or if nothing can rotate."""
    rotating = [server for server in servers if server.provider.rotates]
    if redis is None or not rotating:
        return None
    # Here, not above: they know redis-py, which a process without Redis does not load.
    from ledger_db.signals.listener import SignalListener  # noqa: PLC0415
    from ledger_db.signals.subscription import Subscription  # noqa: PLC0415

    channel = settings.announcements_channel
    return SignalListener(
        lambda: Subscription(redis.new_connection(), channel),
        rotating,
        spread_seconds=settings.announcement_spread_seconds,
    )


def _sqlite_server(settings: Settings, url: str, given: Given) -> "Database":
    # Here, not above: a service does not pay for what only a developer's machine has.
    from ledger_db.sqlite.file import SqliteFile  # noqa: PLC0415
    from ledger_db.sqlite.server import SqliteServer  # noqa: PLC0415

    if settings.profile == "production":
        log.warning("sqlite.in_production")
    return SqliteServer(SqliteFile.of_url(url), options=_engine_options(settings, given))


def _engine_options(settings: Settings, given: Given) -> EngineOptions:
    return EngineOptions(
        pool=settings.pool,
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        pool_timeout_seconds=settings.pool_timeout_seconds,
        pool_recycle_seconds=settings.pool_recycle_seconds,
        pool_pre_ping=settings.pool_pre_ping,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        silence_timeout_seconds=settings.silence_timeout_seconds,
        sslmode=settings.database_sslmode,
        sslrootcert=settings.database_sslrootcert,
        sslcert=settings.database_sslcert,
        sslkey=settings.database_sslkey,
        target=settings.database_target,
        pooler=settings.pooler,
        application_name=settings.application_name,
        server_settings=settings.server_parameters,
        echo=settings.echo,
        log_pool_events=settings.log_pool_events,
        given=given,
    )


def _provider(source: CredentialSource, settings: Settings) -> CredentialProvider:
    schedule = Schedule(
        refresh_interval_seconds=settings.refresh_interval_seconds,
        renewal_spread_seconds=settings.renewal_spread_seconds,
    )
    return CredentialProvider(source, schedule)


def _database_source(settings: Settings) -> CredentialSource | None:
    if settings.database_secret_id is not None:
        address = Address(
            host=settings.database_host, port=settings.database_port, database=settings.database_name
        )
        return SecretsManagerSource(settings.database_secret_id, "PostgreSQL", address=address)
    user, host = settings.database_user, settings.database_host
    if not user or not host:
        return None
    port, database = settings.database_port or PORTS["PostgreSQL"], settings.database_name
    if settings.database_iam_auth:
        from ledger_db.credentials.rds_iam import RdsIamSource  # noqa: PLC0415 - few have it

        return RdsIamSource(user, host, port=port, database=database)
    return _static_source(
        Credentials(
            user,
            _given(settings.database_password),
            "settings",
            host,
            port,
            database or DATABASES["PostgreSQL"],
            names_database=database is not None,
        )
    )


def _redis_source(settings: Settings) -> CredentialSource | None:
    database = None if settings.redis_db is None else str(settings.redis_db)
    if settings.redis_secret_id is not None:
        address = Address(host=settings.redis_host, port=settings.redis_port, database=database)
        return SecretsManagerSource(settings.redis_secret_id, "Redis", address=address)
    if settings.redis_host is None:
        return None
    return _static_source(
        Credentials(
            settings.redis_user or "default",
            _given(settings.redis_password),
            "settings",
            settings.redis_host,
            settings.redis_port or PORTS["Redis"],
            database or DATABASES["Redis"],
        )
    )


def _static_source(credentials: Credentials) -> CredentialSource:
    # Here, not above: what is rotated has none.
    from ledger_db.credentials.static import StaticSource  # noqa: PLC0415

    return StaticSource(credentials)


def _given(password: SecretStr | None) -> Password:
    return Password(password.get_secret_value() if password else "")
