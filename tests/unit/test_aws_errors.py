"""Do the service and the rotation understand what AWS says, and what keeps it from being asked?"""

import traceback
from json import JSONDecodeError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore import exceptions
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from ledger_db import ConfigurationError, CredentialsUnavailable, SecretsManagerSource
from ledger_db.answers.aws_errors import _ROWS, Cause, refusal_of
from ledger_db.answers.aws_parties import giver, has_metadata
from ledger_db.answers.secret import AnswerProblem
from ledger_db.errors import LedgerDBError
from ledger_db.rotation.failures import SecretsManagerDenied, SecretsManagerFailed, StepFailed, explained
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.versions import Versions

# By this name in the lines that a traceback quotes.
SENT = "hunter2"
LATER, PERSON = "trying again may help", "a person is needed"
CLASSES: dict[type[Exception], str] = {
    CredentialsUnavailable: LATER,
    ConfigurationError: PERSON,
    SecretsManagerFailed: LATER,
    SecretsManagerDenied: PERSON,
}


class LoginError(exceptions.BotoCoreError):
    """What newer releases of botocore raise when ``aws login`` has to be repeated."""

    fmt = "Your session has expired."


class Refusing:
    """A client of AWS whose every call raises *error*."""

    exceptions = exceptions

    def __init__(self, error: Exception) -> None:
        self._error = error

    def get_secret_value(self, **_: object) -> None:
        """Read nothing."""
        raise self._error

    def describe_secret(self, **_: object) -> None:
        """Describe nothing."""
        raise self._error

    def put_secret_value(self, **_: object) -> None:
        """Store nothing."""
        raise self._error


