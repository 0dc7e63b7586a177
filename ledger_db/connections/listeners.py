"""
What may listeners of the program's own do where a connection is opened, and who says so if one fails?

They may change what the driver is given, and do what they like with a connection that is new.  They may not
open one themselves, nor say who logs in: what they opened would never be replaced after a rotation.
"""

from collections.abc import Callable, Collection
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from ledger_db.connections.engine_arguments import NAMES_OF_SILENCE, OF_DRIVER
from ledger_db.connections.hangup import LINE
from ledger_db.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import Dialect
    from sqlalchemy.pool import ConnectionPoolEntry

Listener = Callable[..., Any]

# What calls a listener; what it calls besides is SQLAlchemy's or ours.
_CALLERS: Final = ("sqlalchemy.event.", "sqlalchemy.engine.create", __name__)
_OURS: Final = ("sqlalchemy.", "ledger_db.")
# In the arguments already, as engines are made with them; a listener may have other values.
_GIVEN_BEFORE: Final = frozenset(
    {
        *("application_name", "target_session_attrs", "timeout", "connect_timeout"),
        *("hostaddr", "async_creator_fn", "tcp_user_timeout", *NAMES_OF_SILENCE),
    }
)


def ask_those_behind(
    ours: Listener,
    dialect: "Dialect",
    record: "ConnectionPoolEntry",
    cargs: list[Any],
    cparams: dict[str, Any],
    *,
    own: Collection[str] = (),
) -> None:
    """
    Call the listeners to ``do_connect`` that SQLAlchemy would not: it stops at ours, which connects.

    Args:
        ours: Those before it were called already.

        dialect: As the others, what they are called with.

        record: As above.

        cargs: As above.

        cparams: As above, without those that say who logs in; may be changed.

        own: Names of what was in there before, by the program itself.

    Raises:
        ConfigurationError: One does what it may not.
    """
    listeners = iter(dialect.dispatch.do_connect)
    while next(listeners, ours) is not ours:
        pass
    for listener in listeners:
        if listener(dialect, record, cargs, cparams) is not None:
            raise ConfigurationError(f"the do_connect listener {_name(listener)} {_CONNECTS}")
    for name in sorted((OF_DRIVER.keys() - _GIVEN_BEFORE - set(own)) & cparams.keys()):
        raise ConfigurationError(f"a do_connect listener cannot give {name!r}: {OF_DRIVER[name]}")


def refuse_foreign(engine: "Engine") -> None:
    """Refuse a connection that a listener before ours has opened, which nothing here knows."""

    def refuse(dbapi: object, record: "ConnectionPoolEntry") -> None:
        if LINE not in record.info:
            raise ConfigurationError(f"a do_connect listener {_CONNECTS}")

    event.listen(engine, "connect", refuse, insert=True)


def failed_in(error: BaseException) -> str | None:
    """Return the name of the program's own listener that has raised *error*; None if none has."""
    caller, step = "", error.__traceback__
    while step is not None:
        module = _module_of(step)
        if caller.startswith(_CALLERS) and not module.startswith(_OURS):
            return f"{module}.{step.tb_frame.f_code.co_qualname}"
        caller, step = module, step.tb_next
    return None


_CONNECTS: Final = (
    "returns a connection of its own, which no rotation would replace; let it change cparams, and return "
    "nothing"
)


def _module_of(step: TracebackType) -> str:
    return str(step.tb_frame.f_globals.get("__name__", ""))


def _name(listener: Listener) -> str:
    named = getattr(listener, "__qualname__", type(listener).__qualname__)
    return f"{getattr(listener, '__module__', '')}.{named}"
