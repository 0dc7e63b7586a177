"""Does a person read the same sentence in a service, in the rotation function and at a terminal?"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger_db import ConfigurationError, CredentialsUnavailable, SecretsManagerSource
from ledger_db.errors import LedgerDBError
from ledger_db.operate import cli
from ledger_db.rotation.failures import SecretsManagerDenied, SecretsManagerFailed
from ledger_db.rotation.handler import client_maker, rules_from
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.request import Request
from ledger_db.rotation.runner import Runner
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.faults import Fault, dropped
from tests.support.role_givers import AGENT, METADATA, ROLE, STS, Role, Start, sts_refuses
from tests.support.rotations import new_token

ENDPOINT = "AWS_ENDPOINT_URL_SECRETS_MANAGER"
DENIED = (
    "User: arn:aws:sts::123456789012:assumed-role/app/i-1 is not authorized to perform: "
    "secretsmanager:GetSecretValue because no identity-based policy allows it"
)
EXPIRED = "the AWS session has expired"
SIGN_IN = "sign in again (aws sso login), or renew the role's session"

# Code, AWS's own words, whether trying again helps, what is said, and what to do.
ANSWERS = [
    ("ExpiredTokenException", "The security token expired", True, EXPIRED, SIGN_IN),
    ("AccessDeniedException", DENIED, False, "access is denied", "allow secretsmanager:GetSecretValue"),
    ("AccessDeniedException", "Access to KMS is not allowed", False, "access is denied", "use of its key"),
    ("InvalidSignatureException", "Signature expired: now", False, "wrong clock", "set the clock"),
    ("UnrecognizedClientException", "The security token is invalid", False, "these keys", "keys that are"),
    ("ThrottlingException", "Rate exceeded", True, "too many requests", "ask less often"),
    ("InternalServiceError", "An error occurred", True, "problem of its own", "AWS's status"),
    ("ResourceNotFoundException", "Can't find it", False, "no such secret", "check its name, the account"),
    ("InvalidRequestException", "marked for deletion", False, "the state", "restore it"),
    ("DecryptionFailure", "KMS key is disabled", False, "the key of the secret", "kms:Decrypt"),
    ("LimitExceededException", "Too many versions", False, "a quota", "remove what is not needed"),
    ("AccessDenied", "with an explicit deny in a service control policy", False, "access is d", "allow sec"),
    ("RequestExpired", "Request has expired", False, "wrong clock", "set the clock"),
    ("SignatureDoesNotMatch", "Check your key", False, "wrong clock", "does not belong to AWS_ACCESS_KEY_ID"),
    ("InvalidClientTokenId", "The token is invalid", False, "these keys", "AWS_SESSION_TOKEN"),
    ("MissingAuthenticationToken", "Missing token", False, "no AWS credentials", "a role, AWS_PROFILE"),
    ("TooManyRequestsException", "Slow down", True, "too many requests", "ask less often"),
    ("EncryptionFailure", "KMS key is pending deletion", False, "the key of the secret", "key is enabled"),
    ("ResourceNotFoundException", "can't find the value for staging label: AWSCURRENT", False, "no v", "has"),
]
NOT_COME = "gave nothing: the role's credentials did not come from "
LOOK = "look at who gives them"
IN_TRUST = "in the trust policy of the role, and look at its identity provider"
WRONG = "gave nothing: the AWS settings of this process are wrong ("
MEND = "mend AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL or what is in ~/.aws"
NOWHERE = "http://127.0.0.1:1"
WITH_STS = "gave nothing: sts:AssumeRoleWithWebIdentity"


def by_giver(variable: str, status: int, body: str) -> Callable[[Role, Start], None]:
    """Somebody gives the role's credentials, and refuses to."""
    return lambda role, start: role.by(variable, start(lambda path, count: (status, body)).url)


def by_sts(code: str, words: str) -> Callable[[Role, Start], None]:
    """STS refuses the role."""
    return by_giver(STS, 400, sts_refuses(code, words))


def with_variables(**variables: str) -> Callable[[Role, Start], None]:
    """Keys are at hand, and what else the environment says is wrong."""
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    return lambda role, start: role.set(**keys | variables)


