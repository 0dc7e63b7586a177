"""What an ``env.py`` does: the command at hand, on a connection that logs in with what is valid now."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from logging.config import fileConfig
from typing import TYPE_CHECKING, Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData, TypeDecorator

from ledger_db.errors import ConfigurationError, LedgerDBError
from ledger_db.manager.connection_manager import ConnectionManager
from ledger_db.migrations.turns import Rules, apply, wait_for_turn
from ledger_db.settings import Settings

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext


def run_migrations(
    metadata: MetaData,
    *,
    role: str | None = None,
    turn_timeout_seconds: float = 300.0,
    lock_timeout_seconds: float | None = 5.0,
    statement_timeout_seconds: float | None = None,
    **options: Any,
) -> None:
    """
    Do what the Alembic command at hand asks for; call it from ``env.py``.

    On PostgreSQL each migration is a transaction of its own, and an advisory lock lets one deployer after the
    other have a turn: the second finds nothing left to do.  On SQLite, and on a connection that was passed,
    all of them are one transaction.  With ``--sql`` the statements are printed: no secret is read, and
    nothing is connected.

    Args:
        metadata: What the tables should be, for ``--autogenerate`` and ``check``.

        role: Become this role of PostgreSQL, to which new tables then belong; None for who logs in.

        turn_timeout_seconds: How long to wait while somebody else migrates the same database.

        lock_timeout_seconds: How long a statement may wait for a table; every request for that table queues
            up behind it meanwhile.  None for the server's default.

        statement_timeout_seconds: When PostgreSQL cancels a statement; None for the server's default.

        options: For Alembic's ``context.configure()``, and before ours: ``version_table_schema``, ...

    Raises:
        MigrationsBusy: Somebody else was migrating all that time; try again.

        ConfigurationError: The settings do not lead to a database.
    """
    rules = Rules(
        role=role,
        turn_timeout_seconds=turn_timeout_seconds,
        lock_timeout_seconds=lock_timeout_seconds,
        statement_timeout_seconds=statement_timeout_seconds,
    )
    by_command = context.config.cmd_opts is not None
    if by_command:
        _configure_logging()
    try:
        if context.is_offline_mode():
            _print(metadata, options)
        else:
            with _connection() as connection:
                _migrate(connection, metadata, rules, options)
    except LedgerDBError as error:
        if not by_command:
            raise
        # The command shows this one as a line, and every other as a traceback.
        raise CommandError(str(error)) from error


def _configure_logging() -> None:
    # As env.py of Alembic's own template: a command shows what it does.  A service that migrates when it
    # starts has logging of its own.
    config = context.config
    if config.config_file_name is not None and config.file_config.has_section("loggers"):
        fileConfig(config.config_file_name, disable_existing_loggers=False)


def _print(metadata: MetaData, options: dict[str, Any]) -> None:
    ours = {
        "dialect_name": "postgresql+psycopg2" if Settings().database_url is None else "sqlite",
        # Printed statements go through no driver, for which a % would have to be doubled.
        "dialect_opts": {"paramstyle": "named"},
        "literal_binds": True,
        "target_metadata": metadata,
        "transaction_per_migration": True,
    }
    context.configure(**{**ours, **options})
    with context.begin_transaction():
        context.run_migrations()


def _migrate(connection: Connection, metadata: MetaData, rules: Rules, options: dict[str, Any]) -> None:
    on_postgresql = connection.dialect.name == "postgresql"
    if on_postgresql:
        apply(rules, connection)
    ours = {
        "connection": connection,
        "target_metadata": metadata,
        "transaction_per_migration": True,
        "compare_type": True,
        "render_item": _render_item,
        # SQLite can hardly alter a table: Alembic makes a new one and moves the rows.
        "render_as_batch": connection.dialect.name == "sqlite",
    }
    context.configure(**{**ours, **options})
    only_reads = context.get_context().opts.get("dont_mutate", False)
    if on_postgresql and not only_reads:
        # Before Alembic looks which migrations are missing: meanwhile somebody else may have done them.
        schema = options.get("version_table_schema")
        wait_for_turn(connection, schema, timeout_seconds=rules.turn_timeout_seconds)
    with context.begin_transaction():
        context.run_migrations()


@contextmanager
def _connection() -> Iterator[Connection]:
    """Yield a connection for one run: the caller's, or one that ends with the run."""
    given = context.config.attributes.get("connection")
    if given is None:
        with _manager() as db:
            _refuse_a_pooler(db)
            with db.engine.connect() as connection, _of_its_own(connection):
                yield connection
    elif not isinstance(given, Connection):
        raise ConfigurationError(
            f"config.attributes['connection'] is a {type(given).__name__}; pass a Connection of "
            "SQLAlchemy's, of an AsyncConnection by 'await connection.run_sync(...)'"
        )
    else:
        # One transaction, the caller's or ours: what is set for it and the lock end with it.
        with nullcontext() if given.in_transaction() else given.begin():
            yield given


@contextmanager
def _manager() -> Iterator[ConnectionManager]:
    given = context.config.attributes.get("manager")
    if given is not None:
        yield given
        return
    # One connection to migrate, one to try out a password that is rotated meanwhile.  And whoever may change
    # tables need not be able to reach Redis.
    changes = {"pool_size": 1, "max_overflow": 1, "redis_secret_id": None, "redis_host": None}
    settings = Settings().model_copy(update=changes)
    with ConnectionManager(settings) as db:
        yield db


def _refuse_a_pooler(db: ConnectionManager) -> None:
    # The turn, the limits and the role belong to the session: they would stay on whichever connection of the
    # pooler's took them, for others, and the migration would go on without.
    if db.settings.pooler == "transaction":
        raise ConfigurationError(
            "migrations need a session of their own, and LEDGER_DB_POOLER=transaction has none; lead this "
            "command to the server itself (LEDGER_DB_DATABASE_HOST and _PORT, LEDGER_DB_POOLER=none)"
        )


@contextmanager
def _of_its_own(connection: Connection) -> Iterator[None]:
    if connection.dialect.name == "postgresql":
        try:
            yield
        finally:
            # Closed and not returned to the pool: the lock, the timeouts and the role go with the session,
            # whatever happened.  Not detached before, which would rule out AUTOCOMMIT, and so indexes that
            # are built CONCURRENTLY.
            connection.invalidate()
    else:
        with _foreign_keys_off(connection), connection.begin():
            yield
            _refuse_lost_references(connection)


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """
    Let SQLite's tables be replaced.

    Alembic drops the old table once its rows are moved.  With foreign keys on, SQLite would delete those rows
    first, and with ON DELETE CASCADE the rows of other tables with them.  The switch does nothing inside of a
    transaction, so it comes before ours.
    """
    connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        connection.connection.cursor().execute("PRAGMA foreign_keys = ON")


def _refuse_lost_references(connection: Connection) -> None:
    tables = sorted({row[0] for row in connection.exec_driver_sql("PRAGMA foreign_key_check")})
    if tables:
        raise ConfigurationError(
            f"after these migrations, rows of {', '.join(tables)} refer to rows that are not there; nothing "
            "was changed; mend the migration, or those rows before it"
        )


def _render_item(kind: str, item: Any, autogenerate: "AutogenContext") -> str | bool:
    """Render our types by what they are on the server: a migration needs no import of ours."""
    if kind == "type" and isinstance(item, TypeDecorator) and type(item).__module__.startswith("ledger_db."):
        return f"{autogenerate.opts['sqlalchemy_module_prefix']}{item.impl_instance!r}"
    return False
