"""
What becomes of each connection of an engine, in the log; only for those who ask for it.

At INFO, although a request passes here: whoever sets LEDGER_DB_LOG_POOL_EVENTS wants to see them, and who
does not has not one listener more.
"""

from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.pool import QueuePool

from ledger_db.connections.stamping import stamp_of
from ledger_db.event_log import EventLog

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.pool import ConnectionPoolEntry

log: EventLog = EventLog(__name__)


def log_pool_events(engine: "Engine") -> None:
    """
    Log when a connection of *engine* is opened, borrowed, returned, invalidated or closed.

    Each line has the driver, the version of the credentials that the connection logged in with, and the
    counters of the pool at that moment: a connection that is just being returned still counts as borrowed.
    It has no address: logs of requests are read by more people than those of operations.

    Args:
        engine: The synchronous core, for an ``AsyncEngine``.  Its own listeners come first: what is logged is
            what they left.
    """

    def note(name: str, record: "ConnectionPoolEntry", **fields: object) -> None:
        driver, version = engine.dialect.driver, stamp_of(record)
        log.info(name, driver=driver, version=version, **_counters(engine), **fields)

    @event.listens_for(engine, "connect")
    def opened(dbapi: object, record: "ConnectionPoolEntry") -> None:
        note("pool.opened", record)

    @event.listens_for(engine, "checkout")
    def borrowed(dbapi: object, record: "ConnectionPoolEntry", fairy: object) -> None:
        note("pool.borrowed", record)

    @event.listens_for(engine, "checkin")
    def returned(dbapi: object, record: "ConnectionPoolEntry") -> None:
        note("pool.returned", record)

    @event.listens_for(engine, "invalidate")
    @event.listens_for(engine, "soft_invalidate")
    def invalidated(dbapi: object, record: "ConnectionPoolEntry", error: BaseException | None) -> None:
        # The class only: a driver's message may have the server's address in it.
        note("pool.invalidated", record, cause=None if error is None else type(error).__name__)

    @event.listens_for(engine, "close")
    def closed(dbapi: object, record: "ConnectionPoolEntry") -> None:
        note("pool.closed", record)


def _counters(engine: "Engine") -> dict[str, Any]:
    pool = engine.pool
    # The other kinds keep nothing, and count nothing.
    if not isinstance(pool, QueuePool):
        return {}
    return {"checked_out": pool.checkedout(), "idle": pool.checkedin(), "size": pool.size()}
