"""What a manager knows about itself, in microseconds: it asks no server.  Nothing in it is secret."""

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from ledger_db.credentials.provider import ProviderStatus
from ledger_db.transactions.tally import TransactionCounters

if TYPE_CHECKING:
    from ledger_db.connections.server import Database, Server


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolHealth:
    """
    The counters of one engine's pool.

    Attributes:
        driver: The driver's name, which tells the engines apart.

        capacity: The most connections that it ever has.

        checked_out: Connections in use.

        idle: Connections open and free.

        saturated: Whether the next request has to wait.
    """

    driver: str
    capacity: int
    checked_out: int
    idle: int
    saturated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHealth:
    """
    One server: its credentials and its pools.

    Attributes:
        name: ``PostgreSQL`` or ``Redis``.

        ok: False if the secret cannot be read and only a person can mend it, or the server takes no writes.

        credentials: Where they come from, which version, how fresh, what is wrong.

        pools: One for each engine that was used; Redis has none here.

        takes_writes: False if the last login has found a standby, and something better was asked for.
    """

    name: str
    ok: bool
    credentials: ProviderStatus
    pools: tuple[PoolHealth, ...] = ()
    takes_writes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """
    A snapshot of the whole manager.

    Attributes:
        ok: Whether the manager is open and all is well with each server.

        state: ``not opened yet``, ``opening``, ``open``, ``closing`` or ``closed``.

        servers: One entry for each configured server.

        transactions: What became of those that `run` was given.
    """

    __module__ = "ledger_db"

    ok: bool
    state: str
    servers: tuple[ServerHealth, ...]
    transactions: TransactionCounters = field(default_factory=TransactionCounters)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON."""
        return asdict(self)


def report_of(
    state: str, database: "Database | None", redis: "Server | None", transactions: TransactionCounters
) -> HealthReport:
    """Put together what is known of a manager in *state* and of each server that there is."""
    of_database = () if database is None else (_database_health(database),)
    of_redis = () if redis is None else (_server_health(redis),)
    servers = of_database + of_redis
    ok = state == "open" and all(server.ok for server in servers)
    return HealthReport(ok=ok, state=state, servers=servers, transactions=transactions)


def _database_health(database: "Database") -> ServerHealth:
    known, takes_writes = _server_health(database), database.takes_writes
    return replace(known, ok=known.ok and takes_writes, takes_writes=takes_writes, pools=_pools(database))


def _server_health(server: "Server") -> ServerHealth:
    status = server.provider.status
    ok = status.version is not None and not status.permanent
    return ServerHealth(name=server.name, ok=ok, credentials=status)


def _pools(database: "Database") -> tuple[PoolHealth, ...]:
    known = (_pool_health(engine, database.options.capacity) for engine in database.made)
    return tuple(pool for pool in known if pool is not None)


def _pool_health(engine: Engine, capacity: int) -> PoolHealth | None:
    """Return the counters of the pool of *engine*; None for a kind that has none."""
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return None
    checked_out = pool.checkedout()
    return PoolHealth(
        driver=engine.dialect.driver,
        capacity=capacity,
        checked_out=checked_out,
        idle=pool.checkedin(),
        saturated=checked_out >= capacity,
    )
