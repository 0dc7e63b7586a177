"""When a secret cannot be read or written: does the message say whose, what is true now, and what to do?"""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from ledger_db.rotation.failures import StepFailed
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.runner import Rules, Runner
from ledger_db.sandbox import Sandbox
from tests.support.rotations import Rotations, new_client, new_token, own_secret

NOTHING = "nothing was changed"
UNTOUCHED = "nothing was written to the server; AWSCURRENT is unchanged"
UNCHANGED = "AWSCURRENT is unchanged"
UNREACHABLE = "Unreachable"
# What a person reads of each, in AWS's code and in what to do.
NEXT = {
    "AccessDeniedException": "; allow secretsmanager:",
    "ResourceNotFoundException": "; check its name, the account and the region",
    "InvalidRequestException": "; restore it, if it is marked for deletion",
    "DecryptionFailure": "; allow kms:Decrypt",
    "ThrottlingException": "; trying again may help; if it goes on, ask less often",
    UNREACHABLE: "; trying again may help; if it goes on, check the network",
}


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A client of Secrets Manager whose one *operation* fails with *code*, for one secret."""

    client: Any
    secret_id: str
    operation: str
    code: str

    @property
    def exceptions(self) -> Any:
        """The classes of the real one."""
        return self.client.exceptions

    def __getattr__(self, name: str) -> Callable[..., Any]:
        called = name.title().replace("_", "")

        def call(**given: Any) -> Any:
            if called == self.operation and given["SecretId"] == self.secret_id:
                raise error_of(self.code, called)
            return getattr(self.client, name)(**given)

        return call


class Rds:
    """Stands in for an RDS that answers every question with an error of AWS's."""

    def __init__(self, code: str) -> None:
        self._code = code

    def describe_db_instances(self, **which: str) -> Any:
        """Refuse."""
        raise error_of(self._code, "DescribeDBInstances")


