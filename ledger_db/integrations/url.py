"""
What does a URL say to us, what to the driver, and what may it not say?

Ours are the words of the settings, without their prefix.  Host, port and database go before the secret's, as
the settings of those names do.  All else is the driver's, or SQLAlchemy's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, get_args

from sqlalchemy import URL

from ledger_db.connections.engine_arguments import NAMES_OF_LOGIN, NAMES_OF_TLS, OF_DRIVER
from ledger_db.connections.engines import AsyncDriver, SyncDriver
from ledger_db.errors import ConfigurationError
from ledger_db.event_log import EventLog
from ledger_db.settings import Settings

log: EventLog = EventLog(__name__)

NAME: Final = "ledger_db"
DRIVERS: Final = tuple(dict.fromkeys((*get_args(SyncDriver), *get_args(AsyncDriver))))

_WORDS: Final[Mapping[str, str]] = {
    **{name: f"database_{name}" for name in ("secret_id", "iam_auth", "target")},
    **{
        name: name
        for name in (
            *("refresh_interval_seconds", "renewal_spread_seconds", "login_patience_seconds"),
            *("startup_timeout_seconds", "connect_timeout_seconds", "silence_timeout_seconds", "pooler"),
        )
    },
}
_PLACES: Final[Mapping[str, str]] = {
    "host": "database_host",
    "port": "database_port",
    "user": "database_user",
    **dict.fromkeys(("dbname", "database"), "database_name"),
}
# Who logs in, and where, past the secret.
_NOT_THEIRS: Final = NAMES_OF_LOGIN - _PLACES.keys()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    What a program has asked for, by its URL and its arguments.

    Attributes:
        url: Whole, so that an engine that is made of a copy logs in as this one does.

        settings: As the URL says, and the environment where it says nothing.

        plain: For the driver: without what is ours, and without who logs in where.

        driver: What the driver is given by the program itself, of the URL and of ``connect_args``.
    """

    url: URL
    settings: Settings
    plain: URL
    driver: Mapping[str, Any]

    @property
    def has_own_tls(self) -> bool:
        """Whether the program says itself how connections are protected."""
        return not NAMES_OF_TLS.isdisjoint(self.driver)


def asked_by(url: URL, connect_args: Mapping[str, Any]) -> Asked:
    """
    Look through *url*, which names this plugin, and *connect_args*.

    Raises:
        ConfigurationError: Something in them cannot be followed; says what to do instead.
    """
    _refuse_other_drivers(url)
    if url.password is not None:
        raise ConfigurationError(f"{_HERE}: take the password out of the URL; the secret has it")
    given = {**_without_plugin(url.query), **connect_args}
    _refuse(given)
    values = dict(_values(url, given))
    own = given.keys() - _WORDS.keys() - _PLACES.keys()
    return Asked(
        url=url if NAME in _plugins(url) else url.update_query_pairs([("plugin", NAME)], append=True),
        settings=_settings(values),
        # Not URL.set(), which takes None for "leave as it is".
        plain=URL.create(
            url.drivername, query={name: value for name, value in url.query.items() if name in own}
        ),
        driver={name: given[name] for name in own},
    )


_HERE: Final = f"plugin={NAME}"


def _refuse_other_drivers(url: URL) -> None:
    if url.get_backend_name() != "postgresql":
        raise ConfigurationError(f"{_HERE} serves postgresql, not {url.get_backend_name()}")
    name = url.get_driver_name()
    if name not in DRIVERS:
        raise ConfigurationError(
            f"{_HERE} serves the drivers {', '.join(DRIVERS)}, not {name}; write postgresql+psycopg2://"
        )


def _refuse(given: Mapping[str, Any]) -> None:
    for name in sorted(given.keys() & _NOT_THEIRS):
        raise ConfigurationError(f"{_HERE}: take {name!r} out; {OF_DRIVER[name]}")
    for name in given.keys() & (_WORDS.keys() | _PLACES.keys()):
        if not isinstance(given[name], str | int | float):
            raise ConfigurationError(f"{_HERE}: {name} is given twice, or is no text; say it once")
    for name in sorted(given.keys() - _WORDS.keys() - OF_DRIVER.keys()):
        # A driver says so too, at its first login and in its own words.
        meant = get_close_matches(name.lower(), _WORDS, n=1, cutoff=0.8)
        meant = meant or [word for word in _WORDS if f"database_{word}" == name]
        if meant:
            raise ConfigurationError(f"{_HERE} knows no {name!r}; was {meant[0]} meant?")


def _values(url: URL, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    parts = {"host": url.host, "port": url.port, "database": url.database, "user": url.username}
    for name, value in (*parts.items(), *given.items()):
        setting = _PLACES.get(name) or _WORDS.get(name)
        if setting is not None and value not in (None, ""):
            yield setting, value


def _settings(values: dict[str, Any]) -> Settings:
    # What the URL says goes before the environment, also where the two exclude each other.
    if "database_secret_id" in values:
        values = {"database_iam_auth": False, "database_password": None, **values}
        if "database_user" in values:
            log.warning(
                "plugin.user_ignored",
                cause="the secret says who logs in; take the user out of the URL",
                source=values["database_secret_id"],
            )
    elif values.get("database_iam_auth"):
        values = {"database_secret_id": None, "database_password": None, **values}
    settings = Settings(**values)
    if settings.database_url is not None:
        raise ConfigurationError(f"{_HERE} serves PostgreSQL; unset LEDGER_DB_DATABASE_URL")
    # A program's engine goes where its URL says, to a replica too, unless somebody wants a primary.
    if "database_target" not in settings.model_fields_set and "pooler" not in settings.model_fields_set:
        settings = settings.model_copy(update={"database_target": "any"})
    return settings


def _plugins(url: URL) -> tuple[str, ...]:
    named = url.query.get("plugin", ())
    return (named,) if isinstance(named, str) else tuple(named)


def _without_plugin(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if name not in {"plugin", "plugins"}}
