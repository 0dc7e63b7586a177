"""
What has to be true of the template for a stack to begin, to change and to end without harm?

Each contract yields what is wrong with one stack.
"""

from collections.abc import Iterator

from tests.support.template_rotation import rotated
from tests.support.template_stacks import Stack

_LOGS = "AWS::Logs::LogGroup"
_KEY = "AWS::KMS::Key"
_DATABASE = "AWS::RDS::DBInstance"
_SERVERS = (_DATABASE, "AWS::ElastiCache::ReplicationGroup")


def what_cannot_be_made_again_is_kept(stack: Stack) -> Iterator[str]:
    """A deleted stack takes neither passwords nor their key nor the logs with it, and leaves snapshots."""
    kept = {name for name, _ in rotated(stack)} | {
        name for kind in (_KEY, _LOGS) for name, _ in stack.of_type(kind)
    }
    servers = {name for kind in _SERVERS for name, _ in stack.of_type(kind)}
    for name in kept | servers:
        policies = tuple(stack.resources[name].get(key) for key in ("DeletionPolicy", "UpdateReplacePolicy"))
        wanted = ("RetainExceptOnCreate", "Retain") if name in kept else ("Snapshot", "Snapshot")
        if policies != wanted:
            yield f"{name} is not kept"
    for name, properties in stack.of_type(_KEY):
        if properties.get("EnableKeyRotation") is not True:
            yield f"{name} is not rotated"


def a_failed_beginning_is_undone(stack: Stack) -> Iterator[str]:
    """What a first deployment made before it failed goes again, and its names are free."""
    for name, resource in stack.resources.items():
        if resource.get("DeletionPolicy") == "Retain":
            yield f"{name} stays, and its name is taken"
    for name, properties in stack.of_type(_DATABASE):
        if properties.get("DeletionProtection") != stack.parameters["DatabaseProtected"]:
            yield f"{name} refuses to go, or cannot be protected"
    if stack.template["Parameters"]["DatabaseProtected"]["Default"] != "false":
        yield "a first deployment is protected against being undone"


def versions_can_be_raised(stack: Stack) -> Iterator[str]:
    """RDS takes a higher DatabaseVersion only if it was told that it may be a major one."""
    for name, properties in stack.of_type(_DATABASE):
        if properties.get("AllowMajorVersionUpgrade") is not True:
            yield f"{name} stays on its version"


CONTRACTS = (what_cannot_be_made_again_is_kept, a_failed_beginning_is_undone, versions_can_be_raised)
