"""
Ties the life of a pooled connection to the credentials that opened it.

Born:      the stamp of the credentials that logged in is written on the connection's record.
Borrowed:  an idle connection is replaced before it is handed out if it is stale, if its server has hung up,
           or if it is at an address that the name of the host has left.
Returned:  a stale connection, or one of an earlier pool, is closed instead of kept.

It is stale from a moment of its own on, once its stamp is no longer the current one; see `Staleness`.

Nothing is ever closed under somebody who is using it, and the Engine stays the same object for ever.  A
rotation leaves it its pool: swapping pools leaks sessions.  SQLAlchemy runs these listeners as synchronous
code for an ``AsyncEngine`` too, so there is only this one implementation.
"""

import sys
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import SingletonThreadPool, StaticPool
from sqlalchemy.util import await_only

from ledger_db.answers.login_errors import find
from ledger_db.answers.reason import Reason
from ledger_db.answers.server_settings import SettingRefused, refused_of, what_to_mend
from ledger_db.connections.driver_arguments import told_at_login
from ledger_db.connections.hangup import LINE, Line
from ledger_db.connections.listeners import ask_those_behind, refuse_foreign
from ledger_db.connections.login import Logins
from ledger_db.connections.login_steps import Look, Pause, async_pause
from ledger_db.credentials.model import Credentials
from ledger_db.redaction import describe, forget_frames

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
    from sqlalchemy.pool import ConnectionPoolEntry, Pool

    from ledger_db.credentials.provider import CredentialProvider

_STAMP = "ledger_db.stamp"
_SHARE = "ledger_db.share"
_UNUSED = "ledger_db.unused"
_POOL = "ledger_db.pool"


class _Replaced(DisconnectionError):
    """What SQLAlchemy is told of a connection that we replace ourselves."""


SHARED_POOLS: Final = (StaticPool, SingletonThreadPool)
"""They lend a connection to several at once: what is replaced for one would be closed under another."""


def stamp_connections(
    engine: "Engine",
    logins: Logins,
    security_for: Callable[[str], dict[str, Any]],
    *,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    own: Collection[str] = (),
) -> None:
    """
    Open the connections of *engine* through *logins*; for an ``AsyncEngine`` pass its ``sync_engine``.

    Args:
        engine: Its URL need not name a user, a password or an address.

        logins: Decides what to log in with, and what to do when that is refused.

        security_for: Returns the driver's TLS arguments for a host.  Asked at each login: the host is the
            credentials' own, and a secret may lead to another one tomorrow.

        around: Entered for each login, before it is known what to log in with.

        own: Names of what the program itself has the driver given.
    """
    provider, addresses = logins.provider, logins.addresses
    _note_losses(engine, logins)
    refuse_foreign(engine)

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: "Dialect", record: "ConnectionPoolEntry", cargs: list[Any], cparams: dict[str, Any]
    ) -> "DBAPIConnection":
        used: Credentials | None = None
        pool, arguments = engine.pool, dict(cparams)
        ask_those_behind(connect, dialect, record, cargs, arguments, own=own)

        def log_in(credentials: Credentials) -> "DBAPIConnection":
            nonlocal used
            used = credentials
            return _open(dialect, cargs, {**arguments, **security_for(credentials.host)}, credentials)

        with around():
            connection = _run(logins, log_in, dialect)
        # Write down what logged in, not what is current by now: a rotation may have landed meanwhile.
        record.info[_UNUSED] = cast("Credentials", used).stamp
        record.info[_SHARE] = provider.draw_share()
        record.info[_POOL] = pool
        line = record.info[LINE] = Line(getattr(connection, "driver_connection", connection))
        addresses.note_login(line.address)
        return connection

    if isinstance(engine.pool, SHARED_POOLS):
        return

    # Each request passes through the next two, so what usually happens is one comparison and one look.
    @event.listens_for(engine, "checkout")
    def replace_if_stale(dbapi: object, record: "ConnectionPoolEntry", fairy: object) -> None:
        info = record.info
        if info.get(_STAMP) != provider.stamp or addresses.left:
            if _is_new(record):
                return
            _replace_unless_good(record, provider, addresses.left)
        if info[LINE].may_have_hung_up():
            _replace_unless_answering(engine.dialect, dbapi)

    @event.listens_for(engine, "checkin")
    def close_if_stale(dbapi: object | None, record: "ConnectionPoolEntry") -> None:
        is_current = record.info.get(_STAMP) == provider.stamp and record.info.get(_POOL) is engine.pool
        if dbapi is not None and (not is_current or addresses.left):
            _close_unless_good(record, provider, addresses.left, pool=engine.pool)


def connect_with(
    engine: "Engine", credentials: Credentials, security_for: Callable[[str], dict[str, Any]]
) -> None:
    """
    Let *engine* log in with *credentials*, whatever is current, and raise a refusal at once.

    Args:
        engine: As of `stamp_connections`; a synchronous one.

        credentials: On trial.

        security_for: As of `stamp_connections`.
    """

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: "Dialect", record: "ConnectionPoolEntry", cargs: list[Any], cparams: dict[str, Any]
    ) -> "DBAPIConnection":
        return _open(dialect, cargs, {**cparams, **security_for(credentials.host)}, credentials)


