"""
Where do the staging labels go?

A label is on one version at most.  Moving AWSCURRENT drags AWSPREVIOUS to the version that AWSCURRENT left.
These are pure functions on a `Secret`; nothing here knows about locks, files or HTTP.
"""

from dataclasses import replace

from ledger_db.stand_in.model import CURRENT, PREVIOUS, Secret, ServiceError, Value, Version

_MOST_LABELS = 20
_MOST_VERSIONS = 100


def holder(secret: Secret, label: str) -> Version | None:
    """The version that carries *label*, if any does."""
    return next((version for version in secret.versions.values() if label in version.labels), None)


def attach(secret: Secret, label: str, *, version_id: str) -> Secret:
    """
    Put *label* on a version, and take it from the one that has it.

    AWSPREVIOUS is not put on the version that has AWSCURRENT: of the two in one request the latter counts.

    Raises:
        ServiceError: The secret would carry more labels than AWS allows.
    """
    before = holder(secret, label)
    if before is not None and before.id == version_id:
        return secret
    if label == PREVIOUS and CURRENT in secret.versions[version_id].labels:
        return secret
    if before is not None:
        secret = _without(secret, label, version_id=before.id)
    secret = _with(secret, label, version_id=version_id)
    if label == CURRENT:
        # A roll-back gives AWSCURRENT to the version that has AWSPREVIOUS.
        secret = _without(secret, PREVIOUS, version_id=version_id)
        if before is not None:
            secret = attach(secret, PREVIOUS, version_id=before.id)
    if sum(len(version.labels) for version in secret.versions.values()) > _MOST_LABELS:
        raise ServiceError(
            "LimitExceededException", f"A secret can't have more than {_MOST_LABELS} staging labels."
        )
    return secret


def put_value(
    secret: Secret, value: Value, *, version_id: str, labels: tuple[str, ...], now: float
) -> Secret:
    """
    Add a version with a value, or give the version that RotateSecret made its value.

    Repeating a call changes nothing: not even labels, which may have moved on since.

    Args:
        secret: The secret before.

        value: What the version shall hold.

        version_id: The ``ClientRequestToken`` of the request.

        labels: Which labels move to it; AWSCURRENT if empty.

        now: POSIX seconds.

    Returns:
        The very same *secret* if nothing changed.

    Raises:
        ServiceError: The version exists with another value: versions cannot be modified.
    """
    existing = secret.versions.get(version_id)
    if existing is not None and existing.value is not None:
        if existing.value == value:
            return secret
        raise token_in_use(secret, version_id)
    first = all(version.value is None for version in secret.versions.values())
    kept = () if existing is None else existing.labels
    secret = secret.with_version(Version(id=version_id, created_at=now, labels=kept, value=value))
    wanted = set(labels) or {CURRENT}
    # AWSCURRENT first, so that AWSPREVIOUS in the same request finds it there.
    for label in sorted(wanted | ({CURRENT} if first else set()), key=lambda label: label != CURRENT):
        secret = attach(secret, label, version_id=version_id)
    return replace(_without_oldest(secret), changed_at=now)


def move(secret: Secret, label: str, *, to: str | None, taken_from: str | None) -> Secret:
    """
    Do what UpdateSecretVersionStage does.

    *taken_from* is compared with the holder: of two callers that race, the second is refused.

    Raises:
        ServiceError: No such version, *taken_from* is missing or does not carry the label, or AWSCURRENT
            would be on no version at all.
    """
    _check_versions_exist(secret, to, taken_from)
    held = holder(secret, label)
    if taken_from is not None and (held is None or held.id != taken_from):
        raise _invalid(f"Version stage {label} not found in version {taken_from}")
    if to is not None and held is not None and held.id != to and taken_from is None:
        raise _invalid(
            f"The parameter RemoveFromVersionId can't be empty. Staging label {label} is currently attached "
            f"to version {held.id}, so you must explicitly reference that version in RemoveFromVersionId."
        )
    if to is not None:
        return _attach_unless_senseless(secret, label, version_id=to)
    if taken_from is None:
        raise _invalid("You must provide a value for MoveToVersionId or RemoveFromVersionId.")
    if label == CURRENT:
        raise _invalid(
            "You can only move staging label AWSCURRENT to a different secret version. "
            "It can't be completely removed."
        )
    return _without(secret, label, version_id=taken_from)


def token_in_use(secret: Secret, token: str) -> ServiceError:
    """The refusal for a token whose version has another value."""
    return ServiceError(
        "ResourceExistsException",
        f"You can't use ClientRequestToken {token} because that value is already in use for a version of "
        f"secret {secret.arn}.",
    )


def _attach_unless_senseless(secret: Secret, label: str, *, version_id: str) -> Secret:
    # AWS documents nothing here.  Everything that reads labels relies on AWSPREVIOUS being another version.
    if label == PREVIOUS and CURRENT in secret.versions[version_id].labels:
        raise _invalid("You can't attach staging label AWSPREVIOUS to the version that has AWSCURRENT.")
    return attach(secret, label, version_id=version_id)


def _check_versions_exist(secret: Secret, *version_ids: str | None) -> None:
    for version_id in version_ids:
        if version_id is not None and version_id not in secret.versions:
            raise _invalid(f"Not a valid version: {version_id}")


def _with(secret: Secret, label: str, *, version_id: str) -> Secret:
    version = secret.versions[version_id]
    return secret.with_version(replace(version, labels=tuple(sorted({*version.labels, label}))))


def _without(secret: Secret, label: str, *, version_id: str) -> Secret:
    version = secret.versions[version_id]
    return secret.with_version(
        replace(version, labels=tuple(kept for kept in version.labels if kept != label))
    )


def _without_oldest(secret: Secret) -> Secret:
    # AWS forgets deprecated versions beyond a hundred, though never on their first day.  Here they go at
    # once: thousands of rotations in an hour are what a sandbox is for, and each makes the state file longer.
    deprecated = [version.id for version in secret.versions.values() if not version.labels]
    for version_id in deprecated[: max(0, len(secret.versions) - _MOST_VERSIONS)]:
        secret = secret.without_version(version_id)
    return secret


def _invalid(message: str) -> ServiceError:
    return ServiceError("InvalidParameterException", message)
