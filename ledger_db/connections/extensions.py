"""
Does the refusal of an extension say what to do, on a server of this machine?

Anywhere else it is nobody's sandbox, and the server's own words are right: whoever runs it installs it.
"""

from ipaddress import ip_address

from sqlalchemy import Engine, ExceptionContext, event

from ledger_db.answers.extensions import advise_on_extension
from ledger_db.connections.commits import info_of
from ledger_db.connections.hangup import LINE


def advise_on_extensions(engine: Engine) -> None:
    """
    Let *engine*, which is PostgreSQL's, say what to do where an extension is refused.

    Args:
        engine: The synchronous core, for an ``AsyncEngine``.
    """
    event.listen(engine, "handle_error", _look_at_error)


def _look_at_error(context: ExceptionContext) -> None:
    line = (info_of(context.connection) or {}).get(LINE)
    if line is not None and line.address is not None and ip_address(line.address).is_loopback:
        raised = context.sqlalchemy_exception or context.original_exception
        advise_on_extension(raised, context.statement)
