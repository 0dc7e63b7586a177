"""What would a change set do, and what of it may nobody overlook?"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

# What is in them is in no other resource.
_SERVERS: Final = ("AWS::ElastiCache::ReplicationGroup", "AWS::RDS::DBInstance")
_REDIS_USERS: Final = (("RedisUser", "redis", "services"), ("RedisAnnouncer", "announce", "the functions"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    What would happen to one resource.

    Attributes:
        action: ``Add``, ``Modify``, ``Remove``.

        name: Its logical id.

        kind: Its type.

        replaced: A new one would or might take its place.
    """

    action: str
    name: str
    kind: str
    replaced: bool

    def __str__(self) -> str:
        return f"  {self.action:<8} {self.name} ({self.kind}) {'REPLACED' if self.replaced else ''}".rstrip()


def changes_of(cloudformation: Any, change_set: str) -> tuple[Change, ...]:
    """Read a change set, all pages of it."""
    pages = cloudformation.get_paginator("describe_change_set").paginate(ChangeSetName=change_set)
    found = [change["ResourceChange"] for page in pages for change in page["Changes"]]
    return tuple(
        Change(
            action=what["Action"],
            name=what["LogicalResourceId"],
            kind=what["ResourceType"],
            # Conditional: CloudFormation finds out while it is at it, and that is too late to ask.
            replaced=what.get("Replacement") in {"True", "Conditional"},
        )
        for what in found
    )


def servers_lost(changes: Sequence[Change], *, agreed: Collection[str]) -> list[str]:
    """Return the servers that would go, with what is in them, and that nobody has *agreed* to lose."""
    return [
        change.name
        for change in changes
        if change.kind in _SERVERS
        and (change.replaced or change.action == "Remove")
        and change.name not in agreed
    ]


def to_do_afterwards(changes: Sequence[Change], name: str) -> Iterator[str]:
    """
    Yield what a person has to do when the changes are made.

    Args:
        changes: All of them.

        name: What the secrets' names begin with.
    """
    # CloudFormation sends the whole user, with the password that it was made with.
    for user, secret, who in _REDIS_USERS:
        if any(change.name == user and change.action == "Modify" for change in changes):
            yield (
                f"{user} may get its first password back, and {who} could not log in to Redis: "
                f"run `ledger-db rotate {name}/{secret} --repair` at once when this is done"
            )