def code(name: str, status: int = 400) -> ClientError:
    """What boto3 raises for an answer with an error code."""
    answer: Any = {
        "Error": {"Code": name, "Message": "AWS's own words"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "GetSecretValue")


def asked_by_service(error: Exception) -> str:
    """What a service makes of *error*."""
    source = SecretsManagerSource("app/db", "PostgreSQL")
    source._client = Refusing(error)
    with pytest.raises(LedgerDBError) as raised:
        source.fetch("AWSCURRENT")
    return CLASSES[type(raised.value)]


def asked_by_rotation(error: Exception) -> str:
    """What a rotation makes of *error*."""
    versions = Versions(Refusing(error), "app/db", Deadline.after(60.0))  # type: ignore[arg-type] # a double
    with pytest.raises(StepFailed) as raised, explained("step", lambda: "nothing was changed"):
        versions.labels()
    return CLASSES[type(raised.value)]


CODES = [
    ("AccessDenied", Cause.DENIED, PERSON),
    ("AccessDeniedException", Cause.DENIED, PERSON),
    ("AuthFailure", Cause.WRONG_KEYS, PERSON),
    ("AuthorizationError", Cause.DENIED, PERSON),
    ("BandwidthLimitExceeded", Cause.THROTTLED, LATER),
    ("DecryptionFailure", Cause.KEY, PERSON),
    ("EC2ThrottledException", Cause.THROTTLED, LATER),
    ("EncryptionFailure", Cause.KEY, PERSON),
    ("ExpiredToken", Cause.EXPIRED, LATER),
    ("ExpiredTokenException", Cause.EXPIRED, LATER),
    ("ForbiddenException", Cause.DENIED, PERSON),
    ("IDPCommunicationError", Cause.NOT_YET, LATER),
    ("IDPRejectedClaim", Cause.DENIED, PERSON),
    ("IncompleteSignature", Cause.WRONG_KEYS, PERSON),
    ("IncompleteSignatureException", Cause.WRONG_KEYS, PERSON),
    ("InternalFailure", Cause.FAULT, LATER),
    ("InternalServerError", Cause.FAULT, LATER),
    ("InternalServiceError", Cause.FAULT, LATER),
    ("InternalServiceErrorException", Cause.FAULT, LATER),
    ("InvalidAccessKeyId", Cause.WRONG_KEYS, PERSON),
    ("InvalidClientTokenId", Cause.WRONG_KEYS, PERSON),
    ("InvalidParameterException", Cause.UNKNOWN, PERSON),
    ("InvalidRequestException", Cause.STATE, PERSON),
    ("InvalidIdentityToken", Cause.DENIED, PERSON),
    ("InvalidIdentityTokenException", Cause.DENIED, PERSON),
    ("InvalidSignatureException", Cause.CLOCK, PERSON),
    ("LimitExceededException", Cause.QUOTA, PERSON),
    ("MissingAuthenticationToken", Cause.NO_KEYS, PERSON),
    ("MissingAuthenticationTokenException", Cause.NO_KEYS, PERSON),
    ("NotAuthorized", Cause.DENIED, PERSON),
    ("PriorRequestNotComplete", Cause.THROTTLED, LATER),
    ("ProvisionedThroughputExceededException", Cause.THROTTLED, LATER),
    ("RequestExpired", Cause.CLOCK, PERSON),
    ("RequestLimitExceeded", Cause.THROTTLED, LATER),
    ("RequestThrottled", Cause.THROTTLED, LATER),
    ("RequestThrottledException", Cause.THROTTLED, LATER),
    ("RequestTimeTooSkewed", Cause.CLOCK, PERSON),
    ("RequestTimeout", Cause.FAULT, LATER),
    ("RequestTimeoutException", Cause.FAULT, LATER),
    ("ResourceNotFoundException", Cause.MISSING, PERSON),
    ("ServiceUnavailable", Cause.FAULT, LATER),
    ("ServiceUnavailableException", Cause.FAULT, LATER),
    ("SignatureDoesNotMatch", Cause.CLOCK, PERSON),
    ("SlowDown", Cause.THROTTLED, LATER),
    ("SomethingNew", Cause.UNKNOWN, PERSON),
    ("ThrottledException", Cause.THROTTLED, LATER),
    ("Throttling", Cause.THROTTLED, LATER),
    ("ThrottlingException", Cause.THROTTLED, LATER),
    ("TooManyRequestsException", Cause.THROTTLED, LATER),
    ("TransactionInProgressException", Cause.THROTTLED, LATER),
    ("UnauthorizedException", Cause.DENIED, PERSON),
    ("UnauthorizedOperation", Cause.DENIED, PERSON),
    ("UnrecognizedClientException", Cause.WRONG_KEYS, PERSON),
    ("ValidationException", Cause.UNKNOWN, PERSON),
]


@pytest.mark.parametrize(("name", "cause", "expected"), CODES)
def test_a_code_of_aws_is_one_thing_to_everybody(name: str, cause: Cause, expected: str) -> None:
    """A service waits for what a rotation tries again, and both call a person for the same."""
    assert refusal_of(code(name), "secretsmanager").cause is cause
    assert (asked_by_service(code(name)), asked_by_rotation(code(name))) == (expected, expected)


@pytest.mark.parametrize("name", ["502", "SomethingNew", "AccessDeniedException", "LimitExceededException"])
def test_an_answer_that_says_the_fault_is_its_own_is_tried_again(name: str) -> None:
    """HTTP 5xx is AWS's own trouble, whatever code it has."""
    assert asked_by_service(code(name, 503)) == LATER
    assert asked_by_rotation(code(name, 503)) == LATER


LOCAL: list[tuple[Exception, Cause, str]] = [
    (exceptions.ConnectTimeoutError(endpoint_url="https://aws"), Cause.UNREACHABLE, LATER),
    (exceptions.ConnectionClosedError(endpoint_url="https://aws"), Cause.UNREACHABLE, LATER),
    (exceptions.EndpointConnectionError(endpoint_url="https://aws"), Cause.UNREACHABLE, LATER),
    (exceptions.HTTPClientError(error="broken"), Cause.UNREACHABLE, LATER),
    (exceptions.ProxyConnectionError(proxy_url="http://proxy"), Cause.UNREACHABLE, LATER),
    (exceptions.ReadTimeoutError(endpoint_url="https://aws"), Cause.UNREACHABLE, LATER),
    (exceptions.SSLError(endpoint_url="https://aws", error=OSError("certificate")), Cause.UNREACHABLE, LATER),
    (exceptions.MetadataRetrievalError(error_msg="busy"), Cause.NOT_YET, LATER),
    (exceptions.CredentialRetrievalError(provider="container-role", error_msg="busy"), Cause.NOT_YET, LATER),
    (exceptions.NoCredentialsError(), Cause.NO_KEYS, PERSON),
    (
        exceptions.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
        Cause.NO_KEYS,
        PERSON,
    ),
    (exceptions.NoRegionError(), Cause.NO_REGION, PERSON),
    (exceptions.ProfileNotFound(profile="nobody"), Cause.SETTINGS, PERSON),
    (exceptions.ConfigParseError(path="config"), Cause.SETTINGS, PERSON),
    (exceptions.InvalidConfigError(error_msg="wrong"), Cause.SETTINGS, PERSON),
    (exceptions.UnauthorizedSSOTokenError(), Cause.EXPIRED, PERSON),
    (exceptions.SSOTokenLoadError(error_msg="no token"), Cause.EXPIRED, PERSON),
    (exceptions.TokenRetrievalError(provider="sso", error_msg="expired"), Cause.EXPIRED, PERSON),
    (LoginError(), Cause.EXPIRED, PERSON),
    (exceptions.NoAuthTokenError(), Cause.NO_KEYS, PERSON),
    (exceptions.ConfigNotFound(path="config"), Cause.SETTINGS, PERSON),
    (exceptions.EndpointProviderError(msg="no rule"), Cause.SETTINGS, PERSON),
    (exceptions.UnknownRegionError(region_name="mars", error_msg="none"), Cause.SETTINGS, PERSON),
    (exceptions.InvalidProxiesConfigError(), Cause.SETTINGS, PERSON),
    (exceptions.InvalidDefaultsMode(mode="x", valid_modes="y"), Cause.SETTINGS, PERSON),
    (exceptions.InvalidRetryModeError(provided_retry_mode="x", valid_modes="y"), Cause.SETTINGS, PERSON),
    (exceptions.UnknownCredentialError(name="x"), Cause.SETTINGS, PERSON),
    (exceptions.MissingDependencyException(msg="awscrt"), Cause.SETTINGS, PERSON),
    (TimeoutError(), Cause.UNREACHABLE, LATER),
    (exceptions.RefreshWithMFAUnsupportedError(), Cause.EXPIRED, PERSON),
    (exceptions.ParamValidationError(report="value: hunter2"), Cause.UNKNOWN, PERSON),
    (ValueError("Invalid endpoint: nowhere"), Cause.SETTINGS, PERSON),
    (FileNotFoundError(2, "No such file or directory", "token"), Cause.NOT_YET, LATER),
    (JSONDecodeError("Expecting value", "hunter2", 0), Cause.NOT_YET, LATER),
    (TypeError("string indices must be integers"), Cause.NOT_AWS, LATER),
    (AttributeError("no attribute 'get'"), Cause.NOT_AWS, LATER),
    (
        RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired."),
        Cause.EXPIRED,
        LATER,
    ),
    (RuntimeError("can't start new thread"), Cause.UNKNOWN, PERSON),
    (RecursionError("maximum recursion depth exceeded"), Cause.NOT_AWS, LATER),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), Cause.NOT_AWS, LATER),
    (ModuleNotFoundError("No module named 'boto3'"), Cause.NO_SDK, PERSON),
    (IndexError("list index out of range"), Cause.NOT_AWS, LATER),
    (AnswerProblem("something else"), Cause.NOT_AWS, LATER),
    (ResponseParserError("hunter2"), Cause.NOT_AWS, LATER),
]