def error_of(code: str, operation: str) -> Exception:
    """Make what boto3 raises."""
    if code == UNREACHABLE:
        return ConnectTimeoutError(endpoint_url="https://secretsmanager.us-east-1.amazonaws.com/")
    words = "because it was marked for deletion" if code == "InvalidRequestException" else "Said by AWS."
    answer: Any = {"Error": {"Code": code, "Message": words}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    return ClientError(answer, operation)


def message_of(rotations: Rotations, step: str, client: Any, *, before: tuple[str, ...] = ()) -> str:
    """Run *step* into an error after the steps *before*, and return what a person reads."""
    token = new_token()
    for earlier in before:
        rotations.step(earlier, token)
    with pytest.raises(StepFailed) as failed:
        rotations.step(step, token, runner=rotations.runner(client))
    message = str(failed.value)
    assert message.startswith(f"{step} of {rotations.secret_id}: ")
    assert "\n" not in message
    assert "see the cause" not in message
    for stage in rotations.labels():
        assert rotations.value(stage)["password"] not in message
    return message


@contextmanager
def other_secret(box: Sandbox, **given: Any) -> Iterator[str]:
    """Make a secret that holds what is *given*, and return its ARN."""
    with closing(new_client(box)) as client:
        yield client.create_secret(Name=f"test/{uuid.uuid4().hex}", **given)["ARN"]


@pytest.mark.parametrize("code", NEXT)
@pytest.mark.parametrize(
    ("step", "operation", "before", "state"),
    [
        ("createSecret", "DescribeSecret", (), NOTHING),
        ("createSecret", "GetSecretValue", (), NOTHING),
        ("setSecret", "DescribeSecret", ("createSecret",), NOTHING),
        ("setSecret", "GetSecretValue", ("createSecret",), NOTHING),
        ("testSecret", "GetSecretValue", ("createSecret", "setSecret"), NOTHING),
        ("finishSecret", "GetSecretValue", ("createSecret", "setSecret"), NOTHING),
    ],
)
def test_the_applications_own_secret(
    environment: Sandbox, step: str, operation: str, before: tuple[str, ...], state: str, code: str
) -> None:
    """It is the one in front, and no administrator is blamed."""
    with own_secret(environment, "postgres-alternating") as rotations:
        spoilt = Spoilt(rotations.client, rotations.secret_id, operation, code)
        message = message_of(rotations, step, spoilt, before=before)

    assert f": {operation} of Secrets Manager " in message
    assert f"; {state}{NEXT[code]}" in message
    assert "administrator" not in message


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException", UNREACHABLE])
@pytest.mark.parametrize(
    ("step", "operation", "before", "clear", "unclear"),
    [
        (
            "createSecret",
            "PutSecretValue",
            (),
            NOTHING,
            "AWSPENDING may hold a password that the server does not have; AWSCURRENT is unchanged",
        ),
        (
            "finishSecret",
            "UpdateSecretVersionStage",
            ("createSecret", "setSecret"),
            UNCHANGED,
            "AWSCURRENT may have moved to the new version, which logs in",
        ),
    ],
)
def test_writing_the_applications_own_secret(
    environment: Sandbox,
    step: str,
    operation: str,
    before: tuple[str, ...],
    clear: str,
    unclear: str,
    code: str,
) -> None:
    """A clear refusal has changed nothing; whatever else may have been done."""
    with own_secret(environment, "postgres-alternating") as rotations:
        spoilt = Spoilt(rotations.client, rotations.secret_id, operation, code)
        message = message_of(rotations, step, spoilt, before=before)

    assert f"; {clear if code.startswith('Access') else unclear}{NEXT[code]}" in message
    assert "administrator" not in message


@pytest.mark.parametrize("code", NEXT)
@pytest.mark.parametrize("strategy", ["postgres-alternating", "postgres-alternating-clone"])
def test_the_administrators_secret(environment: Sandbox, strategy: str, code: str) -> None:
    """It is named as such, by what and where it is named, and nothing is claimed of the server."""
    with own_secret(environment, strategy) as rotations:
        admin = rotations.value()["masterarn"]
        message = message_of(
            rotations,
            "setSecret",
            Spoilt(rotations.client, admin, "GetSecretValue", code),
            before=("createSecret",),
        )

    assert f": the administrator's secret '{admin}' in 'masterarn': GetSecretValue of Secrets" in message
    assert f"; {UNTOUCHED}{NEXT[code]}" in message


@pytest.mark.parametrize("code", NEXT)
def test_the_administrators_secret_for_redis(rotations: Rotations, code: str) -> None:
    """The same words, whatever the server is."""
    admin = rotations.value()["masterarn"]
    spoilt = Spoilt(rotations.client, admin, "GetSecretValue", code)
    message = message_of(rotations, "setSecret", spoilt, before=("createSecret",))
    rotations.repair()

    assert f": the administrator's secret '{admin}' in 'masterarn': GetSecretValue of Secrets" in message
    assert f"; {UNTOUCHED}{NEXT[code]}" in message


@pytest.mark.parametrize("code", NEXT)
def test_the_administrators_secret_in_a_dry_run(environment: Sandbox, code: str) -> None:
    """Before anything is rotated the same is said."""
    with own_secret(environment, "postgres-alternating") as rotations:
        admin = rotations.value()["masterarn"]
        runner = rotations.runner(Spoilt(rotations.client, admin, "GetSecretValue", code))
        with pytest.raises(StepFailed) as failed:
            runner.examine(rotations.secret_id, Deadline.after(20.0))

    assert f"dry run of {rotations.secret_id}: the administrator's secret '{admin}'" in str(failed.value)
    assert f"; {NOTHING}{NEXT[code]}" in str(failed.value)


def test_an_administrator_that_is_no_help_is_told_of(environment: Sandbox) -> None:
    """A role that changes its own password can do without, so that the dry run says it and goes on."""
    with own_secret(environment, "postgres-single", masterarn="test/nobody") as rotations:
        findings = rotations.examine()
        rotations.run()

    (sentence,) = findings.drift
    assert "'test/nobody'" in sentence
    assert "no help where the role may not change its own password" in sentence
    assert findings.probes["AWSCURRENT"].ok


CONTENTS: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({"SecretString": "{}"}, "field 'username' is missing"),
    "no JSON": ({"SecretString": "user:pw"}, "expected a JSON object"),
    "a picture": ({"SecretBinary": b"\x89PNG\xff"}, "expected a JSON object"),
    "no value": ({}, "there is no such secret, or no value with that label"),
    "another engine": ({"SecretString": '{"engine": "mysql", "username": "u"}'}, "field 'engine'"),
    "no host": ({"SecretString": '{"username": "u", "password": "p"}'}, "no 'host' and no tag of RDS"),
    "no password": ({"SecretString": '{"username": "u", "host": "h"}'}, "field 'password' is missing"),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_in_the_administrators_secret(environment: Sandbox, content: str) -> None:
    """A field that is wrong is looked for in the right secret."""
    given, words = CONTENTS[content]
    with (
        other_secret(environment, **given) as admin,
        own_secret(environment, "postgres-alternating", masterarn=admin) as rotations,
    ):
        message = message_of(rotations, "setSecret", rotations.client, before=("createSecret",))

    assert f": the administrator's secret '{admin}' in 'masterarn': " in message
    assert words in message
    assert f"; {UNTOUCHED}; " in message


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AccessDenied", "; allow rds:DescribeDBInstances on it"),
        ("DBInstanceNotFound", "answered DBInstanceNotFound"),
        ("ThrottlingException", "; trying again may help"),
        (UNREACHABLE, "check the network (VPC endpoint"),
    ],
)
def test_an_administrator_whom_rds_does_not_tell(environment: Sandbox, code: str, words: str) -> None:
    """Which call was refused, and by whom: the log of a function shows no cause."""
    with closing(new_client(environment)) as client:
        value = json.loads(client.get_secret_value(SecretId=environment.admin_secret_id)["SecretString"])
    login = json.dumps({name: value[name] for name in ("username", "password")})
    tag = {"Key": "aws:rds:primaryDBInstanceArn", "Value": "arn:aws:rds:us-east-1:123456789012:db:x"}
    with (
        other_secret(environment, SecretString=login, Tags=[tag]) as admin,
        own_secret(environment, "postgres-alternating", masterarn=admin) as rotations,
    ):
        clients: dict[str, Any] = {"secretsmanager": rotations.client, "rds": Rds(code)}
        token = new_token()
        rotations.step("createSecret", token)
        runner = Runner(Rules(allowed=("test/*",), strategy=rotations.strategy), clients.__getitem__)
        with pytest.raises(StepFailed) as failed:
            rotations.step("setSecret", token, runner=runner)

    message = str(failed.value)
    assert f": the administrator's secret '{admin}' in 'masterarn': RDS, asked where the" in message
    assert words in message
    assert f"; {UNTOUCHED}; " in message


