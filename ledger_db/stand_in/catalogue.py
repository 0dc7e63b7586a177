"""What do the operations do that know nothing of values: describe, list, tag, policies?"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ledger_db.stand_in.filters import matching
from ledger_db.stand_in.model import Secret, ServiceError
from ledger_db.stand_in.requests import Request, Response, page_of
from ledger_db.stand_in.store import SecretStore
from ledger_db.stand_in.values import merged_tags, usable

_SORT_KEYS: dict[str, Callable[[Secret], Any]] = {
    "created-date": lambda secret: secret.created_at,
    "last-accessed-date": lambda secret: secret.last_accessed_at or 0.0,
    "last-changed-date": lambda secret: secret.changed_at,
    "name": lambda secret: secret.name,
}


def describe_secret(store: SecretStore, request: Request) -> Response:
    """DescribeSecret: works on a secret that is scheduled for deletion, too."""
    secret = store.find(request["SecretId"])
    return _entry(secret) | ({"VersionIdsToStages": secret.stages()} if secret.stages() else {})


def list_secrets(store: SecretStore, request: Request) -> Response:
    """ListSecrets: filtered, sorted, in pages."""
    found = matching(store.all(), request.get("Filters") or [], region=store.region)
    if not request.get("IncludePlannedDeletion"):
        found = [secret for secret in found if secret.deletion_at is None]
    key = _SORT_KEYS[request.get("SortBy") or "created-date"]
    found.sort(key=key, reverse=request.get("SortOrder") == "desc")
    page, more = page_of(found, request)
    entries = [
        _entry(secret) | ({"SecretVersionsToStages": secret.stages()} if secret.stages() else {})
        for secret in page
    ]
    return {"SecretList": entries, **more}


def list_secret_version_ids(store: SecretStore, request: Request) -> Response:
    """ListSecretVersionIds: versions with a value; those without a label only if asked for."""
    secret = store.find(request["SecretId"])
    versions = [
        version
        for version in secret.versions.values()
        if version.value is not None and (version.labels or request.get("IncludeDeprecated"))
    ]
    page, more = page_of(versions, request)
    entries = [
        _without_nothing(
            {
                "VersionId": version.id,
                "VersionStages": list(version.labels) or None,
                "CreatedDate": version.created_at,
                "LastAccessedDate": version.last_accessed_at,
                "KmsKeyIds": [secret.kms_key_id or "DefaultEncryptionKey"],
            }
        )
        for version in page
    ]
    return _identity(secret) | {"Versions": entries, **more}


def tag_resource(store: SecretStore, request: Request) -> Response:
    """TagResource: adds tags, and replaces those with the same key."""
    store.change(
        request["SecretId"],
        lambda before: replace(usable(before), tags=merged_tags(dict(before.tags), request["Tags"])),
    )
    return {}


def untag_resource(store: SecretStore, request: Request) -> Response:
    """UntagResource: removing a tag that is not there is no error."""
    gone = set(request["TagKeys"])
    store.change(
        request["SecretId"],
        lambda before: replace(
            usable(before), tags={key: value for key, value in before.tags.items() if key not in gone}
        ),
    )
    return {}


def put_resource_policy(store: SecretStore, request: Request) -> Response:
    """PutResourcePolicy: kept and given back; the stand-in does not enforce it."""
    policy = request["ResourcePolicy"]
    if _is_public(_parsed(policy)) and request.get("BlockPublicPolicy"):
        raise ServiceError(
            "PublicPolicyException",
            "The BlockPublicPolicy parameter is set to true, and the resource policy did not prevent broad "
            "access to the secret.",
        )
    return _identity(store.change(request["SecretId"], lambda before: replace(usable(before), policy=policy)))


def get_resource_policy(store: SecretStore, request: Request) -> Response:
    """GetResourcePolicy: without ``ResourcePolicy`` if none was put."""
    secret = usable(store.find(request["SecretId"]))
    return _identity(secret) | _without_nothing({"ResourcePolicy": secret.policy})


def delete_resource_policy(store: SecretStore, request: Request) -> Response:
    """DeleteResourcePolicy: deleting what is not there is no error."""
    return _identity(store.change(request["SecretId"], lambda before: replace(usable(before), policy=None)))


def validate_resource_policy(store: SecretStore, request: Request) -> Response:
    """ValidateResourcePolicy: says whether the policy is open to everybody."""
    if request.get("SecretId") is not None:
        usable(store.find(request["SecretId"]))
    if not _is_public(_parsed(request["ResourcePolicy"])):
        return {"PolicyValidationPassed": True, "ValidationErrors": []}
    problem = {
        "CheckName": "PublicPolicy",
        "ErrorMessage": "The policy grants access to a wide range of principals.",
    }
    return {"PolicyValidationPassed": False, "ValidationErrors": [problem]}


def _entry(secret: Secret) -> Response:
    return _identity(secret) | _without_nothing(
        {
            "Description": secret.description,
            "KmsKeyId": secret.kms_key_id,
            "RotationEnabled": secret.rotation_enabled,
            "RotationLambdaARN": secret.rotation_function_arn,
            "RotationRules": dict(secret.rotation_rules) or None,
            "LastRotatedDate": secret.last_rotated_at,
            "LastChangedDate": secret.changed_at,
            "LastAccessedDate": secret.last_accessed_at,
            "NextRotationDate": _next_rotation_at(secret),
            "DeletedDate": secret.deletion_at,
            "CreatedDate": secret.created_at,
            "Tags": [{"Key": key, "Value": value} for key, value in secret.tags.items()] or None,
        }
    )


def _next_rotation_at(secret: Secret) -> float | None:
    days = secret.rotation_rules.get("AutomaticallyAfterDays")
    if not secret.rotation_enabled or days is None:
        return None
    return (secret.last_rotated_at or secret.changed_at) + float(days) * 86_400.0


def _parsed(policy: str) -> list[dict[str, Any]]:
    try:
        document = json.loads(policy)
    except ValueError:
        raise ServiceError(
            "MalformedPolicyDocumentException", "This resource policy contains invalid Json."
        ) from None
    statements = document.get("Statement") if isinstance(document, dict) else None
    statements = [statements] if isinstance(statements, dict) else statements
    if not isinstance(statements, list) or not all(
        isinstance(one, dict) and "Effect" in one for one in statements
    ):
        raise ServiceError(
            "MalformedPolicyDocumentException", "This resource policy contains a syntax error."
        )
    return statements


def _is_public(statements: list[dict[str, Any]]) -> bool:
    return any(
        one["Effect"] == "Allow" and one.get("Principal") in ("*", {"AWS": "*"}) and not one.get("Condition")
        for one in statements
    )


def _identity(secret: Secret) -> Response:
    return {"ARN": secret.arn, "Name": secret.name}


def _without_nothing(entries: Response) -> Response:
    return {key: value for key, value in entries.items() if value is not None}