def stamp_of(record: "ConnectionPoolEntry") -> str | None:
    """Return the stamp that a connection logged in with; None where there are no logins (SQLite)."""
    stamp = record.info.get(_STAMP) or record.info.get(_UNUSED)
    return None if stamp is None else str(stamp)


def _note_losses(engine: "Engine", logins: Logins) -> None:
    @event.listens_for(engine, "invalidate")
    def note_loss(dbapi: object, record: "ConnectionPoolEntry", error: BaseException | None) -> None:
        # Without an error somebody of ours has closed it.
        if error is not None and not isinstance(error, _Replaced):
            logins.note_loss()


def _is_new(record: "ConnectionPoolEntry") -> bool:
    # One that was opened for this very checkout is good even if a rotation has landed since: it did log in.
    # SQLAlchemy allows two attempts a checkout; a storm of rotations would use up both.
    unused = record.info.pop(_UNUSED, None)
    if unused is not None:
        record.info[_STAMP] = unused
    return unused is not None


def _replace_unless_good(
    record: "ConnectionPoolEntry", provider: "CredentialProvider", left: frozenset[str]
) -> None:
    if provider.is_stale(record.info[_STAMP], record.info[_SHARE]):
        raise _Replaced("opened with credentials that have since rotated")
    if record.info[LINE].address in left:
        raise _Replaced("opened at an address that its name has left since")


def _close_unless_good(
    record: "ConnectionPoolEntry", provider: "CredentialProvider", left: frozenset[str], *, pool: "Pool"
) -> None:
    # The engine's pool is another one since the manager was closed, or the loop ended: where this one is
    # returned to, nobody would ever close it.
    is_left_behind = record.info.get(_POOL) is not pool
    is_stale = provider.is_stale(record.info.get(_STAMP, ""), record.info.get(_SHARE, 0.0))
    if is_left_behind or is_stale or record.info[LINE].address in left:
        record.invalidate()


def _replace_unless_answering(dialect: "Dialect", dbapi: Any) -> None:
    # What is there to read may be a notice or a ticket of TLS.  The answer is read after it, so that the line
    # is quiet again.
    try:
        dialect.do_ping(dbapi)
    except Exception as error:
        raise DisconnectionError("the server has ended this connection") from error


def _run(logins: Logins, log_in: Any, dialect: "Dialect") -> "DBAPIConnection":
    if not dialect.is_async:
        return cast("DBAPIConnection", logins.log_in(log_in))

    # These run inside SQLAlchemy's greenlet, on the loop's thread, and let the loop go on meanwhile.
    def look(step: Look) -> Credentials | None:
        return await_only(logins.async_look(step))

    def pause(step: Pause) -> None:
        await_only(async_pause(step))

    return cast("DBAPIConnection", logins.run(log_in, look=look, pause=pause))


def _open(
    dialect: "Dialect", cargs: list[Any], cparams: dict[str, Any], credentials: Credentials
) -> "DBAPIConnection":
    is_asyncpg = dialect.driver == "asyncpg"
    handled_already = sys.exception()
    try:
        return dialect.connect(
            *cargs,
            **cparams,
            host=credentials.host,
            port=credentials.port,
            user=credentials.username,
            # asyncpg takes nothing but str itself; libpq's drivers take the one that does not show itself.
            password=str(credentials.password) if is_asyncpg else credentials.password,
            **{"database" if is_asyncpg else "dbname": credentials.database},
        )
    # Whoever is cancelled or interrupted here leaves the same frames.
    except BaseException as error:
        forget_frames(error, but=handled_already)
        refused = _setting_refused(error, cparams, credentials)
        if refused is None and not _is_asyncpg_s_own(error, dialect):
            raise
        own = error
    # Out here, where nothing is being handled: what was handled before must not become its context.
    if refused is not None:
        raise refused from own
    raise dialect.loaded_dbapi.OperationalError(describe(own)) from own


def _setting_refused(
    error: BaseException, cparams: dict[str, Any], credentials: Credentials
) -> SettingRefused | None:
    """Return what to raise if it is a server setting, and not the login, that the server refuses."""
    who = {credentials.username, credentials.database, credentials.host}
    name = refused_of(told_at_login(cparams), str(error), but=who)
    if name is None:
        return None
    return SettingRefused(
        f"PostgreSQL at {credentials.host}:{credentials.port} refuses the server setting {name}: "
        f"{describe(error)}; {what_to_mend(name)}"
    )


def _is_asyncpg_s_own(error: BaseException, dialect: "Dialect") -> bool:
    # It alone raises plain OSErrors, which nobody could tell from those of another network client, and
    # SQLAlchemy 2.0 lets pass what it makes of a standby.
    if not isinstance(error, Exception) or isinstance(error, dialect.loaded_dbapi.Error):
        return False
    return isinstance(error, OSError) or find(error).reason is Reason.NOT_PRIMARY
