"""
Which strategy is a secret for?

It says so itself in the field ``strategy``; else the function's configuration does; else its shape:

    PostgreSQL, no masterarn           postgres-single
    PostgreSQL, masterarn, users       postgres-alternating
    PostgreSQL, masterarn, no users    postgres-alternating-clone, as AWS's own function
    user_arn of ElastiCache, MemoryDB  elasticache-user, memorydb-user
    other Redis                        redis-acl

Whoever says it, engine and strategy have to fit before anything is written.  Modules are imported on demand:
a function for PostgreSQL does not wait for redis to be imported.
"""

from collections.abc import Callable, Mapping
from typing import Final

from ledger_db.answers.secret import ENGINES, Secret, SecretProblem, Server
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


def _memorydb_user(tools: Tools) -> Rotator:
    from ledger_db.rotation.elasticache import MemoryDBUserRotator  # noqa: PLC0415 - on demand

    return MemoryDBUserRotator(tools)


STRATEGIES: Final[dict[str, Callable[[Tools], Rotator]]] = {
    "postgres-single": _postgres_single,
    "postgres-alternating": _postgres_alternating,
    "postgres-alternating-clone": _postgres_clone,
    "redis-acl": _redis_acl,
    "elasticache-user": _elasticache_user,
    "elasticache-auth-token": _elasticache_auth_token,
    "memorydb-user": _memorydb_user,
}

# Without a password, and without an address: AWS itself makes the change, and knows where the user is.
_BY_AWS: Final = frozenset({"elasticache-user", "memorydb-user"})
# Of users that AWS keeps; ACL SETUSER is forbidden there.
_OF_SERVICE: Final[Mapping[str, frozenset[str]]] = {
    "elasticache": frozenset({"elasticache-user", "elasticache-auth-token"}),
    "memorydb": frozenset({"memorydb-user"}),
}
# How AWS's names of engines begin that others rotate.
_FOREIGN: Final = (
    "mysql", "mariadb", "aurora-mysql", "oracle", "sqlserver", "mongo", "docdb", "documentdb", "redshift",
    "db2", "neptune", "cassandra", "keyspaces",
)  # fmt: skip


def strategy_of(secret: Secret, *, configured: str | None = None) -> str:
    """
    Return the name of the strategy for *secret*.

    Args:
        secret: What AWSCURRENT holds.

        configured: What to use if the secret does not say.

    Raises:
        SecretProblem: There is no such strategy, it is for another kind of server, or there is nothing to
            choose one by.
    """
    foreign = next((name for name in _FOREIGN if secret.engine.startswith(name)), None)
    if foreign is not None:
        raise SecretProblem(
            f"secret {secret.name!r}: field 'engine' is {foreign}, which is not rotated here; "
            "use AWS's function for that engine"
        )
    chosen = secret.fields.get("strategy") or configured or _by_shape(secret)
    if chosen not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise secret.problem("strategy", f"one of {known}")
    _check_fit(secret, str(chosen))
    return str(chosen)


def check(secret: Secret, strategy: str) -> None:
    """
    Insist on all that a rotation of *secret* needs: what a service refuses to read is not rotated either.

    Raises:
        SecretProblem: Names the first field that is wrong.
    """
    if strategy not in _BY_AWS:
        secret.check(_server_of(strategy))
        return
    _ = secret.username_for("Redis"), secret.port("Redis"), secret.database("Redis")
    if secret.has("password"):
        _ = secret.password
    if secret.has("host"):
        _ = secret.host_for("Redis")


def _by_shape(secret: Secret) -> str:
    service = _service(secret)
    if service is not None or secret.engine in ENGINES["Redis"]:
        return _of_redis(secret, service)
    if secret.engine not in ENGINES["PostgreSQL"]:
        known = ", ".join(sorted(ENGINES["PostgreSQL"] | ENGINES["Redis"]))
        raise secret.problem("engine", f"one of {known}")
    if secret.has("users"):
        return "postgres-alternating"
    return "postgres-single" if secret.administrator_field is None else "postgres-alternating-clone"


def _of_redis(secret: Secret, service: str | None) -> str:
    if service == "memorydb":
        return "memorydb-user"
    # AWS's own name for the user in secrets of ElastiCache.
    if secret.has("user_arn"):
        return "elasticache-user"
    if service == "elasticache":
        return "elasticache-auth-token" if secret.has("replication_group_id") else "elasticache-user"
    return "redis-acl"


def _check_fit(secret: Secret, strategy: str) -> None:
    service = _service(secret)
    secret.check_engine(_server_of(strategy))
    if service is not None and strategy not in _OF_SERVICE[service]:
        fitting = ", ".join(sorted(_OF_SERVICE[service]))
        raise SecretProblem(
            f"secret {secret.name!r} is for {service}, by its 'engine' or 'user_arn', and "
            f"strategy {strategy!r} is not; choose one of {fitting}"
        )


def _service(secret: Secret) -> str | None:
    """Return which of AWS's services keeps the user; None if the secret does not say."""
    words = str(secret.fields.get("user_arn") or "").split(":")
    named = words[2] if len(words) > 2 else secret.engine
    return named if named in _OF_SERVICE else None


def _server_of(strategy: str) -> Server:
    return "PostgreSQL" if strategy.startswith("postgres-") else "Redis"
