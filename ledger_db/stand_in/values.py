"""
What do the operations on values and versions do?

Each takes the store and a request of the right shape (`secret_requests.validate`), and returns AWS's answer
or raises `ServiceError`.  Rotation has its own module, and so has what knows nothing of values.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from ledger_db.stand_in import labels as secret_labels
from ledger_db.stand_in.filters import matching
from ledger_db.stand_in.model import CURRENT, Secret, ServiceError, Value, Version
from ledger_db.stand_in.requests import Request, Response, page_of, token_of, value_of
from ledger_db.stand_in.store import SecretStore

_MOST_TAGS = 50
_BATCH_PAGE = 20


def usable(secret: Secret) -> Secret:
    """
    The *secret* itself, unless it is scheduled for deletion.

    Raises:
        ServiceError: It is.
    """
    if secret.deletion_at is None:
        return secret
    raise ServiceError(
        "InvalidRequestException",
        "You can't perform this operation on the secret because it was marked for deletion.",
    )


def create_secret(store: SecretStore, request: Request) -> Response:
    """CreateSecret: repeating the same request, token and value included, answers as the first did."""
    name, value = request["Name"], value_of(request)
    token = None if value is None else token_of(request)
    now = store.now()

    def make(existing: Secret | None, arn: str) -> Secret:
        if existing is not None:
            return _created_already(existing, token, value)
        made = Secret(
            name=name,
            arn=arn,
            created_at=now,
            changed_at=now,
            description=request.get("Description"),
            kms_key_id=request.get("KmsKeyId"),
            tags=merged_tags({}, request.get("Tags") or []),
        )
        if value is None or token is None:
            return made
        return secret_labels.put_value(made, value, version_id=token, labels=(), now=now)

    secret = store.create(name, make)
    return _identity(secret) | ({} if token is None else {"VersionId": token})


def get_secret_value(store: SecretStore, request: Request) -> Response:
    """GetSecretValue: by version, by label, by both if they agree; AWSCURRENT by default."""
    secret = usable(store.find(request["SecretId"]))
    version, value = _picked(secret, request.get("VersionId"), request.get("VersionStage"))
    store.touch(secret, version)
    return _value_answer(secret, version, value)


def batch_get_secret_value(store: SecretStore, request: Request) -> Response:
    """BatchGetSecretValue: what cannot be read is listed, and does not fail the rest."""
    ids, filters = request.get("SecretIdList"), request.get("Filters")
    if bool(ids) == bool(filters):
        raise ServiceError(
            "InvalidParameterException", "Either 'SecretIdList' or 'Filters' must be provided, but not both."
        )
    if request.get("MaxResults") and not filters:
        raise ServiceError(
            "InvalidParameterException",
            "'Filters' not specified. 'Filters' must also be specified when 'MaxResults' is provided.",
        )
    found = [secret.arn for secret in matching(store.all(), filters or [], region=store.region)]
    page, more = page_of(list(ids or found), request, size=_BATCH_PAGE)
    values: list[Response] = []
    errors: list[Response] = []
    for secret_id in page:
        try:
            values.append(get_secret_value(store, {"SecretId": secret_id}))
        except ServiceError as error:
            errors.append({"SecretId": secret_id, "ErrorCode": error.code, "Message": error.message})
    return {"SecretValues": values, "Errors": errors, **more}


def put_secret_value(store: SecretStore, request: Request) -> Response:
    """PutSecretValue: a new version, whose labels leave their old holders."""
    value = value_of(request)
    if value is None:
        raise ServiceError("InvalidRequestException", "You must provide either SecretString or SecretBinary.")
    token, now = token_of(request), store.now()
    labels = tuple(request.get("VersionStages") or ())
    secret = store.change(
        request["SecretId"],
        lambda before: secret_labels.put_value(
            usable(before), value, version_id=token, labels=labels, now=now
        ),
    )
    return _identity(secret) | {"VersionId": token, "VersionStages": list(secret.versions[token].labels)}


def update_secret(store: SecretStore, request: Request) -> Response:
    """UpdateSecret: description, key, and if a value is given a new AWSCURRENT version."""
    value, now = value_of(request), store.now()
    token = None if value is None else token_of(request)

    def edit(before: Secret) -> Secret:
        secret = usable(before)
        if value is not None and token is not None:
            secret = secret_labels.put_value(secret, value, version_id=token, labels=(), now=now)
        description = request.get("Description", secret.description)
        key = request.get("KmsKeyId", secret.kms_key_id)
        if (description, key) == (secret.description, secret.kms_key_id):
            return secret
        return replace(secret, description=description, kms_key_id=key, changed_at=now)

    secret = store.change(request["SecretId"], edit)
    return _identity(secret) | ({} if token is None else {"VersionId": token})


def update_secret_version_stage(store: SecretStore, request: Request) -> Response:
    """UpdateSecretVersionStage: moves or removes a label if it is where the caller believes."""
    now = store.now()

    def edit(before: Secret) -> Secret:
        after = secret_labels.move(
            usable(before),
            request["VersionStage"],
            to=request.get("MoveToVersionId"),
            taken_from=request.get("RemoveFromVersionId"),
        )
        return before if after is before else replace(after, changed_at=now)

    return _identity(store.change(request["SecretId"], edit))


def delete_secret(store: SecretStore, request: Request) -> Response:
    """DeleteSecret: at the end of a recovery window, or at once."""
    days, force = request.get("RecoveryWindowInDays"), request.get("ForceDeleteWithoutRecovery", False)
    if days is not None and force:
        raise ServiceError(
            "InvalidParameterException",
            "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.",
        )
    if days is not None and not 7 <= days <= 30:
        raise ServiceError(
            "InvalidParameterException",
            "The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).",
        )
    if force:
        return _delete_at_once(store, request["SecretId"])
    end = store.now() + timedelta(days=days or 30).total_seconds()
    secret = store.change(request["SecretId"], lambda before: replace(usable(before), deletion_at=end))
    return _identity(secret) | {"DeletionDate": end}


def restore_secret(store: SecretStore, request: Request) -> Response:
    """RestoreSecret: as if it had never been deleted."""
    return _identity(store.change(request["SecretId"], lambda before: replace(before, deletion_at=None)))


def merged_tags(tags: dict[str, str], added: list[dict[str, Any]]) -> dict[str, str]:
    """
    The tags after *added* came to *tags*.

    Raises:
        ServiceError: There are too many.
    """
    merged = tags | {tag["Key"]: tag.get("Value", "") for tag in added}
    if len(merged) > _MOST_TAGS:
        raise ServiceError("InvalidParameterException", f"A secret can't have more than {_MOST_TAGS} tags.")
    return merged


def _created_already(existing: Secret, token: str | None, value: Value | None) -> Secret:
    if existing.deletion_at is not None:
        raise ServiceError(
            "InvalidRequestException",
            "You can't create this secret because a secret with this name is already scheduled for deletion.",
        )
    version = None if token is None else existing.versions.get(token)
    if version is None:
        raise ServiceError(
            "ResourceExistsException",
            f"The operation failed because the secret {existing.name} already exists.",
        )
    if version.value != value:
        raise secret_labels.token_in_use(existing, version.id)
    return existing


def _picked(secret: Secret, version_id: str | None, label: str | None) -> tuple[Version, Value]:
    if version_id is not None:
        version, wanted = secret.versions.get(version_id), f"VersionId: {version_id}"
    else:
        label = label or CURRENT
        version, wanted = secret_labels.holder(secret, label), f"staging label: {label}"
    if version is None or version.value is None:
        raise ServiceError(
            "ResourceNotFoundException", f"Secrets Manager can't find the specified secret value for {wanted}"
        )
    if label is not None and label not in version.labels:
        raise ServiceError(
            "InvalidRequestException",
            "You provided a VersionStage that is not associated to the provided VersionId.",
        )
    return version, version.value


def _value_answer(secret: Secret, version: Version, value: Value) -> Response:
    held = {"SecretBinary": value.binary} if value.text is None else {"SecretString": value.text}
    return _identity(secret) | {
        "VersionId": version.id,
        "VersionStages": list(version.labels),
        "CreatedDate": version.created_at,
        **held,
    }


def _delete_at_once(store: SecretStore, secret_id: str) -> Response:
    try:
        identity = _identity(store.find(secret_id))
        store.remove(secret_id)
    except ServiceError as error:
        # AWS: deleting by force what does not exist is no error, for the sake of scripts that clean up.
        if error.code != "ResourceNotFoundException":
            raise
        identity = {"ARN": store.new_arn(secret_id), "Name": secret_id}
    return identity | {"DeletionDate": store.now()}


def _identity(secret: Secret) -> Response:
    return {"ARN": secret.arn, "Name": secret.name}