# Who is in the way of a role's credentials, whether trying again helps, whether no client can be made, what
# is said first, and at the end.
BEFORE: list[tuple[Callable[[Role, Start], None], bool, bool, str, str]] = [
    (by_giver(AGENT, 500, "broken"), True, True, f"{NOT_COME}the container agent (", LOOK),
    (by_giver(AGENT, 404, "no role"), True, True, f"{NOT_COME}the container agent (", LOOK),
    (by_giver(AGENT, 429, "slow down"), True, True, f"{NOT_COME}the container agent (", LOOK),
    (lambda role, start: role.by(AGENT, NOWHERE), True, True, f"{NOT_COME}the container agent (", LOOK),
    (lambda role, start: role.by(AGENT, "http://a.example"), False, True, f"{WRONG}ValueError", MEND),
    (by_giver(METADATA, 503, "busy"), True, False, f"{NOT_COME}the instance metadata service (", LOOK),
    (lambda role, start: role.by(METADATA, NOWHERE), True, False, f"{NOT_COME}the instance metad", LOOK),
    (by_sts("AccessDenied", "Not authorized"), True, False, f"{WITH_STS} answered AccessDenied,", IN_TRUST),
    (by_sts("InvalidIdentityToken", "No provider"), True, False, f"{WITH_STS} answered Invalid", IN_TRUST),
    (by_sts("ExpiredTokenException", "Token expired"), True, False, f"{WITH_STS} answered Exp", SIGN_IN),
    (by_sts("IDPCommunicationError", "No answer"), True, False, f"{WITH_STS} answered IDPComm", LOOK),
    (by_sts("ValidationError", "hunter2"), False, False, f"{WITH_STS} answered Val", "mend the role"),
    (lambda role, start: role.by(STS, NOWHERE), True, False, f"{WITH_STS}: AWS did not answer", "check the"),
    (
        lambda role, start: role.by(STS, NOWHERE, token=None),
        True,
        False,
        f"{NOT_COME}the file /",
        LOOK,
    ),
    (
        lambda role, start: role.by_process("import sys; sys.exit('no')"),
        True,
        True,
        f"{NOT_COME}the credential process (CredentialRetrievalError: ",
        LOOK,
    ),
    (
        lambda role, start: role.by_process("print('hunter2')"),
        True,
        True,
        f"{NOT_COME}the credential process (JSONDecodeError: ",
        LOOK,
    ),
    (
        lambda role, start: role.profile("credential_process = /nowhere/at/all\n"),
        True,
        True,
        f"{NOT_COME}the file /nowhere/at/all (FileNotFoundError: ",
        LOOK,
    ),
    (with_variables(AWS_PROFILE="nobody"), False, True, f"{WRONG}ProfileNotFound: ", MEND),
    (with_variables(AWS_REGION="mars 1"), False, True, f"{WRONG}InvalidRegionError: ", MEND),
    (with_variables(**{ENDPOINT: "nowhere"}), False, True, f"{WRONG}ValueError: Invalid endpoint", MEND),
    (lambda role, start: role.profile("[broken"), False, True, f"{WRONG}ConfigParseError: ", MEND),
    (
        lambda role, start: role.profile(f"role_arn = {ROLE}\nsource_profile = gone\n"),
        False,
        True,
        f"{WRONG}InvalidConfigError: ",
        MEND,
    ),
]


def sentence(text: str) -> str:
    """What is said of AWS: without who says it of which secret, and what a rotation left as it was."""
    (found,) = re.findall(r"(?:answered|gave nothing).*", text)
    return str(found).replace("nothing was changed; ", "")


def said_by_service(box: Sandbox, *, transient: bool) -> str:
    """What a service raises when it reads its secret."""
    with pytest.raises(LedgerDBError) as raised:
        SecretsManagerSource(box.database_secret_id, "PostgreSQL").fetch("AWSCURRENT")

    assert type(raised.value) is (CredentialsUnavailable if transient else ConfigurationError)
    assert box.database_secret_id in str(raised.value)
    return sentence(str(raised.value))


def said_by_function(box: Sandbox, *, expected: type[LedgerDBError]) -> str:
    """What the rotation function raises in its first step."""
    runner = Runner(rules_from({"LEDGER_DB_ROTATION_SECRETS": "*"}), client_maker())
    with pytest.raises(LedgerDBError) as raised:
        runner.step(Request("createSecret", box.database_secret_id, new_token()), Deadline.after(30.0))

    assert type(raised.value) is expected
    return sentence(str(raised.value))


def said_at_terminal(
    box: Sandbox, capsys: pytest.CaptureFixture[str], *, expected: type[LedgerDBError]
) -> str:
    """What the command prints."""
    status = cli.main(["rotate", box.database_secret_id, "--dry-run"])

    assert status == getattr(expected, "exit_status", 1)
    return sentence(capsys.readouterr().err)


def said_by_all(
    box: Sandbox,
    capsys: pytest.CaptureFixture[str],
    *,
    transient: bool = False,
    expected: type[LedgerDBError] | None = None,
) -> str:
    """The one sentence that all three say."""
    kind = expected or (SecretsManagerFailed if transient else SecretsManagerDenied)
    said = {
        said_by_service(box, transient=transient),
        said_by_function(box, expected=kind),
        said_at_terminal(box, capsys, expected=kind),
    }

    assert len(said) == 1, said
    return said.pop()