@pytest.mark.parametrize(("error", "cause", "expected"), LOCAL, ids=lambda each: type(each).__name__)
def test_an_error_before_aws_is_one_thing_to_everybody(error: Exception, cause: Cause, expected: str) -> None:
    """What botocore raises itself, and what it lets through."""
    assert refusal_of(error, "secretsmanager").cause is cause
    assert (asked_by_service(error), asked_by_rotation(error)) == (expected, expected)


@pytest.mark.parametrize("operation", ["AssumeRole", "AssumeRoleWithWebIdentity"])
def test_who_refused_the_role_is_named(operation: str) -> None:
    """Secrets Manager was not even asked: it was STS that said no."""
    answer: Any = {"Error": {"Code": "AccessDenied", "Message": "not authorized"}}
    refusal = refusal_of(ClientError(answer, operation), "secretsmanager")

    assert refusal.what == f"gave nothing: sts:{operation} answered AccessDenied, access is denied"
    assert refusal.next_move.startswith(f"allow sts:{operation}")
    assert not refusal.asked
    assert ", not asked yet for 'x', gave nothing: sts:" in str(refusal.as_error("Secrets Manager", "'x'"))


@pytest.mark.parametrize(
    ("operation", "name", "expected"),
    [
        ("AssumeRoleWithWebIdentity", "AccessDenied", LATER),
        ("AssumeRoleWithWebIdentity", "InvalidIdentityToken", LATER),
        ("AssumeRoleWithWebIdentity", "IDPRejectedClaim", LATER),
        ("AssumeRoleWithWebIdentity", "ExpiredTokenException", LATER),
        ("AssumeRoleWithWebIdentity", "ValidationError", PERSON),
        ("AssumeRole", "AccessDenied", LATER),
        ("AssumeRole", "InvalidClientTokenId", PERSON),
        ("GetRoleCredentials", "ForbiddenException", PERSON),
        ("GetRoleCredentials", "ResourceNotFoundException", PERSON),
        ("GetRoleCredentials", "TooManyRequestsException", LATER),
    ],
)
def test_a_helper_is_judged_by_what_it_is_asked_for(operation: str, name: str, expected: str) -> None:
    """A trust that is not known everywhere yet passes; what it does not know is no secret that is missing."""
    error = ClientError({"Error": {"Code": name, "Message": ""}}, operation)
    refusal = refusal_of(error, "secretsmanager")

    assert (LATER if refusal.transient else PERSON) == expected
    assert refusal.cause is not Cause.MISSING
    assert not refusal.asked


