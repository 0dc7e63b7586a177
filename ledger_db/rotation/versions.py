"""
How are the versions and labels of one secret read and moved during a rotation?

Everything here may be repeated with the same token, and may meet somebody else who does the same.  Reads come
before writes; the writes that count, moving AWSCURRENT and taking AWSPENDING, are compare-and-swaps.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from ledger_db.answers.secret import AnswerProblem, Secret, SecretProblem, secret_in
from ledger_db.backoff import Backoff
from ledger_db.rotation.failures import LabelsMoved, Stopped, asking, stopped_by
from ledger_db.rotation.labels import CURRENT, MADE, PENDING, PREVIOUS, Labels
from ledger_db.rotation.protocol import Deadline

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

VISIBLE_SECONDS = 5.0
_DELETED: Final = "marked for deletion"
_WAIT = Backoff(first_seconds=0.05, most_seconds=1.0)


class Versions:
    """
    The versions of one secret.

    Args:
        client: For Secrets Manager.

        secret_id: Name or ARN.

        deadline: For everything that is done through this object.

        rotation_token: Given by Secrets Manager where the function works with somebody else's permissions;
            sensitive, so it is passed on and nothing else.

        visible_seconds: How long a value that was put just now may take to be seen.

        sleep: Waits.
    """

    def __init__(
        self,
        client: "SecretsManagerClient",
        secret_id: str,
        deadline: Deadline,
        *,
        rotation_token: str | None = None,
        visible_seconds: float = VISIBLE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._secret_id = secret_id
        self._deadline = deadline
        self._rotation_token = rotation_token
        self._visible_seconds = visible_seconds
        self._sleep = sleep

    def labels(self) -> Labels:
        """Return who carries which label now."""
        with self._translated("DescribeSecret"):
            answer = self._client.describe_secret(SecretId=self._secret_id)
            arn = answer["ARN"]
        versions = answer.get("VersionIdsToStages", {})
        return Labels(
            arn=arn,
            name=answer.get("Name", self._secret_id),
            rotation_enabled=answer.get("RotationEnabled"),
            holders={label: version for version, labels in versions.items() for label in labels},
        )

    def current(self) -> Secret:
        """
        Return what AWSCURRENT holds.

        Raises:
            Stopped: It holds nothing, or could not be read; AWS says which.
        """
        return self._value(VersionStage=CURRENT)

    def previous(self) -> Secret | None:
        """Return what AWSPREVIOUS holds; None if it holds nothing, or nothing that can be used."""
        with suppress(SecretProblem):
            return self._read(VersionStage=PREVIOUS)
        return None

    def value_of(self, version: str) -> Secret | None:
        """Return the value of a *version*, whatever its labels; None if it has none, or is not there."""
        return self._read(VersionId=version)

    def others(self) -> Iterator[Secret]:
        """
        Yield every version that holds a usable value, AWSPREVIOUS first.

        Also those without a label, which AWS keeps for a while: a rotation that was given up may have left
        its password on the server.
        """
        previous = self.previous()
        if previous is not None:
            yield previous
        for version in self._listed():
            with suppress(SecretProblem):
                found = self.value_of(version)
                if found is not None:
                    yield found

    def _listed(self) -> Iterator[str]:
        page: Mapping[str, Any] = {}
        while not page or "NextToken" in page:
            going_on = {"NextToken": page["NextToken"]} if page else {}
            with self._translated("ListSecretVersionIds"):
                page = self._client.list_secret_version_ids(
                    SecretId=self._secret_id, IncludeDeprecated=True, **going_on
                )
            for version in page["Versions"]:
                yield version["VersionId"]

    def pending(self, token: str, *, patient: bool = True) -> Secret | None:
        """
        Return the value of the version *token*, if that carries AWSPENDING.

        Args:
            token: The version.

            patient: Wait a while for it: Secrets Manager may not show at once what it has accepted.  Not for
                what has become AWSCURRENT already.
        """
        give_up = Deadline.after(self._visible_seconds if patient else 0.0)
        for attempt in count(1):
            found = self._read(VersionId=token, VersionStage=PENDING)
            if found is not None or give_up.remaining_seconds == 0.0 or self.labels().current == token:
                break
            wait = self._deadline.wait_seconds(_WAIT.after(attempt), what="the new version to become visible")
            self._sleep(wait)
        return found

    def put(self, token: str, fields: Mapping[str, Any], *, label: str, is_binary: bool = False) -> bool:
        """
        Give the version *token* its value, and the *label*, whoever has that.

        Args:
            token: The version.

            fields: The value.

            label: Which.

            is_binary: Store it as SecretBinary, for those who read the version before in that form.

        Returns:
            False if the version has another value already: an earlier attempt was here, whose answer was
            lost.  That value counts; read it again.
        """
        passed_on = {} if self._rotation_token is None else {"RotationToken": self._rotation_token}
        text = json.dumps(dict(fields))
        value: Mapping[str, Any] = {"SecretBinary": text.encode()} if is_binary else {"SecretString": text}
        try:
            with self._translated("PutSecretValue", but=("ResourceExistsException",), repeat=False):
                self._client.put_secret_value(
                    SecretId=self._secret_id,
                    ClientRequestToken=token,
                    VersionStages=[label],
                    **value,
                    **passed_on,
                )
        except self._client.exceptions.ResourceExistsException:
            return False
        return True

    def claim_pending(self, token: str, *, instead_of: str | None) -> bool:
        """
        Give AWSPENDING to the version *token*, unless somebody else has it.

        Args:
            token: The version.

            instead_of: Who had the label when it was looked at; None if nobody did.

        Returns:
            False if it is on another version by now: one of two that begin at once.
        """
        # Without the version to take it from AWS refuses, where there is one: a compare-and-swap too.
        taken_from = {} if instead_of is None else {"RemoveFromVersionId": instead_of}
        try:
            with self._translated("UpdateSecretVersionStage", but=("InvalidParameterException",)):
                self._client.update_secret_version_stage(
                    SecretId=self._secret_id, VersionStage=PENDING, MoveToVersionId=token, **taken_from
                )
        except self._client.exceptions.InvalidParameterException:
            return self.labels().holders.get(PENDING) == token
        return True

    def promote(self, token: str, *, instead_of: str) -> None:
        """
        Move AWSCURRENT from the version *instead_of* to *token*: all or nothing.

        Raises:
            Stopped: AWSCURRENT was on neither.
        """
        try:
            with self._translated("UpdateSecretVersionStage", but=("InvalidParameterException",)):
                self._client.update_secret_version_stage(
                    SecretId=self._secret_id,
                    VersionStage=CURRENT,
                    MoveToVersionId=token,
                    RemoveFromVersionId=instead_of,
                )
        except self._client.exceptions.InvalidParameterException as error:
            # Our own call, repeated by the SDK after its answer was lost, is refused as well.
            if self.labels().current != token:
                raise Stopped(
                    LabelsMoved, f"AWSCURRENT is no longer on version {instead_of}, so it was not moved"
                ) from error

    def remove_pending(self, version: str) -> bool:
        """Take AWSPENDING from *version*; False if somebody else has done so."""
        return self._remove(PENDING, version)

    def remove_mark(self, version: str) -> None:
        """Take the label of what is half made from *version*; nothing happens if it is not there."""
        self._remove(MADE, version)

    def _remove(self, label: str, version: str) -> bool:
        try:
            with self._translated("UpdateSecretVersionStage", but=("InvalidParameterException",)):
                self._client.update_secret_version_stage(
                    SecretId=self._secret_id, VersionStage=label, RemoveFromVersionId=version
                )
        except self._client.exceptions.InvalidParameterException as error:
            if self.labels().holders.get(label) == version:
                raise Stopped(LabelsMoved, f"{label} could not be taken from version {version}") from error
            return False
        return True

    def _read(self, **which: str) -> Secret | None:
        missing, moved = "ResourceNotFoundException", "InvalidRequestException"
        # The second is what AWS says if the version exists and the label is on another.  Where not both were
        # named it is a secret that is marked for deletion.
        no_value = (missing, moved) if {"VersionId", "VersionStage"} <= which.keys() else (missing,)
        try:
            return self._value(but=no_value, **which)
        except self._client.exceptions.ResourceNotFoundException:
            return None
        except self._client.exceptions.InvalidRequestException as error:
            # AWS has one code for both, and its sentence is English everywhere.
            if _DELETED in str(error):
                raise stopped_by(error, "secretsmanager", "GetSecretValue of Secrets Manager") from error
            return None

    def _value(self, *, but: tuple[str, ...] = (), **which: str) -> Secret:
        with self._translated("GetSecretValue", but=but):
            answer = self._client.get_secret_value(SecretId=self._secret_id, **which)
        try:
            return secret_in(answer, name=self._secret_id)
        except AnswerProblem as error:
            raise stopped_by(error, "secretsmanager", "GetSecretValue of Secrets Manager") from error

    @contextmanager
    def _translated(
        self, operation: str, *, but: tuple[str, ...] = (), repeat: bool = True
    ) -> Iterator[None]:
        """Make a `Stopped` of every refusal, *but* those that are an answer to the caller."""
        what = f"{operation} of Secrets Manager"
        self._deadline.wait_seconds(0.0, what=what)
        with asking("secretsmanager", what, but=but, repeat=repeat):
            yield
