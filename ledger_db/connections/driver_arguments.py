"""
What is each driver told at every connection, beside who logs in and how that is protected?

Server settings go with the login, so they are what the server goes back to by itself: no statement sets them,
and none of a borrower's can lose them for the next.
"""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ledger_db.answers.server_settings import on_command_line
from ledger_db.connections.silence import libpq_silence
from ledger_db.errors import ConfigurationError

if TYPE_CHECKING:
    from ledger_db.connections.engine_arguments import EngineArguments
    from ledger_db.connections.engines import EngineOptions

# What keeps a driver from preparing statements, which would stay on one of the pooler's connections.  Nothing
# for psycopg2, which prepares none.
_UNPREPARED: Final[Mapping[str, dict[str, Any]]] = {
    "psycopg": {"prepare_threshold": None},
    "asyncpg": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        # SQLAlchemy prepares all the same.  Without a name nothing is left behind: names that nobody else has
        # would be closed on another connection than on the one that keeps them.
        "prepared_statement_name_func": str,
    },
}


def driver_arguments(driver: str, options: "EngineOptions", given: "EngineArguments") -> dict[str, Any]:
    """
    Return ``connect_args`` for *driver*, a synchronous psycopg included.

    Args:
        driver: Its name.

        options: How engines are made.

        given: What the program gives itself.

    Raises:
        ConfigurationError: What is given does not hold behind the pooler.
    """
    if driver == "asyncpg":
        ours = _asyncpg_arguments(options, given.driver)
    else:
        ours = _libpq_arguments(options, given.driver)
    if options.pooler == "transaction":
        unprepared = _UNPREPARED.get(driver, {})
        for name in unprepared.keys() & given.driver.keys():
            raise ConfigurationError(
                f"the connect argument {name!r} does not hold with LEDGER_DB_POOLER=transaction: what is "
                "prepared stays on another connection of the pooler; leave it out"
            )
        ours |= unprepared
    return {**given.driver, **ours}


def on_loop_arguments(driver: str, options: "EngineOptions", given: "EngineArguments") -> dict[str, Any]:
    """Same as `driver_arguments`, for an event loop."""
    arguments = driver_arguments(driver, options, given)
    if driver == "psycopg":
        from ledger_db.connections.cancelled import Connection  # noqa: PLC0415 - psycopg is an extra

        arguments["async_creator_fn"] = Connection.connect
    return arguments


def told_at_login(cparams: Mapping[str, Any]) -> dict[str, str]:
    """Return the server settings in *cparams*, which a driver of either kind is called with."""
    settings = {str(name): str(value) for name, value in (cparams.get("server_settings") or {}).items()}
    if "client_encoding" in cparams:
        settings["client_encoding"] = str(cparams["client_encoding"])
    # Without the argument libpq looks at the variable, which asyncpg never does.
    options = cparams.get("options", os.environ.get("PGOPTIONS", ""))
    return {**on_command_line(str(options)), **settings}


def _libpq_arguments(options: "EngineOptions", given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "application_name": options.application_name,
        "target_session_attrs": options.target,
        # A PGHOSTADDR of the environment would go before the secret's host, and be offered its password.
        "hostaddr": "",
        # libpq counts whole seconds, and takes 0 for "for ever".
        "connect_timeout": max(1, round(options.connect_timeout_seconds)),
        **libpq_silence(options.silence_timeout_seconds),
        **_command_line(options.server_settings, str(given.get("options", ""))),
    }


def _command_line(settings: Mapping[str, str], more: str) -> dict[str, str]:
    """Return libpq's ``options`` for *settings*; what is last on a command line goes before the rest."""
    if not settings:
        return {"options": more} if more else {}
    # With options of our own libpq would not look at the variable, which it does without them.
    inherited = "" if more else os.environ.get("PGOPTIONS", "")
    ours = (f"-c {name}={_escaped(value)}" for name, value in settings.items())
    return {"options": " ".join(part for part in (inherited, *ours, more) if part)}


def _escaped(value: str) -> str:
    return re.sub(r"([\\\s])", r"\\\1", value)


def _asyncpg_arguments(options: "EngineOptions", given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "timeout": options.connect_timeout_seconds,
        "target_session_attrs": options.target,
        "server_settings": {
            "application_name": options.application_name,
            **options.server_settings,
            **given.get("server_settings", {}),
        },
    }
