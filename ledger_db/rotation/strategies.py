"""
Which strategy is a secret for?

It says so itself in the field ``strategy``; else the function's configuration does; else its engine.  Modules
are imported on demand: a function for PostgreSQL does not wait for redis to be imported.
"""

from collections.abc import Callable
from typing import Final

from ledger_db.answers.secret import ENGINES, Secret, Server
from ledger_db.rotation.protocol import Rotator, Tools


def _postgres_single(tools: Tools) -> Rotator:
    from ledger_db.rotation.postgres import PostgresSingleRotator  # noqa: PLC0415 - on demand

    return PostgresSingleRotator(tools)


def _postgres_alternating(tools: Tools) -> Rotator:
    from ledger_db.rotation.postgres import PostgresAlternatingRotator  # noqa: PLC0415 - on demand

    return PostgresAlternatingRotator(tools)


def _postgres_clone(tools: Tools) -> Rotator:
    from ledger_db.rotation.postgres import PostgresAlternatingRotator  # noqa: PLC0415 - on demand

    return PostgresAlternatingRotator(tools, clone=True)


def _redis_acl(tools: Tools) -> Rotator:
    from ledger_db.rotation.redis import RedisAclRotator  # noqa: PLC0415 - on demand

    return RedisAclRotator(tools)


def _elasticache_user(tools: Tools) -> Rotator:
    from ledger_db.rotation.elasticache import ElastiCacheUserRotator  # noqa: PLC0415 - on demand

    return ElastiCacheUserRotator(tools)


def _elasticache_auth_token(tools: Tools) -> Rotator:
    from ledger_db.rotation.elasticache import ElastiCacheAuthTokenRotator  # noqa: PLC0415 - on demand

    return ElastiCacheAuthTokenRotator(tools)


STRATEGIES: Final[dict[str, Callable[[Tools], Rotator]]] = {
    "postgres-single": _postgres_single,
    "postgres-alternating": _postgres_alternating,
    "postgres-alternating-clone": _postgres_clone,
    "redis-acl": _redis_acl,
    "elasticache-user": _elasticache_user,
    "elasticache-auth-token": _elasticache_auth_token,
}


def server_of(strategy: str) -> Server:
    """Return the kind of server whose passwords *strategy* changes."""
    return "PostgreSQL" if strategy.startswith("postgres-") else "Redis"


def strategy_of(secret: Secret, *, configured: str | None = None) -> str:
    """
    Return the name of the strategy for *secret*.

    Args:
        secret: What AWSCURRENT holds.

        configured: What to use if the secret does not say.

    Raises:
        SecretProblem: There is no such strategy, or no engine to choose one by.
    """
    chosen = secret.fields.get("strategy") or configured or _usual(secret)
    if chosen not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise secret.problem("strategy", f"one of {known}")
    return str(chosen)


def _usual(secret: Secret) -> str:
    if secret.engine in ENGINES["PostgreSQL"]:
        return "postgres-alternating"
    if secret.engine in ENGINES["Redis"]:
        # AWS's own name for the user in secrets of ElastiCache.
        return "elasticache-user" if "user_arn" in secret.fields else "redis-acl"
    known = ", ".join(sorted(ENGINES["PostgreSQL"] | ENGINES["Redis"]))
    raise secret.problem("engine", f"one of {known}")
