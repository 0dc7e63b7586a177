"""What a manager knows about itself, in microseconds: it asks no server.  Nothing in it is secret."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.pool import Pool, QueuePool

from ledger_db.credentials.provider import ProviderStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolHealth:
    """
    The counters of one engine's pool.

    Attributes:
        capacity: The most connections that it ever has.

        checked_out: Connections in use.

        idle: Connections open and free.

        saturated: Whether the next request has to wait.
    """

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

        ok: False if the secret cannot be read and only a person can mend it.

        credentials: Where they come from, which version, how fresh, what is wrong.

        pools: One for each engine that was used; Redis has none here.
    """

    name: str
    ok: bool
    credentials: ProviderStatus
    pools: tuple[PoolHealth, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """
    A snapshot of the whole manager.

    Attributes:
        ok: Whether the manager is open and all is well with each server.

        servers: One entry for each configured server.
    """

    ok: bool
    servers: tuple[ServerHealth, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON."""
        return asdict(self)


def pool_health(pool: Pool, capacity: int) -> PoolHealth | None:
    """Return the counters of *pool*; None for a kind that has none."""
    if not isinstance(pool, QueuePool):
        return None
    checked_out = pool.checkedout()
    return PoolHealth(
        capacity=capacity,
        checked_out=checked_out,
        idle=pool.checkedin(),
        saturated=checked_out >= capacity,
    )


def server_health(name: str, status: ProviderStatus, pools: tuple[PoolHealth | None, ...]) -> ServerHealth:
    """Put together what is known about one server."""
    return ServerHealth(
        name=name,
        ok=status.version is not None and not status.permanent,
        credentials=status,
        pools=tuple(pool for pool in pools if pool is not None),
    )
