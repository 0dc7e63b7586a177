"""Do the strategies for ElastiCache keep AWSCURRENT alive, whatever state AWS is in?"""

import json
import logging
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.redaction import hide_secrets_of_botocore
from ledger_db.rotation.elasticache import ElastiCacheAuthTokenRotator, ElastiCacheUserRotator
from ledger_db.rotation.failures import ActionForbidden, explained
from ledger_db.rotation.leak import Leak
from ledger_db.rotation.protocol import Deadline, Forgets, OutOfTime, ServerProblem, Tools
from ledger_db.rotation.runner import Rules, Runner
from ledger_db.rotation.strategies import STRATEGIES
from ledger_db.sandbox import Sandbox
from tests.support.elasticache import ElastiCacheDouble
from tests.support.redis_world import RedisWorld, redis_world

Rotator = ElastiCacheUserRotator | ElastiCacheAuthTokenRotator
KINDS = [ElastiCacheUserRotator, ElastiCacheAuthTokenRotator]
FIRST = "the-first-password-of-all"


@pytest.fixture
def world(box: Sandbox) -> Iterator[RedisWorld]:
    """A user of the Valkey that is behind the double."""
    box.secrets_manager.clear_faults()
    with redis_world(box) as world:
        yield world


@pytest.fixture
def aws(world: RedisWorld) -> ElastiCacheDouble:
    """ElastiCache, in which that user has one password."""
    double = ElastiCacheDouble(world.admin, world.user, FIRST)
    double._apply()
    return double


@pytest.fixture(params=KINDS, ids=["user", "auth-token"])
def rotator(request: pytest.FixtureRequest, aws: ElastiCacheDouble) -> Rotator:
    """One strategy, then the other."""
    return made(request.param, aws)


def made(kind: type[Rotator], aws: ElastiCacheDouble) -> Rotator:
    """Make a rotator for which no time passes."""

    def read_secret(secret_id: str) -> Secret:
        raise AssertionError(f"nobody else's secret is needed, {secret_id} neither")

    return kind(Tools(read_secret=read_secret, client=lambda service: aws), pause=aws.pause)


def secret(world: RedisWorld, password: str = FIRST, version: str = "v1", **more: Any) -> Secret:
    """Return a version of the secret."""
    fields = {
        "engine": "redis",
        "host": world.box.redis.host,
        "port": world.box.redis.port,
        "username": world.user,
        "user_arn": "arn:aws:elasticache:eu-west-1:123456789012:user:app-user-id",
        "replication_group_id": "app-group",
        "password": password,
        **more,
    }
    return Secret("some/secret", version, fields)


def following(rotator: Rotator, current: Secret, version: str) -> Secret:
    """Return what createSecret makes of *current*."""
    return Secret(current.name, version, {**current.fields, **rotator.next_secret(current)})


def within(seconds: float = 20.0) -> Deadline:
    """Return a deadline."""
    return Deadline.after(seconds)


def test_both_passwords_are_valid_in_the_overlap(world: RedisWorld, rotator: Rotator) -> None:
    """Really: both log in at the Valkey; the third rotation has dropped the first password."""
    first = secret(world)
    second = following(rotator, first, "v2")
    rotator.check(first, second)
    assert rotator.probe(second, within()).reason is Reason.REFUSED
    rotator.apply(first, second, within())
    rotator.verify(second, within())
    assert rotator.probe(first, within()).ok

    third = following(rotator, second, "v3")
    rotator.apply(second, third, within())
    rotator.verify(third, within())

    assert rotator.probe(second, within()).ok
    assert not rotator.probe(first, within()).ok


def test_a_change_is_waited_for(world: RedisWorld, rotator: Rotator, aws: ElastiCacheDouble) -> None:
    """It is applied when the step ends, not some time later."""
    first = secret(world)
    rotator.apply(first, following(rotator, first, "v2"), within())

    assert aws._settled()
    assert aws.paused_seconds > 0


def test_a_change_in_progress_is_waited_for_first(
    world: RedisWorld, rotator: Rotator, aws: ElastiCacheDouble
) -> None:
    """AWS refuses a change while another one is under way; a step that was cut off has left one behind."""
    first = secret(world)
    aws._change([FIRST, "left-behind-by-a-crash"])
    second = following(rotator, first, "v2")
    rotator.apply(first, second, within())
    rotator.verify(second, within())

    assert rotator.probe(first, within()).ok


def test_a_rotation_that_was_given_up_does_not_cost_the_current_password(
    world: RedisWorld, rotator: Rotator
) -> None:
    """Two at most are known: the one that nobody uses has to go, not AWSCURRENT's."""
    current = secret(world)
    for attempt in range(3):
        pending = following(rotator, current, f"given-up-{attempt}")
        rotator.apply(current, pending, within())
        assert rotator.probe(current, within()).ok
        assert rotator.probe(pending, within()).ok


def test_a_step_may_be_repeated(world: RedisWorld, rotator: Rotator) -> None:
    """Lambda is called again after a time-out, with the same version."""
    current = secret(world)
    pending = following(rotator, current, "v2")
    for _ in range(3):
        rotator.apply(current, pending, within())
        assert rotator.probe(current, within()).ok
        assert rotator.probe(pending, within()).ok