def test_what_an_sso_session_may_not_see_is_no_version_that_is_not_pending() -> None:
    """Only Secrets Manager can say that nothing is labelled AWSPENDING."""
    source = SecretsManagerSource("app/db", "PostgreSQL")
    answer: Any = {"Error": {"Code": "ResourceNotFoundException", "Message": "No such account"}}
    source._client = Refusing(ClientError(answer, "GetRoleCredentials"))
    with pytest.raises(ConfigurationError, match="sso:GetRoleCredentials answered ResourceNotFound"):
        source.fetch("AWSPENDING")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, None),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/x"}, "the container agent"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://x"}, "the container agent"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://x"}, "the instance metadata service"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv6"}, "the instance metadata service"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "x", "AWS_EC2_METADATA_DISABLED": "True"}, None),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "x", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "y"}, "STS"),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "y"}, None),
    ],
)
def test_the_environment_names_who_gives_the_credentials(said: dict[str, str], expected: str | None) -> None:
    """In the order in which botocore looks."""
    assert giver({"AWS_EC2_METADATA_DISABLED": "" if expected else "true", **said}) == expected


@pytest.mark.parametrize(
    ("profile", "expected"),
    [({"role_arn": "x"}, "STS"), ({"credential_process": "x"}, "the credential process"), ({}, None)],
)
def test_so_does_a_profile(profile: dict[str, str], expected: str | None) -> None:
    """A role to assume, or a program to call."""
    assert giver({"AWS_EC2_METADATA_DISABLED": "true"}, profile) == expected


@pytest.mark.parametrize(("maker", "expected"), [("Amazon EC2\n", True), ("QEMU\n", False), (None, False)])
def test_a_machine_of_ec2_has_a_metadata_service(
    tmp_path: Path, maker: str | None, *, expected: bool
) -> None:
    """Nothing has to name it there; elsewhere an empty chain is nothing to wait for."""
    file = tmp_path / "sys_vendor"
    if maker is not None:
        file.write_text(maker)

    assert has_metadata({}, file) is expected
    assert not has_metadata({"AWS_EC2_METADATA_DISABLED": "true"}, file)


def test_words_of_aws_are_one_line_and_not_endless() -> None:
    """What is written into a log forges no line of it, and colours no terminal."""
    answer: Any = {"Error": {"Code": "AccessDenied", "Message": "User: a\nERROR \x1b[31mb" + 5000 * "c"}}
    said = refusal_of(ClientError(answer, "GetSecretValue"), "secretsmanager").next_move

    assert "AWS says: User: a ERROR [31mbc" in said
    assert said.isprintable()
    assert len(said) < 600


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ParamValidationError(report="value: hunter2"),
        exceptions.EndpointConnectionError(endpoint_url="http://user:hunter2@aws"),
        ValueError("Invalid endpoint: http://user:hunter2@aws:x"),
        ResponseParserError("could not parse b'hunter2'"),
        JSONDecodeError("Expecting value", "hunter2", 0),
        KeyError("hunter2"),
        ClientError(
            {"Error": {"Code": "ValidationException", "Message": "Value 'hunter2' is wrong"}},
            "PutSecretValue",
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_was_sent_and_what_came_is_not_repeated(error: Exception) -> None:
    """A parameter may be the password, an answer the secret, and an address may hold a login."""
    refusal = refusal_of(error, "secretsmanager")

    assert "hunter2" not in repr(refusal)


def test_where_a_password_was_sent_no_word_of_aws_is_kept() -> None:
    """ElastiCache takes the password itself."""
    refusal = refusal_of(code("AccessDenied"), "elasticache", repeat=False)

    assert "own words" not in refusal.next_move


def test_a_rotation_repeats_no_word_about_the_password_that_it_sends() -> None:
    """What refuses a new version, AWS or something in between, may quote it."""
    answer: Any = {"Error": {"Code": "LimitExceededException", "Message": f"too long: {SENT}"}}
    client: Any = Refusing(ClientError(answer, "PutSecretValue"))
    client.exceptions = SimpleNamespace(ResourceExistsException=KeyError)
    versions = Versions(client, "s", Deadline.after(5))
    with pytest.raises(SecretsManagerDenied) as failed, explained("createSecret of s", lambda: "nothing"):
        versions.put("token", {"password": SENT}, label="AWSPENDING")

    assert SENT not in "".join(traceback.format_exception(failed.value))
    assert "LimitExceededException" in str(failed.value)


def test_every_row_has_a_test() -> None:
    """What the table holds was looked up, and is written down here a second time."""
    tested = {name for name, *_ in CODES} | {
        kind.__name__ for error, *_ in LOCAL for kind in type(error).__mro__
    }

    assert set(_ROWS) - tested == set()
