"""What does the Secrets Manager stand-in remember about a secret?"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

Label = Literal["AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"]

CURRENT: Label = "AWSCURRENT"
PENDING: Label = "AWSPENDING"
PREVIOUS: Label = "AWSPREVIOUS"


class ServiceError(Exception):
    """
    An error answer of the service, as it goes over the wire; it never leaves the sandbox as an exception.

    Attributes:
        code: AWS's name of the error, ``ResourceNotFoundException`` for example.

        message: AWS's text; never a secret value.

        status: The HTTP status.  Secrets Manager answers 400 to everything that is the client's fault.
    """

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class Value:
    """
    A secret value: either text or bytes.

    Attributes:
        text: ``SecretString``; never part of ``repr()``.

        binary: ``SecretBinary`` in base64, as it travels; never part of ``repr()``.
    """

    text: str | None = field(default=None, repr=False)
    binary: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Version:
    """
    One version of a secret.

    Attributes:
        id: The ``ClientRequestToken`` that made it.

        created_at: POSIX seconds.

        labels: Its staging labels, sorted as AWS returns them.  A version without any is deprecated.

        value: None for the version that RotateSecret makes before the rotation function has run.

        last_accessed_at: POSIX seconds of the beginning of the day it was last read on; None for never.
    """

    id: str
    created_at: float
    labels: tuple[str, ...] = ()
    value: Value | None = None
    last_accessed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Secret:
    """
    A secret with all its versions.  Replaced whole, never changed.

    Attributes:
        versions: By version id, oldest first.

        rotation_enabled: None if rotation was never configured, as DescribeSecret distinguishes.

        deletion_at: POSIX seconds at which the recovery window ends; None unless it is to be deleted.
    """

    name: str
    arn: str
    created_at: float
    changed_at: float
    versions: Mapping[str, Version] = field(default_factory=dict)
    description: str | None = None
    kms_key_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    policy: str | None = None
    rotation_enabled: bool | None = None
    rotation_function_arn: str | None = None
    rotation_rules: Mapping[str, Any] = field(default_factory=dict)
    last_rotated_at: float | None = None
    last_accessed_at: float | None = None
    deletion_at: float | None = None

    def with_version(self, version: Version) -> Self:
        """This secret with *version* added, or put in place of the one with its id."""
        return replace(self, versions={**self.versions, version.id: version})

    def without_version(self, version_id: str) -> Self:
        """This secret without the version *version_id*, which may be missing already."""
        return replace(self, versions={key: kept for key, kept in self.versions.items() if key != version_id})

    def stages(self) -> dict[str, list[str]]:
        """The labels of every version that has any, by version id."""
        return {version.id: list(version.labels) for version in self.versions.values() if version.labels}

    def to_json(self) -> dict[str, Any]:
        """What the state file holds.  It contains the secret values."""
        versions = [asdict(version) for version in self.versions.values()]
        shallow = {name: getattr(self, name) for name in self.__slots__ if name != "versions"}
        plain = {name: dict(item) if isinstance(item, Mapping) else item for name, item in shallow.items()}
        return {**plain, "versions": versions}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """
        Read back what `to_json` wrote.

        Raises:
            KeyError, TypeError: The document is not one of ours.
        """
        versions = [_version_from_json(version) for version in document["versions"]]
        return cls(**{**document, "versions": {version.id: version for version in versions}})


def _version_from_json(document: Mapping[str, Any]) -> Version:
    value = None if document["value"] is None else Value(**document["value"])
    return Version(**{**document, "value": value, "labels": tuple(document["labels"])})