@pytest.mark.parametrize(
    ("statement", "words", "next_move"),
    [
        (
            "PASSWORD 'other'",
            "the server refused the password",
            "set the administrator's password at the server",
        ),
        ("NOLOGIN", "the role is NOLOGIN", "ALTER ROLE ... LOGIN for the administrator"),
        (
            "NOCREATEROLE",
            "does not permit it (insufficient privilege) (",
            "CREATEROLE and, from PostgreSQL 16 on",
        ),
    ],
)
def test_an_administrator_whom_the_server_refuses(
    environment: Sandbox, statement: str, words: str, next_move: str
) -> None:
    """The advice is for its login, and not for the application's."""
    name = f"keeper_{uuid.uuid4().hex[:8]}"
    with closing(new_client(environment)) as client:
        value = json.loads(client.get_secret_value(SecretId=environment.admin_secret_id)["SecretString"])
    login = json.dumps({**value, "username": name, "password": "of-the-keeper"})
    with (
        other_secret(environment, SecretString=login) as admin,
        own_secret(environment, "postgres-alternating", masterarn=admin) as rotations,
    ):
        rotations.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'of-the-keeper'")
        rotations.execute(f"ALTER ROLE {name} {statement}")
        message = message_of(rotations, "setSecret", rotations.client, before=("createSecret",))
        rotations.execute(f"DROP ROLE {name}")

    assert f": the administrator of secret '{admin}': PostgreSQL at " in message
    assert f"as {name}: " in message
    assert words in message
    assert f"; {UNTOUCHED}; " in message
    assert next_move in message


def test_a_secret_that_is_marked_for_deletion(environment: Sandbox) -> None:
    """AWS's own sentence says so, for the secret itself as for an administrator's."""
    with other_secret(environment, SecretString="{}") as admin, closing(new_client(environment)) as client:
        client.delete_secret(SecretId=admin)
        with own_secret(environment, "postgres-alternating", masterarn=admin) as rotations:
            theirs = message_of(rotations, "setSecret", rotations.client, before=("createSecret",))
            client.delete_secret(SecretId=rotations.secret_id)
            with pytest.raises(StepFailed) as failed:
                rotations.step("createSecret", new_token())
            client.restore_secret(SecretId=rotations.secret_id)

    for message in (theirs, str(failed.value)):
        assert "marked for deletion" in message.partition("AWS says: ")[2]
    assert "administrator" not in str(failed.value)
