"""Are users that AWS keeps rotated with what AWS's pages put into their secrets, and no more?"""

from collections.abc import Iterator
from typing import Any

import pytest

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret
from ledger_db.rotation.elasticache import ElastiCacheUserRotator, MemoryDBUserRotator
from ledger_db.rotation.passwords import PasswordRules
from ledger_db.rotation.protocol import Deadline, ServerProblem, Tools
from ledger_db.sandbox import Sandbox
from tests.support.elasticache_places import Located
from tests.support.redis_world import RedisWorld, redis_world

FIRST = "the-first-password-of-all"


KINDS: dict[str, tuple[type[ElastiCacheUserRotator], str]] = {
    "elasticache": (ElastiCacheUserRotator, "arn:aws:elasticache:eu-west-1:123456789012:user:app-user-id"),
    "memorydb": (MemoryDBUserRotator, "arn:aws:memorydb:eu-west-1:123456789012:user/{user}"),
}


@pytest.fixture
def world(box: Sandbox) -> Iterator[RedisWorld]:
    """A user of the Valkey that is behind the double."""
    with redis_world(box) as world:
        yield world


@pytest.fixture
def aws(world: RedisWorld) -> Located:
    """AWS, in which that user has one password."""
    double = Located(world.admin, world.user, FIRST)
    double._apply()
    return double


def rotator_of(service: str, aws: Located, **tools: Any) -> ElastiCacheUserRotator:
    """Make a rotator that may ask *service* only, and for which no time passes."""

    def client(asked: str) -> Located:
        assert asked == service
        return aws

    def read_secret(secret_id: str) -> Secret:
        raise AssertionError(secret_id)

    return KINDS[service][0](Tools(read_secret=read_secret, client=client, **tools), pause=aws.pause)


def secret(service: str, world: RedisWorld, version: str = "v1", **fields: Any) -> Secret:
    """Return a version with the ARN and *fields*, nothing else."""
    return Secret("some/secret", version, {"user_arn": KINDS[service][1].format(user=world.user), **fields})


def within() -> Deadline:
    """Return a deadline."""
    return Deadline.after(20.0)


def following(rotator: ElastiCacheUserRotator, current: Secret, version: str) -> Secret:
    """Return what createSecret makes of *current*."""
    return Secret(current.name, version, {**current.fields, **rotator.next_secret(current)})


@pytest.mark.parametrize("service", KINDS)
@pytest.mark.parametrize("names_user", [True, False])
def test_where_and_who_the_user_is_aws_is_asked(
    service: str, world: RedisWorld, aws: Located, *, names_user: bool
) -> None:
    """A secret of the page's has no host; the rotation logs in all the same, and adds no field."""
    rotator = rotator_of(service, aws)
    named = {"username": world.user} if names_user else {}
    first = secret(service, world, password=FIRST, **named)
    second = following(rotator, first, "v2")
    rotator.check(first, second)
    assert rotator.probe(second, within()).reason is Reason.REFUSED
    rotator.apply(first, second, within())
    rotator.verify(second, within())

    assert rotator.probe(first, within()).ok
    assert rotator.probe(second, within()).ok
    assert second.fields.keys() == first.fields.keys()


@pytest.mark.parametrize("service", KINDS)
def test_a_first_rotation_needs_no_password(service: str, world: RedisWorld, aws: Located) -> None:
    """AWS makes the change, so there is nothing to log in with; a dry run says that there is none yet."""
    rotator = rotator_of(service, aws)
    current = secret(service, world, username=world.user)
    pending = following(rotator, current, "v2")
    looked = rotator.probe(current, within())
    rotator.apply(current, pending, within())
    rotator.verify(pending, within())

    assert (looked.reason, looked.what) == (
        Reason.REFUSED,
        "it holds no password; a rotation gives it the first",
    )
    assert aws.passwords == [pending.password]


@pytest.mark.parametrize("caches", [("ServerlessCaches",), ("ReplicationGroups", "ServerlessCaches")])
def test_every_cache_of_the_user_is_tried(world: RedisWorld, aws: Located, caches: tuple[str, ...]) -> None:
    """Serverless ones too."""
    aws.caches = caches
    rotator = rotator_of("elasticache", aws)

    assert rotator.probe(secret("elasticache", world, password=FIRST), within()).ok


def test_a_user_of_no_cache_is_said_to_be_one(world: RedisWorld, aws: Located) -> None:
    """There is nowhere to try a password, so none is set."""
    aws.caches = ()
    rotator = rotator_of("elasticache", aws)
    current = secret("elasticache", world, password=FIRST)

    probe = rotator.probe(current, within())
    assert (probe.reason, probe.what) == (
        Reason.FAILED_CHECK,
        "ElastiCache user 'app-user-id' is for no cache yet",
    )
    assert "modify_user" not in aws.calls


@pytest.mark.parametrize("code", ["UserNotFoundFault", "InvalidUserStateFault"])
def test_what_memorydb_refuses_is_understood(world: RedisWorld, aws: Located, code: str) -> None:
    """Its codes have a word more than ElastiCache's; its text, which may hold what was sent, stays away."""
    aws.refuse_with = code
    current = secret("memorydb", world, password=FIRST)
    with pytest.raises(ServerProblem, match="MemoryDB user") as failed:
        rotator_of("memorydb", aws).apply(current, current, within())

    assert failed.value.reason in {Reason.FAILED_CHECK, Reason.NOT_READY}
    assert "canary" not in str(failed.value)


@pytest.mark.parametrize("service", KINDS)
def test_the_rules_for_passwords_hold_here_too(service: str, world: RedisWorld, aws: Located) -> None:
    """Length and characters of the installation, within what AWS takes."""
    rules = PasswordRules(length=20, excluded=frozenset("-abcdef0"))
    rotator = rotator_of(service, aws, passwords=rules)
    for _ in range(200):
        password = rotator.next_secret(secret(service, world))["password"]
        assert len(password) == 20
        assert not set(password) & rules.excluded
