"""
How does what listens to one engine hear what happens on another?

By listeners of the other that look, each time, who listens to the first: so those that come later are heard
too, and those that leave are not.  Who listens to all engines hears this one as it is.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event

_OF_AN_ENGINE = (
    *("after_execute", "after_cursor_execute", "engine_connect", "engine_disposed"),
    *("begin", "commit", "rollback", "savepoint", "rollback_savepoint", "release_savepoint"),
    *("begin_twophase", "prepare_twophase", "rollback_twophase", "commit_twophase"),
    *("set_connection_execution_options", "set_engine_execution_options"),
)
# These may change a statement.  How many arguments come before what they return, and how much that is.
_CHANGING = {"before_execute": (1, 3), "before_cursor_execute": (2, 2)}
# A new connection is the first one's, and was announced there.
_OF_A_POOL = ("checkout", "reset", "checkin")


def pass_on(engine: Engine, *, to: Engine) -> None:
    """
    Tell what listens to one engine of what happens on another.  The errors of both are their dialect's.

    Args:
        engine: Where it happens.

        to: Whose listeners are told.
    """
    for name in _OF_AN_ENGINE:
        event.listen(engine, name, _telling(name, lambda: to))
    for name, (before, many) in _CHANGING.items():
        event.listen(engine, name, _asking(name, to, before, many), retval=True)
    for name in _OF_A_POOL:
        # Of the pool that there is then: who disposes of an engine gives it another.
        event.listen(engine, name, _telling(name, lambda: to.pool, but="ledger_db."))


def _telling(name: str, target: Callable[[], Any], *, but: str | None = None) -> Callable[..., None]:
    def tell(*given: Any) -> None:
        for listener in _listeners(target(), name):
            # A pool's of our own look after credentials, and would close what is shared.
            if but is None or not getattr(listener, "__module__", "").startswith(but):
                listener(*given)

    return tell


def _asking(name: str, target: Engine, before: int, many: int) -> Callable[..., Any]:
    def ask(*given: Any) -> Any:
        first, asked, rest = given[:before], given[before : before + many], given[before + many :]
        for listener in _listeners(target, name):
            asked = listener(*first, *asked, *rest)
        return asked

    return ask


def _listeners(target: Any, name: str) -> list[Callable[..., Any]]:
    # Its own, without those of its class.
    return list(getattr(target.dispatch, name).listeners)
