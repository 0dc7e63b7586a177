"""Does a database have all migrations that a program was written for?"""

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError, to_tuple
from sqlalchemy import Connection, Engine

from ledger_db.errors import ConfigurationError
from ledger_db.event_log import EventLog

log: EventLog = EventLog(__name__)


def pending_revisions(
    bind: Connection | Engine,
    scripts: Config | Path | str,
    *,
    version_table: str = "alembic_version",
    version_table_schema: str | None = None,
) -> tuple[str, ...]:
    """
    Tell which migrations *scripts* have and the database lacks, oldest first.

    A database that is ahead of this program lacks nothing: during a deployment the version before may have to
    start once more.

    Args:
        bind: Whom to ask (an async connection by ``run_sync``); its role needs SELECT on the version table.

        scripts: Alembic's configuration, or the folder that has ``env.py`` and ``versions``.

        version_table: As ``context.configure()`` has it.

        version_table_schema: Likewise.

    Raises:
        ConfigurationError: There are no migrations at that place.
    """
    ancestors = _ancestors_by_revision(scripts)
    names = {"version_table": version_table, "version_table_schema": version_table_schema}
    with bind.connect() if isinstance(bind, Engine) else nullcontext(bind) as connection:
        heads = MigrationContext.configure(connection, opts=names).get_current_heads()
    if ahead := sorted(set(heads).difference(ancestors)):
        log.info("migrations.database_ahead", revisions=ahead)
        return ()
    done = _with_ancestors(heads, ancestors)
    return tuple(revision for revision in ancestors if revision not in done)


def check_migrated(
    bind: Connection | Engine,
    scripts: Config | Path | str,
    *,
    version_table: str = "alembic_version",
    version_table_schema: str | None = None,
) -> None:
    """
    Refuse a database that lacks migrations; a service asks when it starts.  Arguments as `pending_revisions`.

    Raises:
        ConfigurationError: Says which are missing and what to run, or that there are none at that place.
    """
    missing = pending_revisions(
        bind, scripts, version_table=version_table, version_table_schema=version_table_schema
    )
    if missing:
        raise ConfigurationError(
            f"the database lacks {len(missing)} of this program's migrations ({', '.join(missing)}); run "
            "'alembic upgrade head' as the role that owns the tables, then start again"
        )


def _ancestors_by_revision(scripts: Config | Path | str) -> dict[str, tuple[str, ...]]:
    """Return what each migration is built on, oldest migration first."""
    try:
        if isinstance(scripts, Config):
            directory = ScriptDirectory.from_config(scripts)
        else:
            directory = ScriptDirectory(str(scripts))
        newest_first = list(directory.walk_revisions())
        return {script.revision: _parents(script, directory) for script in reversed(newest_first)}
    except CommandError as error:
        raise ConfigurationError(f"no migrations to compare with: {error}; name their folder") from error


def _parents(script: Script, directory: ScriptDirectory) -> tuple[str, ...]:
    names = (*to_tuple(script.down_revision, ()), *to_tuple(script.dependencies, ()))
    return tuple(parent.revision for name in names for parent in directory.get_revisions(name))


def _with_ancestors(heads: Iterable[str], ancestors: dict[str, tuple[str, ...]]) -> set[str]:
    done: set[str] = set()
    todo = list(heads)
    while todo:
        revision = todo.pop()
        if revision not in done:
            done.add(revision)
            todo.extend(ancestors[revision])
    return done