def test_active_is_not_believed(world: RedisWorld, rotator: Rotator, aws: ElastiCacheDouble) -> None:
    """AWS says that it is done while the nodes lag behind: only a login ends the test."""
    current = secret(world)
    pending = following(rotator, current, "v2")
    rotator.apply(current, pending, within())
    # The nodes have the old state again, and catch up at the third look.
    caught_up = aws.passwords
    aws.passwords = [FIRST]
    aws._apply()
    aws.passwords, aws.lag_looks = caught_up, 3
    assert not rotator.probe(pending, within()).ok
    rotator.verify(pending, within())

    assert rotator.probe(pending, within()).ok


def test_a_password_that_never_works_fails_the_test(world: RedisWorld, rotator: Rotator) -> None:
    """AWS's own function would have said that it works."""
    with pytest.raises(ServerProblem) as failed:
        rotator.verify(secret(world, "never-set-anywhere"), within(0.7))

    assert failed.value.probe.reason is Reason.REFUSED


def test_waiting_ends_before_lambda_does(world: RedisWorld, rotator: Rotator, aws: ElastiCacheDouble) -> None:
    """A change that does not settle ends with a message, not with the end of the process."""
    aws._change([FIRST])
    aws.stuck = True
    current = secret(world)
    with pytest.raises(OutOfTime, match="ElastiCache"):
        rotator.apply(current, following(rotator, current, "v2"), within(2.1))


def test_the_overlap_can_be_ended(world: RedisWorld, rotator: Rotator) -> None:
    """After `retire` only AWSCURRENT logs in; once more changes nothing."""
    first = secret(world)
    second = following(rotator, first, "v2")
    rotator.apply(first, second, within())
    rotator.retire(second, within())
    rotator.retire(second, within())

    assert rotator.probe(second, within()).ok
    assert not rotator.probe(first, within()).ok


def test_what_was_given_up_is_forgotten(world: RedisWorld, rotator: Rotator) -> None:
    """The password of a rotation that was overtaken goes, and AWSCURRENT stays."""
    assert isinstance(rotator, Forgets)
    current = secret(world)
    given_up = following(rotator, current, "v2")
    rotator.apply(current, given_up, within())
    rotator.forget(given_up, current, within())

    assert rotator.probe(current, within()).ok
    assert not rotator.probe(given_up, within()).ok


def test_the_overlap_is_not_ended_by_a_password_that_does_not_work(
    world: RedisWorld, rotator: Rotator, aws: ElastiCacheDouble
) -> None:
    """Keeping only a dead password would lock everybody out."""
    with pytest.raises(ServerProblem):
        rotator.retire(secret(world, "never-set-anywhere"), within())

    assert aws.passwords == [FIRST]


def test_what_the_secret_holds_can_be_restored(
    world: RedisWorld, rotator: Rotator, aws: ElastiCacheDouble
) -> None:
    """Somebody set another password by hand; a repair gives AWS the one in AWSCURRENT again."""
    aws.passwords = ["somebody-else-was-here"]
    aws._apply()
    current = secret(world)
    assert not rotator.probe(current, within()).ok
    rotator.revert(current, (secret(world, "somebody-else-was-here"),), within())

    assert rotator.probe(current, within()).ok


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("AccessDenied", Reason.FORBIDDEN),
        ("UserNotFound", Reason.FAILED_CHECK),
        ("ReplicationGroupNotFoundFault", Reason.FAILED_CHECK),
        ("InvalidUserState", Reason.NOT_READY),
        ("Throttling", Reason.NOT_READY),
        ("SomethingNew", Reason.UNKNOWN),
    ],
)
def test_refusals_of_aws_are_told_apart(
    world: RedisWorld, rotator: Rotator, aws: ElastiCacheDouble, code: str, reason: Reason
) -> None:
    """Each has its own reason, and none repeats AWS's text, which may hold what was sent."""
    aws.refuse_with = code
    current = secret(world)
    with pytest.raises(ServerProblem) as failed:
        rotator.apply(current, current, within())

    assert failed.value.probe.reason is reason
    assert "canary" not in str(failed.value)
    assert failed.value.__cause__ is None


def test_what_is_denied_is_what_to_allow(world: RedisWorld, rotator: Rotator, aws: ElastiCacheDouble) -> None:
    """Not the advice for a server, whose administrator has no part in it."""
    aws.refuse_with = "AccessDenied"
    with (
        pytest.raises(ActionForbidden, match="allow elasticache:Modify on it"),
        explained("setSecret of app/cache", lambda: "nothing was changed"),
    ):
        rotator.apply(secret(world), secret(world), within())


def test_an_endpoint_that_is_not_there_is_said(world: RedisWorld) -> None:
    """A function in a VPC without an endpoint for ElastiCache is the usual case."""

    class Unreachable:
        """Stands in for a network without a way to AWS."""

        def describe_users(self, **_: object) -> None:
            """Fail as botocore does."""
            raise EndpointConnectionError(endpoint_url="https://elasticache.eu-west-1.amazonaws.com")

    tools = Tools(read_secret=lambda name: secret(world), client=lambda service: Unreachable())
    with pytest.raises(ServerProblem) as failed:
        ElastiCacheUserRotator(tools).apply(secret(world), secret(world), within())

    assert failed.value.probe.reason is Reason.NO_ANSWER


