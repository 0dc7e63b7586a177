"""Which secrets match the filters of ListSecrets and BatchGetSecretValue?"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ledger_db.stand_in.model import Secret, ServiceError

_KEYS = ("description", "name", "tag-key", "tag-value", "primary-region", "owning-service", "all")


def matching(secrets: Iterable[Secret], filters: list[Mapping[str, Any]], *, region: str) -> list[Secret]:
    """
    The secrets that match every filter; a filter matches if any of its values does.

    Raises:
        ServiceError: AWS does not know the key of a filter.
    """
    for position, one in enumerate(filters, start=1):
        if one.get("Key") not in _KEYS:
            raise ServiceError(
                "ValidationException",
                f"1 validation error detected: Value '{one.get('Key')}' at 'filters.{position}.member.key' "
                f"failed to satisfy constraint: Member must satisfy enum value set: [{', '.join(_KEYS)}]",
            )
    return [secret for secret in secrets if all(_matches(secret, one, region) for one in filters)]


def _matches(secret: Secret, one: Mapping[str, Any], region: str) -> bool:
    key = one["Key"]
    return any(
        not _holds(secret, key, value[1:], region)
        if value.startswith("!")
        else _holds(secret, key, value, region)
        for value in one.get("Values", [])
    )


def _holds(secret: Secret, key: str, value: str, region: str) -> bool:
    if key == "all":
        return _has_words(_attributes(secret), value)
    if key == "description":
        return _has_words([secret.description or ""], value)
    return any(attribute.startswith(value) for attribute in _values(secret, key, region))


def _values(secret: Secret, key: str, region: str) -> list[str]:
    match key:
        case "name":
            return [secret.name]
        case "tag-key":
            return list(secret.tags)
        case "tag-value":
            return list(secret.tags.values())
        case "primary-region":
            return [region]
    return [secret.tags[tag] for tag in ("aws:secretsmanager:owningService",) if tag in secret.tags]


def _attributes(secret: Secret) -> list[str]:
    return [secret.name, secret.description or "", *secret.tags, *secret.tags.values()]


def _has_words(attributes: list[str], value: str) -> bool:
    """AWS breaks both into words and compares their beginnings, whatever the case."""
    wanted = _words(value)
    return bool(wanted) and any(
        all(any(word.startswith(start) for word in _words(attribute)) for start in wanted)
        for attribute in attributes
    )


def _words(text: str) -> list[str]:
    return [word.lower() for word in re.split(r"[\s/_+=.@-]+", text) if word]
