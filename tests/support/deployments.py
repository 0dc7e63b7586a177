"""What does a deployment say to AWS, if AWS answers like this?"""

from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError, WaiterError

from infra.deploy import Clients, Deployment

NAMES = {"Name": "ledger-db", "VpcId": "", "CodeKey": "", "Rotation": "disabled", "Database": "create"}
ARN = "arn:aws:cloudformation:eu-west-1:123456789012:changeSet/a/b"


def change(
    name: str, replacement: str = "False", *, kind: str = "X::Y", action: str = "Modify"
) -> dict[str, str]:
    """Return a change of one resource."""
    what = {"Action": action, "LogicalResourceId": name, "ResourceType": f"AWS::{kind}"}
    return {**what, "Replacement": replacement}


class CloudFormation:
    """
    Stands in for CloudFormation: one stack, or none; and for RDS, with its database.

    Attributes:
        status: Of the stack; None if there is none.

        refused: Why a change set is.

        failed: The status in which a change ends; none if it ends well.

        changes: What a change set would do.

        protected: The database refuses to be deleted; None if there is none.
    """

    def __init__(
        self,
        *,
        status: str | None = "UPDATE_COMPLETE",
        refused: str = "",
        failed: str = "",
        changes: tuple[dict[str, str], ...] = (),
        protected: bool | None = None,
    ) -> None:
        self.status = status
        self.refused = refused
        self.failed = failed
        self.changes = changes or (change("RotationFunction"), change("DatabaseServer", "True"))
        self.protected = protected
        self.calls: list[str] = []
        self.asked: dict[str, Any] = {}

    def describe_stacks(self, **_: str) -> dict[str, Any]:
        """Tell of the stack."""
        if self.status is None:
            message = "Stack with id ledger does not exist"
            raise ClientError({"Error": {"Code": "ValidationError", "Message": message}}, "DescribeStacks")
        outputs = [
            {"Description": "LEDGER_DB_DATABASE_SECRET_ID", "OutputValue": "arn-of-the-secret"},
            {"Description": "Rotation function", "OutputValue": "arn-of-the-function"},
        ]
        known = [{"ParameterKey": name, "ParameterValue": "old"} for name in ("VpcId", "Rotation", "Gone")]
        return {"Stacks": [{"StackStatus": self.status, "Parameters": known, "Outputs": outputs}]}

    def describe_stack_resource(self, **_: str) -> dict[str, Any]:
        """Tell of the database."""
        if self.protected is None:
            message = "Resource DatabaseServer does not exist for stack ledger"
            raise ClientError({"Error": {"Code": "ValidationError", "Message": message}}, "Describe")
        return {"StackResourceDetail": {"PhysicalResourceId": "ledger-server"}}

    def describe_db_instances(self, **asked: str) -> dict[str, Any]:
        """Tell whether it is protected."""
        assert asked == {"DBInstanceIdentifier": "ledger-server"}
        return {"DBInstances": [{"DeletionProtection": self.protected}]}

    def get_template_summary(self, **_: str) -> dict[str, Any]:
        """Tell which parameters the template has."""
        return {
            "Parameters": [{"ParameterKey": name, "DefaultValue": value} for name, value in NAMES.items()]
        }

    def create_change_set(self, **asked: Any) -> dict[str, str]:
        """Take what is wanted."""
        self.calls.append("propose")
        self.asked = asked
        self.status = self.status or "REVIEW_IN_PROGRESS"
        return {"Id": ARN}

    def describe_change_set(self, **_: str) -> dict[str, str]:
        """Say why it was refused."""
        return {"StatusReason": self.refused}

    def get_paginator(self, _: str) -> "CloudFormation":
        """Page through the changes."""
        return self

    def paginate(self, **_: str) -> Iterator[dict[str, Any]]:
        """Yield a page for each change."""
        for found in self.changes:
            yield {"Changes": [{"ResourceChange": found}]}

    def get_waiter(self, name: str) -> "Waiter":
        """Wait for nothing."""
        return Waiter(self, name)

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.endswith(("_change_set", "_stack")):
            raise AttributeError(name)
        verb = "delete stack" if name == "delete_stack" else name.partition("_")[0]
        return lambda **_: self.calls.append(verb)


class Waiter:
    """Ends at once, well or not."""

    def __init__(self, of: CloudFormation, name: str) -> None:
        self._of = of
        self._name = name

    def wait(self, **_: Any) -> None:
        """Look once."""
        is_change_set = self._name == "change_set_create_complete"
        if self._of.failed and not is_change_set:
            self._of.status = self._of.failed
            raise WaiterError(self._name, "failed", {})
        if self._of.refused and is_change_set:
            raise WaiterError(self._name, "failed", {})
        self._of.calls.append(f"wait {self._name}")


class Bucket:
    """Stands in for S3 and for STS."""

    def __init__(self) -> None:
        self.put: dict[str, Any] = {}

    def put_object(self, **given: Any) -> None:
        """Keep it."""
        self.put = given

    def get_caller_identity(self) -> dict[str, str]:
        """Say whose account this is."""
        return {"Account": "123456789012"}


def deployment(
    cloudformation: CloudFormation,
    *,
    answer: str = "yes",
    ask: Callable[[str], str] | None = None,
    said: list[str] | None = None,
) -> tuple[Deployment, Bucket]:
    """Return a deployment that gets *answer* to every question, or what *ask* says, and its bucket."""
    bucket = Bucket()
    clients = Clients(cloudformation=cloudformation, s3=bucket, sts=bucket, rds=cloudformation)
    lines = [] if said is None else said
    return Deployment("ledger", clients, ask=ask or (lambda _: answer), say=lines.append), bucket