def test_new_passwords_are_what_elasticache_takes(world: RedisWorld, rotator: Rotator) -> None:
    """16 to 128 characters; of the signs, only those that AUTH tokens may have."""
    for _ in range(500):
        password = rotator.next_secret(secret(world))["password"]
        assert 16 <= len(password) <= 128
        assert not set(password) - set(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!&#$^<>-"
        )


@pytest.mark.parametrize("field", ["user_arn", "replication_group_id", "host", "username"])
def test_a_pending_version_for_somebody_else_is_refused(world: RedisWorld, field: str) -> None:
    """Who may write AWSPENDING cannot change another user's password."""
    kind = ElastiCacheUserRotator if field == "user_arn" else ElastiCacheAuthTokenRotator
    rotator = kind(Tools(read_secret=lambda name: secret(world), client=lambda service: None))
    with pytest.raises(SecretProblem, match=field):
        rotator.check(secret(world), secret(world, **{field: "arn:of:somebody-else"}))


@pytest.mark.parametrize(
    ("kind", "field"),
    [(ElastiCacheUserRotator, "user_arn"), (ElastiCacheAuthTokenRotator, "replication_group_id")],
)
def test_a_missing_field_is_named(world: RedisWorld, kind: type[Rotator], field: str) -> None:
    """Before anything is changed."""
    rotator = kind(Tools(read_secret=lambda name: secret(world), client=lambda service: None))
    with pytest.raises(SecretProblem, match=field):
        missing: dict[str, Any] = {field: None}
        rotator.next_secret(secret(world, **missing))


def test_a_healthy_user_has_no_drift(world: RedisWorld, rotator: Rotator) -> None:
    """A dry run has nothing to say."""
    assert rotator.drift(secret(world), within()) == ()


def test_an_auth_token_belongs_to_nobody() -> None:
    """A secret without a user name logs in with the token alone, as servers before ACLs want it."""
    with Sandbox() as box, closing(box.redis.connect()) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "on", "~*", "&*", "+@all")  # type: ignore[no-untyped-call]
        aws = ElastiCacheDouble(box.redis.connect, "default", FIRST)
        aws._apply()
        rotator = made(ElastiCacheAuthTokenRotator, aws)
        place = {"engine": "redis", "host": box.redis.host, "port": box.redis.port}
        current = Secret("s", "v1", {**place, "replication_group_id": "app-group", "password": FIRST})
        pending = following(rotator, current, "v2")
        rotator.apply(current, pending, within())
        rotator.verify(pending, within())

        assert rotator.probe(current, within()).ok
        assert aws.calls.count("modify_replication_group ROTATE") == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("elasticache-user", ElastiCacheUserRotator),
        ("elasticache-auth-token", ElastiCacheAuthTokenRotator),
    ],
)
def test_a_secret_can_ask_for_it(world: RedisWorld, name: str, kind: type[Rotator]) -> None:
    """The strategies are known by the names that secrets use."""
    rotator = STRATEGIES[name](Tools(read_secret=lambda _: secret(world), client=lambda _: None))

    assert isinstance(rotator, kind)
    assert rotator.strategy == name
    assert rotator.keeps_current


@pytest.mark.parametrize("parameter", ["Passwords.member.1", "AuthToken"])
def test_requests_to_elasticache_are_not_logged(parameter: str, caplog: pytest.LogCaptureFixture) -> None:
    """AWS wants the password itself; botocore at DEBUG would write down the whole request."""
    hide_secrets_of_botocore()
    with caplog.at_level(logging.DEBUG, logger="botocore.endpoint"):
        logging.getLogger("botocore.endpoint").debug("Making request with params: %s", {parameter: "canary"})

    assert "canary" not in caplog.text


@pytest.mark.parametrize("kind", KINDS, ids=["user", "auth-token"])
def test_a_leak_is_answered_but_for_its_sessions(
    world: RedisWorld, aws: ElastiCacheDouble, kind: type[Rotator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rotations kill the leaked password; that nobody can end what is logged in is not passed over."""
    monkeypatch.setitem(STRATEGIES, kind.strategy, lambda tools: kind(tools, pause=aws.pause))
    secret_id = f"{world.secret_id}-{kind.strategy}"
    with closing(world.box.client()) as client:
        client.create_secret(Name=secret_id, SecretString=json.dumps(dict(secret(world).fields)))
        runner = Runner(
            Rules(allowed=("*",), strategy=kind.strategy),
            lambda service: client if service == "secretsmanager" else aws,
        )
        leak = Leak(runner, secret_id, grace_seconds=1.0, deadline=within(60.0), sleep=aws.pause)
        done = leak.run()
        client.delete_secret(SecretId=secret_id, ForceDeleteWithoutRecovery=True)

    assert len(done.versions) == 2
    assert done.sessions is None
    assert not done.is_complete
    assert not world.logs_in(FIRST)