@pytest.mark.parametrize(("code", "words", "transient", "what", "next_move"), ANSWERS)
def test_what_aws_answers_is_the_same_sentence_everywhere(
    environment: Sandbox,
    capsys: pytest.CaptureFixture[str],
    code: str,
    words: str,
    what: str,
    next_move: str,
    *,
    transient: bool,
) -> None:
    """The code, what it means, what to do, and AWS's own words, over the wire."""
    status = 500 if code == "InternalServiceError" else 400
    # A rotation that may describe a secret knows that it is there.
    operation = "*" if code == "ResourceNotFoundException" else "GetSecretValue"
    environment.secrets_manager.inject(Fault(operation, times=None, code=code, status=status, message=words))

    said = said_by_all(environment, capsys, transient=transient)

    happened, _, todo = said.partition("; ")
    assert happened.startswith(f"answered {code}, ")
    assert what in happened
    assert next_move in todo
    assert todo.endswith(f"; AWS says: {words}")


@pytest.mark.parametrize(
    ("prepare", "transient", "before_client", "happened", "todo"),
    BEFORE,
    ids=[f"{place}: {row[3][-30:]}" for place, row in enumerate(BEFORE)],
)
def test_who_was_asked_before_aws_is_named_everywhere(
    environment: Sandbox,
    role: Role,
    start_giver: Start,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Role, Start], None],
    happened: str,
    todo: str,
    *,
    transient: bool,
    before_client: bool,
) -> None:
    """An agent, a metadata service, a file, a process, STS, or what somebody wrote into the settings."""
    prepare(role, start_giver)
    own: type[LedgerDBError] = CredentialsUnavailable if transient else ConfigurationError

    said = said_by_all(environment, capsys, transient=transient, expected=own if before_client else None)

    assert said.startswith(happened)
    assert todo in said.partition("; ")[2]
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("fault", "happened"),
    [
        (dropped("GetSecretValue", times=None), "gave nothing: AWS did not answer (ConnectionClosedError"),
        (Fault("GetSecretValue", times=None, code="BadGateway", status=502), "answered BadGateway, AWS has"),
    ],
)
def test_what_stands_between_is_no_refusal_of_aws(
    environment: Sandbox, capsys: pytest.CaptureFixture[str], fault: Fault, happened: str
) -> None:
    """A proxy that hangs up, or that answers in AWS's place."""
    environment.secrets_manager.inject(fault)

    assert said_by_all(environment, capsys, transient=True).startswith(happened)


@pytest.fixture
def terminal(environment: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A terminal that nobody has signed in at; returns its file of settings."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return tmp_path / "config"


def test_an_sso_session_that_has_ended_asks_for_a_new_one(
    environment: Sandbox,
    terminal: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody mends a policy, and nobody waits: the person who starts it signs in."""
    terminal.write_text(
        "[profile somebody]\nsso_start_url = https://nowhere.example/start\nsso_region = us-east-1\n"
        "sso_account_id = 123456789012\nsso_role_name = somebody\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "somebody")

    said = said_by_all(environment, capsys)

    assert said.startswith(f"gave nothing: {EXPIRED} (")
    assert said.endswith(f"; {SIGN_IN}")


def test_without_credentials_it_says_which_to_set(
    environment: Sandbox, terminal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A role, a profile or a key."""
    said = said_by_all(environment, capsys)

    assert said.startswith("gave nothing: there are no AWS credentials (NoCredentialsError")
    assert "; set AWS credentials the AWS way" in said


def test_half_a_key_is_none(
    environment: Sandbox,
    terminal: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which half is missing is in botocore's words."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "sandbox")

    said = said_by_all(environment, capsys, expected=ConfigurationError)

    assert "there are no AWS credentials (PartialCredentialsError" in said
    assert "AWS_SECRET_ACCESS_KEY" in said


def test_without_a_region_it_says_so(
    environment: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a client can be made."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", ENDPOINT):
        monkeypatch.delenv(name)

    said = said_by_all(environment, capsys, expected=ConfigurationError)

    assert (
        said == "gave nothing: no region is set (NoRegionError: You must specify a region.); set AWS_REGION"
    )


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [
        (ENDPOINT, "http://127.0.0.1:1", "EndpointConnectionError"),
        ("HTTPS_PROXY", "http://user:hunter2@127.0.0.1:1", "ProxyConnectionError"),
    ],
)
def test_an_aws_that_cannot_be_reached_is_asked_again(
    environment: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    error: str,
) -> None:
    """The way is named and no login of a proxy; it may be there in a moment."""
    monkeypatch.delenv(ENDPOINT)
    monkeypatch.setenv(variable, value)

    said = said_by_all(environment, capsys, transient=True)

    assert said.startswith(f"gave nothing: AWS did not answer ({error}: ")
    assert "check the network (VPC endpoint, proxy, DNS) and the endpoint" in said
    assert "127.0.0.1:1" in said
    assert "hunter2" not in said


def test_a_terminal_believes_an_arn_as_a_service_does(
    environment: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an ARN no region has to be set; what only looks like an ARN is refused before AWS is asked."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    arn = f"arn:aws:secretsmanager:us-east-1:000000000000:secret:{environment.database_secret_id}"

    assert cli.main(["rotate", arn, "--dry-run"]) == 0
    assert cli.main(["rotate", "arn:aws:rds:x", "--dry-run"]) == 1
    assert "is not the ARN of a secret" in capsys.readouterr().err
