"""Is a stack changed only as it was shown, and only after a yes?"""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from infra import deploy
from infra.deploy import Clients, DeployError, Deployment

NAMES = ("Name", "VpcId", "CodeKey", "Rotation")
ARN = "arn:aws:cloudformation:eu-west-1:123456789012:changeSet/a/b"


class CloudFormation:
    """Stands in for CloudFormation: one stack, or none."""

    def __init__(self, *, there: bool = True, refused: str = "") -> None:
        self.there = there
        self.refused = refused
        self.calls: list[str] = []
        self.asked: dict[str, Any] = {}

    def describe_stacks(self, **_: str) -> dict[str, Any]:
        """Tell of the stack."""
        if not self.there:
            message = "Stack with id ledger does not exist"
            raise ClientError({"Error": {"Code": "ValidationError", "Message": message}}, "DescribeStacks")
        outputs = [
            {"Description": "LEDGER_DB_DATABASE_SECRET_ID", "OutputValue": "arn-of-the-secret"},
            {"Description": "Rotation function", "OutputValue": "arn-of-the-function"},
        ]
        known = [{"ParameterKey": name, "ParameterValue": "old"} for name in ("VpcId", "Rotation", "Gone")]
        return {"Stacks": [{"StackStatus": "UPDATE_COMPLETE", "Parameters": known, "Outputs": outputs}]}

    def get_template_summary(self, **_: str) -> dict[str, Any]:
        """Tell which parameters the template has."""
        return {"Parameters": [{"ParameterKey": name} for name in NAMES]}

    def create_change_set(self, **asked: Any) -> dict[str, str]:
        """Take what is wanted."""
        self.calls.append("propose")
        self.asked = asked
        return {"Id": ARN}

    def describe_change_set(self, **_: str) -> dict[str, str]:
        """Say why it was refused."""
        return {"StatusReason": self.refused}

    def get_paginator(self, _: str) -> "CloudFormation":
        """Page through the changes."""
        return self

    def paginate(self, **_: str) -> Iterator[dict[str, Any]]:
        """Yield two pages."""
        for name, replacement in (("RotationFunction", "False"), ("DatabaseServer", "True")):
            change = {"Action": "Modify", "LogicalResourceId": name, "ResourceType": "AWS::X::Y"}
            yield {"Changes": [{"ResourceChange": {**change, "Replacement": replacement}}]}

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
        if self._of.refused and self._name == "change_set_create_complete":
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
    cloudformation: CloudFormation, *, answer: str = "yes", said: list[str] | None = None
) -> tuple[Deployment, Bucket]:
    """Return a deployment that gets *answer* to every question, and its bucket."""
    bucket = Bucket()
    clients = Clients(cloudformation=cloudformation, s3=bucket, sts=bucket)
    lines = [] if said is None else said
    return Deployment("ledger", clients, ask=lambda question: answer, say=lines.append), bucket


def test_what_would_change_is_shown_before_it_is_done() -> None:
    """Whoever says yes has seen which server would be replaced; a service's environment comes last."""
    cloudformation, said = CloudFormation(), list[str]()

    assert deployment(cloudformation, said=said)[0].deploy({"CodeKey": "new.zip"})
    assert [line.split()[1:] for line in said[:2]] == [
        ["RotationFunction", "(AWS::X::Y)"],
        ["DatabaseServer", "(AWS::X::Y)", "REPLACED"],
    ]
    assert said[2:] == [
        "LEDGER_DB_DATABASE_SECRET_ID=arn-of-the-secret",
        "# Rotation function: arn-of-the-function",
    ]
    assert cloudformation.calls == [
        "propose",
        "wait change_set_create_complete",
        "execute",
        "wait stack_update_complete",
    ]


