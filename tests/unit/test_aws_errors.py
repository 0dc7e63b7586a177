"""Do the service and the rotation understand what AWS says, and what keeps it from being asked?"""

from typing import Any

import pytest
from botocore import exceptions
from botocore.exceptions import ClientError

from ledger_db import ConfigurationError, CredentialsUnavailable, SecretsManagerSource
from ledger_db.rotation.failures import SecretsManagerDenied, SecretsManagerFailed, StepFailed, explained
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.versions import Versions

LATER, NEVER, ODD = "trying again may help", "a person is needed", "not understood"
CLASSES: dict[type[Exception], str] = {
    CredentialsUnavailable: LATER,
    ConfigurationError: NEVER,
    SecretsManagerFailed: LATER,
    SecretsManagerDenied: NEVER,
}


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
    with pytest.raises(Exception) as raised:  # noqa: PT011 - looked up below
        source.fetch("AWSCURRENT")
    return CLASSES.get(type(raised.value), ODD)


def asked_by_rotation(error: Exception) -> str:
    """What a rotation makes of *error*."""
    versions = Versions(Refusing(error), "app/db", Deadline.after(60.0))  # type: ignore[arg-type] # a double
    with pytest.raises(StepFailed) as raised, explained("step", lambda: "nothing was changed"):
        versions.labels()
    return CLASSES.get(type(raised.value), ODD)


BOTH = [
    ("AccessDenied", NEVER, NEVER),
    ("AccessDeniedException", NEVER, NEVER),
    ("BandwidthLimitExceeded", LATER, NEVER),
    ("DecryptionFailure", NEVER, NEVER),
    ("EC2ThrottledException", LATER, NEVER),
    ("EncryptionFailure", NEVER, NEVER),
    ("ExpiredToken", LATER, NEVER),
    ("ExpiredTokenException", LATER, NEVER),
    ("IncompleteSignature", NEVER, NEVER),
    ("InternalFailure", LATER, LATER),
    ("InternalServerError", LATER, NEVER),
    ("InternalServiceError", LATER, LATER),
    ("InternalServiceErrorException", NEVER, LATER),
    ("InvalidClientTokenId", NEVER, NEVER),
    ("InvalidParameterException", NEVER, NEVER),
    ("InvalidRequestException", NEVER, NEVER),
    ("InvalidSignatureException", NEVER, NEVER),
    ("LimitExceededException", LATER, NEVER),
    ("MissingAuthenticationToken", NEVER, NEVER),
    ("PriorRequestNotComplete", LATER, NEVER),
    ("ProvisionedThroughputExceededException", LATER, NEVER),
    ("RequestExpired", NEVER, NEVER),
    ("RequestLimitExceeded", LATER, LATER),
    ("RequestThrottled", LATER, NEVER),
    ("RequestThrottledException", LATER, NEVER),
    ("RequestTimeout", LATER, NEVER),
    ("RequestTimeoutException", LATER, NEVER),
    ("ResourceNotFoundException", NEVER, NEVER),
    ("ServiceUnavailable", LATER, LATER),
    ("ServiceUnavailableException", NEVER, LATER),
    ("SignatureDoesNotMatch", NEVER, NEVER),
    ("SlowDown", LATER, NEVER),
    ("SomethingNew", NEVER, NEVER),
    ("ThrottledException", LATER, NEVER),
    ("Throttling", LATER, LATER),
    ("ThrottlingException", LATER, LATER),
    ("TooManyRequestsException", LATER, LATER),
    ("TransactionInProgressException", LATER, NEVER),
    ("UnrecognizedClientException", NEVER, NEVER),
    ("ValidationException", NEVER, NEVER),
]


@pytest.mark.parametrize(("name", "service", "rotation"), BOTH)
def test_a_code_of_aws(name: str, service: str, rotation: str) -> None:
    """What each half makes of a code."""
    assert asked_by_service(code(name)) == service
    assert asked_by_rotation(code(name)) == rotation


@pytest.mark.parametrize("name", ["502", "SomethingNew", "AccessDeniedException", "LimitExceededException"])
def test_an_answer_that_says_the_fault_is_its_own(name: str) -> None:
    """HTTP 5xx is AWS's own trouble, whatever code it has."""
    assert asked_by_service(code(name, 503)) == LATER
    assert asked_by_rotation(code(name, 503)) == LATER


LOCAL: list[tuple[Exception, str, str]] = [
    (exceptions.ConnectTimeoutError(endpoint_url="https://aws"), LATER, LATER),
    (exceptions.ConnectionClosedError(endpoint_url="https://aws"), LATER, LATER),
    (exceptions.EndpointConnectionError(endpoint_url="https://aws"), LATER, LATER),
    (exceptions.HTTPClientError(error="broken"), LATER, LATER),
    (exceptions.ProxyConnectionError(proxy_url="http://proxy"), LATER, LATER),
    (exceptions.ReadTimeoutError(endpoint_url="https://aws"), LATER, LATER),
    (exceptions.SSLError(endpoint_url="https://aws", error=OSError("certificate")), LATER, LATER),
    (exceptions.MetadataRetrievalError(error_msg="busy"), LATER, LATER),
    (exceptions.CredentialRetrievalError(provider="container-role", error_msg="busy"), NEVER, LATER),
    (exceptions.NoCredentialsError(), NEVER, LATER),
    (exceptions.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), NEVER, LATER),
    (exceptions.NoRegionError(), NEVER, LATER),
    (exceptions.ProfileNotFound(profile="nobody"), NEVER, LATER),
    (exceptions.ConfigParseError(path="config"), NEVER, LATER),
    (exceptions.InvalidConfigError(error_msg="wrong"), NEVER, LATER),
    (exceptions.UnauthorizedSSOTokenError(), NEVER, LATER),
    (exceptions.SSOTokenLoadError(error_msg="no token"), NEVER, LATER),
    (exceptions.TokenRetrievalError(provider="sso", error_msg="expired"), NEVER, LATER),
    (exceptions.LoginRefreshRequired(), NEVER, LATER),
    (exceptions.RefreshWithMFAUnsupportedError(), NEVER, LATER),
    (exceptions.ParamValidationError(report="value: hunter2"), NEVER, LATER),
    (ValueError("Invalid endpoint: nowhere"), NEVER, ODD),
    (FileNotFoundError(2, "No such file or directory", "token"), ODD, ODD),
    (TypeError("string indices must be integers"), LATER, ODD),
    (AttributeError("no attribute 'get'"), LATER, ODD),
]


@pytest.mark.parametrize(("error", "service", "rotation"), LOCAL, ids=lambda each: type(each).__name__)
def test_an_error_before_or_behind_aws(error: Exception, service: str, rotation: str) -> None:
    """What each half makes of what botocore raises itself."""
    assert asked_by_service(error) == service
    assert asked_by_rotation(error) == rotation
