"""What is there of a stack, and can it be changed?"""

from collections.abc import Mapping
from typing import Any, Final

from botocore.exceptions import ClientError

# Whatever a first deployment left of a stack: CloudFormation knows no way on from there but away.
_UNUSABLE: Final = {"CREATE_FAILED", "DELETE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"}
_EMPTY: Final = "REVIEW_IN_PROGRESS"


class Stack:
    """
    A stack as it is at the moment of asking.

    Args:
        name: Its name.

        cloudformation: Knows it.

        rds: Knows its database; needed for `protected_server` only.
    """

    def __init__(self, name: str, *, cloudformation: Any, rds: Any = None) -> None:
        self._name = name
        self._cloudformation = cloudformation
        self._rds = rds

    def now(self) -> Mapping[str, Any]:
        """Return what CloudFormation says of it."""
        stack: Mapping[str, Any] = self._cloudformation.describe_stacks(StackName=self._name)["Stacks"][0]
        return stack

    def status(self) -> str | None:
        """Return its status; None if there is no such stack."""
        try:
            return str(self.now()["StackStatus"])
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise

    def parameters(self) -> dict[str, str]:
        """Return what it was made with."""
        return {found["ParameterKey"]: found.get("ParameterValue", "") for found in self.now()["Parameters"]}

    def protected_server(self) -> str | None:
        """Return the identifier of its database if that refuses to be deleted; None if nothing does."""
        try:
            found = self._cloudformation.describe_stack_resource(
                StackName=self._name, LogicalResourceId="DatabaseServer"
            )["StackResourceDetail"]
            if not (server := found.get("PhysicalResourceId")):
                return None
            (instance,) = self._rds.describe_db_instances(DBInstanceIdentifier=server)["DBInstances"]
        except ClientError as error:
            if "does not exist" in str(error) or "DBInstanceNotFound" in str(error):
                return None
            raise
        return str(server) if instance["DeletionProtection"] else None


def is_empty(status: str | None) -> bool:
    """Whether a change set was proposed for a stack that was never made: a name, and nothing behind it."""
    return status == _EMPTY


def is_new(status: str | None) -> bool:
    """Whether nothing was ever made of the stack."""
    return status is None or is_empty(status)


def needed_first(stack: str, status: str | None) -> str | None:
    """
    Return what has to be done before the stack can be changed; None if it can be.

    Args:
        stack: Its name.

        status: What CloudFormation says of it; None if there is none.
    """
    if status in _UNUSABLE:
        return f"it cannot be changed any more: `make undeploy STACK={stack}` first, then deploy again"
    if status == "UPDATE_ROLLBACK_FAILED":
        return f"`aws cloudformation continue-update-rollback --stack-name {stack}` first, then deploy again"
    return None
