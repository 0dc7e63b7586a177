"""Is this request well-formed?  The limits and texts of AWS, before anything is looked up."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ledger_db.stand_in.model import ServiceError, Value

_TYPE_NAMES: Mapping[type, str] = {
    str: "String",
    int: "Integer",
    bool: "Boolean",
    list: "List",
    dict: "Structure",
}

Request = Mapping[str, Any]
Response = dict[str, Any]

_NAME = re.compile(r"[A-Za-z0-9/_+=.@!-]+")


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: type = str
    least: int = 0
    most: int | None = None
    allowed: tuple[str, ...] = ()
    sensitive: bool = False


_MOST_BYTES = 65_536

_RULES: Mapping[str, _Rule] = {
    "AddReplicaRegions": _Rule(list),
    "BlockPublicPolicy": _Rule(bool),
    "ClientRequestToken": _Rule(str),
    "Description": _Rule(str, 0, 2048),
    "ExcludeCharacters": _Rule(str, 0, 4096),
    "ExcludeLowercase": _Rule(bool),
    "ExcludeNumbers": _Rule(bool),
    "ExcludePunctuation": _Rule(bool),
    "ExcludeUppercase": _Rule(bool),
    "Filters": _Rule(list, 0, 10),
    "ForceDeleteWithoutRecovery": _Rule(bool),
    "IncludeDeprecated": _Rule(bool),
    "IncludePlannedDeletion": _Rule(bool),
    "IncludeSpace": _Rule(bool),
    "KmsKeyId": _Rule(str, 0, 2048),
    "MaxResults": _Rule(int, 1, 100),
    "MoveToVersionId": _Rule(str, 32, 64),
    "Name": _Rule(str, 1, 512),
    "NextToken": _Rule(str, 1, 4096),
    "PasswordLength": _Rule(int, 1, 4096),
    "RecoveryWindowInDays": _Rule(int),
    "RemoveFromVersionId": _Rule(str, 32, 64),
    "RequireEachIncludedType": _Rule(bool),
    "ResourcePolicy": _Rule(str, 1, 20_480),
    "RotateImmediately": _Rule(bool),
    "RotationLambdaARN": _Rule(str, 0, 2048),
    "RotationRules": _Rule(dict),
    "RotationToken": _Rule(str, 36, 256, sensitive=True),
    "SecretBinary": _Rule(str, 1, _MOST_BYTES, sensitive=True),
    "SecretId": _Rule(str, 1, 2048),
    "SecretIdList": _Rule(list, 1, 20),
    "SecretString": _Rule(str, 1, _MOST_BYTES, sensitive=True),
    "SortBy": _Rule(allowed=("created-date", "last-accessed-date", "last-changed-date", "name")),
    "SortOrder": _Rule(allowed=("asc", "desc")),
    "TagKeys": _Rule(list),
    "Tags": _Rule(list),
    "VersionId": _Rule(str, 32, 64),
    "VersionStage": _Rule(str, 1, 256),
    "VersionStages": _Rule(list, 1, 20),
}

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "BatchGetSecretValue": (),
    "CreateSecret": ("Name",),
    "GetRandomPassword": (),
    "ListSecrets": (),
    "PutResourcePolicy": ("SecretId", "ResourcePolicy"),
    "TagResource": ("SecretId", "Tags"),
    "UntagResource": ("SecretId", "TagKeys"),
    "UpdateSecretVersionStage": ("SecretId", "VersionStage"),
    "ValidateResourcePolicy": ("ResourcePolicy",),
}


def validate(operation: str, request: Request) -> None:
    """
    Check the shape of a request: what is missing, of the wrong type, too short, too long, or not in a list.

    Raises:
        ServiceError: ``ValidationException`` with all violations, or ``SerializationException`` for a wrong
            type.  The message never quotes a sensitive field.
    """
    complaints = [
        f"Value null at '{_member(field)}' failed to satisfy constraint: Member must not be null"
        for field in _REQUIRED.get(operation, ("SecretId",))
        if request.get(field) is None
    ]
    for field, given in request.items():
        if field in _RULES and given is not None:
            complaints += _complaints(field, given, _RULES[field])
    if complaints:
        count = f"{len(complaints)} validation error{'s' if len(complaints) > 1 else ''} detected"
        raise ServiceError("ValidationException", f"{count}: {'; '.join(complaints)}")
    for name in (request.get("Name"), request.get("SecretId")):
        if name is not None and not name.startswith("arn:") and not _NAME.fullmatch(name):
            raise ServiceError(
                "ValidationException",
                "Invalid name. Must be a valid name containing alphanumeric characters, or any of the "
                "following: -/_+=.@!",
            )


def value_of(request: Request) -> Value | None:
    """
    The secret value that a request carries, if it carries one.

    Raises:
        ServiceError: It carries two, or ``SecretBinary`` is not base64.
    """
    text, binary = request.get("SecretString"), request.get("SecretBinary")
    if text is not None and binary is not None:
        raise ServiceError(
            "InvalidParameterException",
            "You can't specify both a binary secret value and a string secret value in the same secret.",
        )
    if binary is not None:
        # Normalised, so that the same bytes sent twice compare equal.
        return Value(binary=base64.b64encode(_decoded(binary)).decode("ascii"))
    return None if text is None else Value(text=text)


def token_of(request: Request) -> str:
    """
    The id of the version that a request wants to make.  SDKs always send one.

    Raises:
        ServiceError: It is missing, or not 32 to 64 characters long.
    """
    token = request.get("ClientRequestToken")
    if token is None:
        raise ServiceError(
            "InvalidRequestException",
            "You must provide a ClientRequestToken value. We recommend a UUID-type value.",
        )
    if not 32 <= len(token) <= 64:
        raise ServiceError("InvalidParameterException", "ClientRequestToken must be 32-64 characters long.")
    return str(token)


def page_of(items: list[Any], request: Request, *, size: int = 100) -> tuple[list[Any], Response]:
    """
    Cut one page out of *items*.

    Returns:
        The page, and what to add to the answer: ``NextToken`` if there is more.

    Raises:
        ServiceError: ``NextToken`` is not one that we gave out.
    """
    start = 0
    if token := request.get("NextToken"):
        try:
            start = int(base64.b64decode(token, validate=True).decode("ascii").removeprefix("from:"))
        except (ValueError, UnicodeDecodeError):
            raise ServiceError("InvalidNextTokenException", "The NextToken value is invalid.") from None
    stop = start + int(request.get("MaxResults") or size)
    more = {"NextToken": base64.b64encode(f"from:{stop}".encode()).decode()} if stop < len(items) else {}
    return items[start:stop], more


def _complaints(field: str, given: object, rule: _Rule) -> list[str]:
    # bool is an int to Python, but not to JSON.
    if not isinstance(given, rule.kind) or (rule.kind is int and isinstance(given, bool)):
        raise ServiceError(
            "SerializationException", f"{_TYPE_NAMES[rule.kind]} value expected for '{_member(field)}'."
        )
    quoted = "Value" if rule.sensitive else f"Value '{given}'"
    subject = f"{quoted} at '{_member(field)}' failed to satisfy constraint: Member must"
    if rule.allowed and given not in rule.allowed:
        return [f"{subject} satisfy enum value set: [{', '.join(rule.allowed)}]"]
    size, noun = _size(field, given)
    if size < rule.least:
        return [f"{subject} have {noun} greater than or equal to {rule.least}"]
    if rule.most is not None and size > rule.most:
        return [f"{subject} have {noun} less than or equal to {rule.most}"]
    return []


def _size(field: str, given: object) -> tuple[int, str]:
    match given:
        case bool():
            return 0, "value"
        case int():
            return given, "value"
        case str() if field == "SecretBinary":
            return len(_decoded(given)), "length"
        case str() if field == "SecretString":
            return len(given.encode()), "length"
        case str() | list():
            return len(given), "length"
    return 0, "length"


def _decoded(binary: str) -> bytes:
    try:
        return base64.b64decode(binary, validate=True)
    except (binascii.Error, ValueError):
        # "from None": the chain would hold the value.
        raise ServiceError("SerializationException", "SecretBinary is not valid base64.") from None


def _member(field: str) -> str:
    return field[0].lower() + field[1:]
