"""Credentials out of AWS Secrets Manager."""

import os
import re
import threading
from typing import TYPE_CHECKING, Any

from ledger_db.answers.secret import AnswerProblem, Server
from ledger_db.credentials.from_secret import Address, credentials_from
from ledger_db.credentials.model import Credentials, Stage
from ledger_db.errors import ConfigurationError, CredentialsUnavailable, LedgerDBError
from ledger_db.redaction import describe, hide_secrets_of_botocore

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

# Any partition: aws, aws-cn, aws-us-gov, the isolated ones.  A replica's ARN names the replica's region.
_ARN = re.compile(r"arn:aws[a-z-]*:secretsmanager:(?P<region>[a-z0-9-]+):\d{12}:secret:.+")

# botocore waits 60 s for a connection and 60 s for an answer unless told otherwise; a request that needs a
# new password cannot.  Its own retries are the inner ones; the provider's schedule is the outer one.
_CONNECT_TIMEOUT_SECONDS = 2
_READ_TIMEOUT_SECONDS = 5
_ATTEMPTS = 2

# What trying again may mend.  From botocore's retries/standard.py and the service model; everything else
# (AccessDenied, ResourceNotFound, DecryptionFailure, InvalidRequest, ...) needs a person.
_TRANSIENT_CODES = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "ExpiredToken",
        "ExpiredTokenException",
        "InternalFailure",
        "InternalServerError",
        "InternalServiceError",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
_HINTS = {
    "AccessDeniedException": "allow secretsmanager:GetSecretValue on it (and kms:Decrypt on its key)",
    "DecryptionFailure": "allow kms:Decrypt on its key, and check that the key is enabled",
    "InvalidRequestException": "check that it is not scheduled for deletion",
    "ResourceNotFoundException": "check its name, the account and the region",
}


class SecretsManagerSource:
    """
    Reads one secret.

    AWS is configured the AWS way: region, endpoint, profile and role come from the environment.  boto3 is
    imported at the first read, not before: it takes an eighth of a second.
    """

    __module__ = "ledger_db"

    rotates = True

    def __init__(self, secret_id: str, server: Server, *, address: Address | None = None) -> None:
        """
        Read *secret_id* as credentials for *server*.

        Args:
            secret_id: Name or ARN, of any partition, also of a replica.

            server: What the secret is for.

            address: What the settings say about the server; goes before what the secret says.
        """
        self._secret_id = secret_id
        self._server = server
        self._address = address or Address()

        # Guards the making of the client, so that two first readers make one.  boto3 clients may be used
        # by many threads at once; making them may not.
        self._making = threading.Lock()
        self._client: Any = None

    @property
    def name(self) -> str:
        """The secret's name or ARN."""
        return self._secret_id

    def fetch(self, stage: Stage) -> Credentials | None:
        """
        Read the version that carries *stage*, which is always asked for by name.

        Raises:
            CredentialsUnavailable, CredentialsInvalid, ConfigurationError: As in `CredentialSource`.
        """
        answer = self._get_secret_value(stage)
        if answer is None:
            return None
        try:
            return credentials_from(answer, self._server, secret_id=self._secret_id, address=self._address)
        except AnswerProblem as error:
            raise CredentialsUnavailable(f"{self._what()} gave an answer that is none of its own") from error

    def forget_client(self) -> None:
        """Make a new client at the next read: after a fork, sockets would be shared with the parent."""
        self._making = threading.Lock()
        self._client = None

    def _get_secret_value(self, stage: Stage) -> dict[str, Any] | None:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - imported when needed

        try:
            answer: dict[str, Any] = self._made_client().get_secret_value(
                SecretId=self._secret_id, VersionStage=stage
            )
        except ClientError as error:
            if stage != "AWSCURRENT" and _code(error) == "ResourceNotFoundException":
                # No such label, or a version without a value: AWS creates one when a rotation starts.
                return None
            raise self._translated(error) from error
        except (BotoCoreError, ValueError) as error:
            # ValueError: an endpoint URL that is none.
            raise self._translated_local(error) from error
        except (AttributeError, TypeError) as error:
            # What botocore's parser raises for JSON that is no object, as from something in between.
            raise CredentialsUnavailable(f"{self._what()} gave an answer that is none of its own") from error
        return answer

    def _made_client(self) -> Any:
        with self._making:
            if self._client is None:
                self._client = _new_client(self._secret_id)
            return self._client

    def _translated(self, error: "ClientError") -> LedgerDBError:
        code = _code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _TRANSIENT_CODES or status >= 500:
            return CredentialsUnavailable(f"{self._what()} answered {code}; wait until it is well again")
        hint = _HINTS.get(code, "check the secret and the permissions of this role")
        return ConfigurationError(f"{self._what()} refused to give the secret: {code}; {hint}")

    def _translated_local(self, error: Exception) -> LedgerDBError:
        from botocore import exceptions  # noqa: PLC0415 - imported when needed

        transient = (
            exceptions.ConnectionError,
            exceptions.HTTPClientError,
            exceptions.MetadataRetrievalError,
        )
        if isinstance(error, transient):
            return CredentialsUnavailable(
                f"{self._what()} did not answer ({describe(error)}); check the network and the endpoint"
            )
        return ConfigurationError(
            f"{self._what()} cannot be asked ({describe(error)}); "
            "set AWS_REGION and AWS credentials the AWS way"
        )

    def _what(self) -> str:
        return f"Secrets Manager, asked for {self._secret_id!r},"


def region_of(secret_id: str) -> str | None:
    """
    Return the AWS region to ask for *secret_id*, None to leave it to boto3.

    An ARN knows its region.  For a name, ``AWS_REGION`` goes first: boto3 by itself looks only at
    ``AWS_DEFAULT_REGION`` and the profile, while Lambda, ECS and EKS set ``AWS_REGION``.

    Raises:
        ConfigurationError: *secret_id* starts like an ARN and is none of a secret.
    """
    if secret_id.startswith("arn:"):
        match = _ARN.fullmatch(secret_id)
        if match is None:
            raise ConfigurationError(
                f"{secret_id!r} is not the ARN of a secret; "
                "expected arn:aws:secretsmanager:<region>:<account>:secret:<name>"
            )
        return match["region"]
    return os.environ.get("AWS_REGION") or None


def _new_client(secret_id: str) -> Any:
    hide_secrets_of_botocore()
    import boto3  # noqa: PLC0415 - imported when needed
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        read_timeout=_READ_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        tcp_keepalive=True,
    )
    # A session of its own: the default one is shared, and making clients from it is not thread-safe.
    return boto3.session.Session().client("secretsmanager", region_name=region_of(secret_id), config=config)


def _code(error: "ClientError") -> str:
    return str(error.response.get("Error", {}).get("Code", "Unknown"))
