"""
What may a program hand to SQLAlchemy and to the driver itself, and what would break which promise?

Everything that is not listed here passes.  What is listed has a place of its own, so that admission, health
and the probe know of it, or would undo what the engines are for: to log in with whatever is current, to keep
nothing of one borrower for the next, and to show no value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ledger_db.answers.server_settings import on_command_line
from ledger_db.errors import ConfigurationError

_LOGIN: Final = (
    "each login takes it from the credentials that are current then, and would not follow a rotation with "
    "it; name a secret, LEDGER_DB_DATABASE_HOST, _PORT, _NAME or _USER, or give database_source="
)
_OWN_LOGIN: Final = (
    "connections would be opened past the logins that follow a rotation; give database_source= if the "
    "credentials come from elsewhere, or listen to do_connect, which may change what the driver is given"
)
_POOL: Final = "what is stale after a rotation is replaced in the pool that there is; set LEDGER_DB_POOL"
_ONE_LINE: Final = "it has a setting, which the health check's own connection goes by as well; set "
_TRANSACTION: Final = (
    "no failed transaction would be undone, nor would COMMIT say anything; ask for "
    "session(isolation_level='AUTOCOMMIT') where a statement takes no transaction"
)

OF_ENGINE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("creator", "async_creator"), _OWN_LOGIN),
    **dict.fromkeys(("url", "module"), _ONE_LINE + "LEDGER_DB_DATABASE_DRIVER"),
    **dict.fromkeys(("pool", "poolclass"), _POOL),
    "pool_use_lifo": "a renewal has to meet each idle connection, so the first in is the first out; "
    "leave it out",
    "pool_reset_on_return": "a connection that is returned is rolled back, or the next borrower would go on "
    "with what another has left; leave it out",
    "hide_parameters": "errors and logs would show the values of statements, which may be secret; leave it "
    "out, and listen to before_cursor_execute where you have to see them",
    "echo": _ONE_LINE + "LEDGER_DB_ECHO",
    "echo_pool": _ONE_LINE + "LEDGER_DB_LOG_POOL_EVENTS",
    "pool_size": _ONE_LINE + "LEDGER_DB_POOL_SIZE",
    "max_overflow": _ONE_LINE + "LEDGER_DB_MAX_OVERFLOW",
    "pool_timeout": _ONE_LINE + "LEDGER_DB_POOL_TIMEOUT_SECONDS",
    "pool_recycle": _ONE_LINE + "LEDGER_DB_POOL_RECYCLE_SECONDS",
    "pool_pre_ping": _ONE_LINE + "LEDGER_DB_POOL_PRE_PING",
}
"""What an engine is not given, and why not."""

_NAMED_TLS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_OTHER_TLS: Final = ("ssl", "direct_tls")
NAMES_OF_TLS: Final = frozenset({*_NAMED_TLS, *_OTHER_TLS})
NAMES_OF_SILENCE: Final = ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count")
OF_DRIVER: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("user", "password", "passfile", "host", "hostaddr", "port", "dbname", "database", "dsn", "service"),
        _LOGIN,
    ),
    **{name: f"{_ONE_LINE}LEDGER_DB_DATABASE_{name.upper()}" for name in _NAMED_TLS},
    **dict.fromkeys(_OTHER_TLS, _ONE_LINE + "LEDGER_DB_DATABASE_SSLMODE"),
    **dict.fromkeys(("connect_timeout", "timeout"), _ONE_LINE + "LEDGER_DB_CONNECT_TIMEOUT_SECONDS"),
    **dict.fromkeys((*NAMES_OF_SILENCE, "tcp_user_timeout"), _ONE_LINE + "LEDGER_DB_SILENCE_TIMEOUT_SECONDS"),
    "application_name": _ONE_LINE + "LEDGER_DB_APPLICATION_NAME",
    "target_session_attrs": _ONE_LINE + "LEDGER_DB_DATABASE_TARGET",
    "autocommit": _TRANSACTION,
    **dict.fromkeys(
        ("connection_class", "connection_factory", "cursor_factory", "async_creator_fn"),
        "what a COMMIT was answered is heard there, and a "
        "statement that is cancelled waits for nobody; leave it out",
    ),
}
"""What a driver is not given, and why not."""

NAMES_OF_LOGIN: Final = frozenset(name for name, why in OF_DRIVER.items() if why == _LOGIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArguments:
    """
    What a program gives for one engine, looked through.

    Attributes:
        engine: For ``create_engine`` or ``create_async_engine``.

        driver: For the driver, at each connection.  Not shown: a key's passphrase may be among them.
    """

    engine: Mapping[str, Any] = field(default_factory=dict)
    driver: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, options: Mapping[str, Any], name: str) -> "EngineArguments":
        """
        Look through *options*, which a program would give to ``create_engine`` beside a URL.

        Args:
            options: ``connect_args`` among them.

            name: What they are called where they were given.

        Raises:
            ConfigurationError: Names what would break a promise, which one, and what to do instead; or what
                is no dictionary.
        """
        _refuse_unless_named(options, name)
        engine = {key: value for key, value in options.items() if key != "connect_args"}
        driver = dict(options.get("connect_args") or {})
        # Hidden is what they are: whoever says so too has moved a line from another program.
        if engine.get("hide_parameters") is True:
            del engine["hide_parameters"]
        _refuse(engine, OF_ENGINE, name)
        _refuse(driver, OF_DRIVER, f"{name}['connect_args']")
        _refuse_at_login(driver, f"{name}['connect_args']")
        for where in (engine, engine.get("execution_options") or {}):
            if str(where.get("isolation_level", "")).upper() == "AUTOCOMMIT":
                raise ConfigurationError(f"{name} cannot have the isolation level AUTOCOMMIT: {_TRANSACTION}")
        return cls(engine=engine, driver=driver)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """
    What a program gives for both engines.

    Attributes:
        sync: For `engine`.

        on_loop: For `async_engine`.
    """

    sync: EngineArguments = field(default_factory=EngineArguments)
    on_loop: EngineArguments = field(default_factory=EngineArguments)

    @classmethod
    def of(cls, options: Mapping[str, Any], on_loop: Mapping[str, Any] | None) -> "Given":
        """
        Look through both; see `EngineArguments.of`.

        Args:
            options: For ``create_engine``.

            on_loop: For ``create_async_engine``; None for the same, without what is another driver's.
        """
        sync = EngineArguments.of(options, "engine_options")
        if on_loop is None:
            return cls(sync=sync, on_loop=EngineArguments(engine=sync.engine))
        return cls(sync=sync, on_loop=EngineArguments.of(on_loop, "async_engine_options"))


NOTHING_GIVEN: Final = Given()


def _refuse_unless_named(options: Mapping[str, Any], name: str) -> None:
    """Raise ConfigurationError where *options*, or what is in them by names, is no dictionary."""
    _refuse_other_than_names(options, name)
    inner = {key: options.get(key) for key in ("connect_args", "execution_options")}
    for key, given in inner.items():
        _refuse_other_than_names(given or {}, f"{name}[{key!r}]")
    settings = (inner["connect_args"] or {}).get("server_settings")
    _refuse_other_than_names(settings or {}, f"{name}['connect_args']['server_settings']")


def _refuse_other_than_names(given: object, name: str) -> None:
    if not (isinstance(given, Mapping) and all(isinstance(key, str) for key in given)):
        raise ConfigurationError(f"{name} is to be a dictionary of values by their names")


def _refuse(given: Mapping[str, Any], table: Mapping[str, str], name: str) -> None:
    for key in given:
        if key in table:
            raise ConfigurationError(f"{name} cannot have {key!r}: {table[key]}")


def _refuse_at_login(given: Mapping[str, Any], name: str) -> None:
    """Refuse what *given* would tell the server itself at login, past the driver's own argument for it."""
    settings = {key.lower(): value for key, value in (given.get("server_settings") or {}).items()}
    _refuse(settings, OF_DRIVER, f"{name}['server_settings']")
    for options in (given.get("options"), settings.get("options")):
        _refuse(on_command_line(str(options or "")), OF_DRIVER, f"{name}['options']")
