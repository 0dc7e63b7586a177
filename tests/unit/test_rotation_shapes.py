"""Does every secret that AWS's console, CDK and pages make get a strategy, and every other one a refusal?"""

from typing import Any

import pytest

from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.rotation.protocol import Tools
from ledger_db.rotation.strategies import STRATEGIES, check, strategy_of

ADMIN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:m-AbCdEf"
IN_ELASTICACHE = "arn:aws:elasticache:us-east-1:123456789012:user:app"
IN_MEMORYDB = "arn:aws:memorydb:us-east-1:123456789012:user/app"
LOGIN = {"username": "app", "password": "p" * 16}
RDS = {"engine": "postgres", "host": "db.x.rds.amazonaws.com", "port": 5432, "dbname": "d", **LOGIN}
CACHE = {"host": "c.x.cache.amazonaws.com", "port": "6379", **LOGIN}

SHAPES: list[tuple[str, dict[str, Any], str]] = [
    ("RDS console", {**RDS, "dbInstanceIdentifier": "db"}, "postgres-single"),
    ("CDK, a cluster", {**RDS, "engine": "aurora-postgresql", "dbClusterIdentifier": "c"}, "postgres-single"),
    ("RDS console, no database", {k: v for k, v in RDS.items() if k != "dbname"}, "postgres-single"),
    ("port as text", {**RDS, "port": "5432"}, "postgres-single"),
    ("RDS console, two users", {**RDS, "masterarn": ADMIN}, "postgres-alternating-clone"),
    ("RDS console, a clone's turn", {**RDS, "username": "app_clone", "masterarn": ADMIN},
     "postgres-alternating-clone"),
    ("a pair", {**RDS, "masterarn": ADMIN, "users": ["app", "app_b"]}, "postgres-alternating"),
    ("ElastiCache's page", {**LOGIN, "user_arn": IN_ELASTICACHE}, "elasticache-user"),
    ("ElastiCache, the least", {"password": "p" * 16, "user_arn": IN_ELASTICACHE}, "elasticache-user"),
    ("ElastiCache, first rotation", {"username": "app", "user_arn": IN_ELASTICACHE}, "elasticache-user"),
    ("ElastiCache, with an address", {**CACHE, "engine": "redis", "user_arn": IN_ELASTICACHE},
     "elasticache-user"),
    ("ElastiCache, Valkey", {"engine": "valkey", **LOGIN, "user_arn": IN_ELASTICACHE}, "elasticache-user"),
    ("AUTH token", {**CACHE, "engine": "elasticache", "replication_group_id": "g"}, "elasticache-auth-token"),
    ("MemoryDB's page", {**LOGIN, "user_arn": IN_MEMORYDB}, "memorydb-user"),
    ("MemoryDB by engine", {**CACHE, "engine": "memorydb"}, "memorydb-user"),
    ("MemoryDB as Redis", {**CACHE, "engine": "redis", "user_arn": IN_MEMORYDB}, "memorydb-user"),
    ("one's own Redis", {**CACHE, "engine": "redis"}, "redis-acl"),
]  # fmt: skip


def nothing_asked(service: str) -> Any:
    """Be asked for nothing while a secret is judged."""
    raise AssertionError(service)


TOOLS = Tools(read_secret=nothing_asked, client=nothing_asked)


@pytest.mark.parametrize(("fields", "expected"), [shape[1:] for shape in SHAPES], ids=[s[0] for s in SHAPES])
def test_whatever_aws_writes_is_taken(fields: dict[str, Any], expected: str) -> None:
    """The strategy follows from the shape, and has all that it needs; nobody is asked for it."""
    secret = Secret("s", "v", fields)
    strategy = strategy_of(secret)
    check(secret, strategy)

    assert strategy == expected
    assert STRATEGIES[strategy](TOOLS).next_secret(secret)["password"]


@pytest.mark.parametrize("strategy", [None, *STRATEGIES])
@pytest.mark.parametrize(
    "engine",
    ["mysql", "aurora-mysql", "mariadb", "oracle-ee", "oracle-se2", "sqlserver", "sqlserver-ex", "mongo",
     "docdb", "redshift", "db2", "db2-se", "MySQL"],
)  # fmt: skip
def test_another_engine_is_refused_by_name(engine: str, strategy: str | None) -> None:
    """Whatever is configured: a secret of another engine is not tried on this one."""
    name = engine.lower().removeprefix("aurora-").partition("-")[0]
    with pytest.raises(SecretProblem, match=f"'engine' is (aurora-)?{name}, which is not rotated here"):
        strategy_of(Secret("s", "v", {**RDS, "engine": engine}), configured=strategy)


@pytest.mark.parametrize(
    ("fields", "strategy"),
    [
        *((RDS, name) for name in STRATEGIES if not name.startswith("postgres-")),
        *(({**CACHE, "engine": "redis"}, name) for name in STRATEGIES if name.startswith("postgres-")),
        *(({**CACHE, "engine": "memorydb"}, name) for name in STRATEGIES if name != "memorydb-user"),
        *(({**LOGIN, "user_arn": IN_MEMORYDB}, name) for name in STRATEGIES if name != "memorydb-user"),
        *(({**CACHE, "user_arn": IN_ELASTICACHE}, name) for name in STRATEGIES if "elasticache" not in name),
        ({**CACHE, "engine": "elasticache"}, "redis-acl"),
        ({**RDS, "engine": "something-new"}, "postgres-single"),
        ({**RDS, "engine": 5}, "postgres-single"),
    ],
)
@pytest.mark.parametrize("own_word", [True, False])
def test_engine_and_strategy_have_to_fit(fields: dict[str, Any], strategy: str, *, own_word: bool) -> None:
    """Whether the secret itself or the function's configuration names the strategy."""
    secret = Secret("s", "v", {**fields, "strategy": strategy} if own_word else fields)
    with pytest.raises(SecretProblem, match="secret 's'"):
        strategy_of(secret, configured=strategy)


@pytest.mark.parametrize(
    "fields",
    [
        {k: v for k, v in RDS.items() if k != "password"},
        {**LOGIN, "Password": "x", "password": None, "user_arn": IN_ELASTICACHE},
        {"username": "app", "Password": "x", "user_arn": IN_ELASTICACHE},
        {**LOGIN, "user_arn": IN_ELASTICACHE, "host": "redis://c"},
        {**LOGIN, "user_arn": IN_ELASTICACHE, "port": "none"},
    ],
)
def test_what_is_wrong_in_a_secret_is_told_before_anything_is_written(fields: dict[str, Any]) -> None:
    """Without a password it is a first rotation only where AWS makes the change, never by a misspelling."""
    secret = Secret("s", "v", fields)
    with pytest.raises(SecretProblem, match="secret 's'"):
        check(secret, strategy_of(secret))


def test_a_pair_is_not_made_one_role_for_want_of_an_administrator() -> None:
    """Who lists two users wants AWSCURRENT to log in at every moment; the missing field is named."""
    secret = Secret("s", "v", {**RDS, "users": ["app", "app_b"]})
    with pytest.raises(SecretProblem, match="masterarn"):
        STRATEGIES[strategy_of(secret)](TOOLS).next_secret(secret)