def test_what_is_not_given_stays_as_it_was() -> None:
    """Nobody has to remember what was chosen last time; a parameter that is new gets its default."""
    cloudformation = CloudFormation()
    deployment(cloudformation)[0].deploy({"CodeKey": "new.zip"})

    assert cloudformation.asked["Parameters"] == [
        {"ParameterKey": "CodeKey", "ParameterValue": "new.zip"},
        {"ParameterKey": "Rotation", "UsePreviousValue": True},
        {"ParameterKey": "VpcId", "UsePreviousValue": True},
    ]
    assert (cloudformation.asked["ChangeSetType"], cloudformation.asked["Capabilities"]) == (
        "UPDATE",
        ["CAPABILITY_IAM"],
    )


@pytest.mark.parametrize("answer", ["no", "", "y"])
@pytest.mark.parametrize("there", [True, False])
def test_anything_but_yes_changes_nothing(answer: str, *, there: bool) -> None:
    """What was proposed is taken back; of a stack that was never made not even its name is left."""
    cloudformation = CloudFormation(there=there)

    assert not deployment(cloudformation, answer=answer)[0].deploy({})
    assert "execute" not in cloudformation.calls
    assert cloudformation.calls[-1] == ("delete" if there else "delete stack")


def test_nothing_to_change_is_no_failure() -> None:
    """A pipeline that runs again is content."""
    cloudformation = CloudFormation(refused="The submitted information didn't contain changes.")

    assert deployment(cloudformation)[0].deploy({})
    assert cloudformation.calls == ["propose", "delete"]


def test_a_refusal_is_told_in_the_words_of_aws() -> None:
    """Which parameter was wrong is what one wants to know."""
    cloudformation = CloudFormation(refused="A database that exists needs DatabaseHost.")

    with pytest.raises(DeployError, match="was not: A database that exists needs DatabaseHost"):
        deployment(cloudformation)[0].deploy({})


def test_a_parameter_that_there_is_not_is_named() -> None:
    """A typing error ends before anything is proposed."""
    cloudformation = CloudFormation()

    with pytest.raises(DeployError, match="no parameter Rotatoin"):
        deployment(cloudformation)[0].deploy({"Rotatoin": "enabled"})
    assert cloudformation.calls == []


def test_code_goes_only_to_a_bucket_of_this_account(tmp_path: Path) -> None:
    """Its key is its digest, and a bucket of somebody else gets and gives nothing."""
    code = tmp_path / "rotation.zip"
    code.write_bytes(b"code")
    one, bucket = deployment(CloudFormation())

    assert one.upload(code, "bucket") == f"ledger-db/{hashlib.sha256(b'code').hexdigest()}.zip"
    assert (bucket.put["Body"], bucket.put["ExpectedBucketOwner"]) == (b"code", "123456789012")


def test_without_a_zip_it_says_how_to_make_one(tmp_path: Path) -> None:
    """Nothing is uploaded."""
    one, bucket = deployment(CloudFormation())

    with pytest.raises(DeployError, match="make package"):
        one.upload(tmp_path / "rotation.zip", "bucket")
    assert bucket.put == {}


@pytest.mark.parametrize(("answer", "gone"), [("ledger", True), ("yes", False), ("", False)])
def test_a_stack_is_deleted_by_its_name_only(answer: str, *, gone: bool) -> None:
    """A yes out of habit deletes nothing."""
    cloudformation = CloudFormation()

    assert deployment(cloudformation, answer=answer)[0].delete() is gone
    assert ("delete stack" in cloudformation.calls) is gone


def test_deleting_what_is_not_there_is_no_failure() -> None:
    """It is as it should be."""
    cloudformation = CloudFormation(there=False)

    assert deployment(cloudformation, answer="")[0].delete()
    assert cloudformation.calls == []


@pytest.mark.parametrize("arguments", [["ledger"], ["ledger", "--bucket", "b", "--parameter", "Rotation"]])
def test_a_wrong_command_line_ends_before_aws_is_asked(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what is missing."""
    with pytest.raises(SystemExit):
        deploy.main(arguments)
    assert re.search(r"--bucket is needed|is not NAME=VALUE", capsys.readouterr().err)
