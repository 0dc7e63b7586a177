"""Credentials out of AWS Secrets Manager."""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ledger_db.answers.aws_client import make_client, region_of
from ledger_db.answers.secret import AnswerProblem, Server
from ledger_db.credentials.from_secret import Address, credentials_from
from ledger_db.credentials.model import Credentials, Stage
from ledger_db.errors import LedgerDBError

if TYPE_CHECKING:
    from ledger_db.answers.aws_errors import Refusal


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

        Raises:
            ConfigurationError: *secret_id* starts like an ARN and is none of a secret.
        """
        self._secret_id = secret_id
        self._region = region_of(secret_id)
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
        try:
            # Kept in no variable of this frame, which may be shown with an error.
            return credentials_from(
                self._get_secret_value(stage), self._server, secret_id=self._secret_id, address=self._address
            )
        except AnswerProblem as error:
            raise self._error(_refusal_of(error)) from error

    def forget_client(self) -> None:
        """Make a new client at the next read: after a fork, sockets would be shared with the parent."""
        self._making = threading.Lock()
        self._client = None

    def _get_secret_value(self, stage: Stage) -> Mapping[str, Any] | None:
        """Return AWS's answer; None if no value is labelled *stage*, unless that is a must."""
        try:
            answer: Mapping[str, Any] = self._made_client().get_secret_value(
                SecretId=self._secret_id, VersionStage=stage
            )
        except Exception as error:
            refusal = _refusal_of(error)
            if stage != "AWSCURRENT" and refusal.is_missing:
                # No such label, or a version without a value: AWS creates one when a rotation starts.
                return None
            if refusal.outdates_client:
                self._client = None
            raise self._error(refusal) from error
        return answer

    def _made_client(self) -> Any:
        with self._making:
            if self._client is None:
                self._client = make_client("secretsmanager", region=self._region)
            return self._client

    def _error(self, refusal: "Refusal") -> LedgerDBError:
        return refusal.as_error("Secrets Manager", repr(self._secret_id))


def _refusal_of(error: Exception) -> "Refusal":
    # Here, not above: most starts never ask what AWS means.
    from ledger_db.answers.aws_errors import refusal_of  # noqa: PLC0415

    return refusal_of(error, "secretsmanager")
