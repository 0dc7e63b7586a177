"""
Puts the stack on AWS: the zip to its bucket, then a change set that is shown and asked about.

    python -m infra.deploy STACK --bucket BUCKET --parameter VpcId=vpc-1 --parameter Redis=none
    python -m infra.deploy STACK --delete

What is not given stays as it was, or is the template's default.  AWS is configured the AWS way.
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from infra.wheels import PLATFORMS, PROJECT

TEMPLATE: Final = PROJECT / "infra" / "template.yaml"
_NOTHING_NEW: Final = ("didn't contain changes", "No updates are to be performed")
# The servers of a first deployment take their time.
_PATIENCE: Final = {"Delay": 15, "MaxAttempts": 240}


class DeployError(Exception):
    """The stack was not deployed; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """
    Whom is talked to.

    Attributes:
        cloudformation: Makes the stack.

        s3: Keeps the zip.

        sts: Says whose account this is.
    """

    cloudformation: Any
    s3: Any
    sts: Any


class Deployment:
    """
    One stack.

    Args:
        stack: Its name.

        clients: Of AWS.

        ask: Shows a question and returns the answer.

        say: Shows a line.
    """

    def __init__(
        self,
        stack: str,
        clients: Clients,
        *,
        ask: Callable[[str], str] = input,
        say: Callable[[str], object] = print,
    ) -> None:
        self._stack = stack
        self._clients = clients
        self._ask = ask
        self._say = say

    def upload(self, code: Path, bucket: str) -> str:
        """
        Put the zip into the *bucket*, under its digest; return the key.

        Raises:
            DeployError: There is no zip.
        """
        if not code.is_file():
            raise DeployError(f"{code} is not there; `make package` makes it")
        content = code.read_bytes()
        key = f"ledger-db/{hashlib.sha256(content).hexdigest()}.zip"
        # A bucket of that name may be somebody else's, and what is in it will run with these permissions.
        owner = self._clients.sts.get_caller_identity()["Account"]
        self._clients.s3.put_object(
            Bucket=bucket, Key=key, Body=content, ExpectedBucketOwner=owner, ChecksumAlgorithm="SHA256"
        )
        return key

    def deploy(self, given: Mapping[str, str]) -> bool:
        """
        Show what would change, ask, and do it.

        Args:
            given: Parameters; the others stay as they are.

        Returns:
            Whether the stack is as wanted; False if the answer was no.
        """
        before = self._status()
        change_set = self._propose(given, before)
        if change_set is None:
            self._say(f"{self._stack} is as it should be; nothing was changed")
            return True
        for line in self._changes(change_set):
            self._say(line)
        if self._ask(f"Change {self._stack} like this? [yes/no] ").strip().lower() != "yes":
            self._withdraw(change_set, before)
            return False
        self._clients.cloudformation.execute_change_set(ChangeSetName=change_set)
        self._wait("stack_create_complete" if _is_new(before) else "stack_update_complete")
        self._report()
        return True

    def delete(self) -> bool:
        """
        Delete the stack, if whoever asked types its name; secrets, key and logs are kept.

        Returns:
            Whether it is gone.
        """
        if self._status() is None:
            self._say(f"There is no stack {self._stack}")
            return True
        self._say("Kept: both secrets, their key, the logs; of servers a snapshot.")
        self._say("A database refuses while its deletion protection is on, and the stack stays.")
        if self._ask(f"Type {self._stack} to delete it: ").strip() != self._stack:
            return False
        self._clients.cloudformation.delete_stack(StackName=self._stack)
        self._wait("stack_delete_complete")
        return True

    def _propose(self, given: Mapping[str, str], status: str | None) -> str | None:
        """Make a change set and return its ARN; None if there is nothing to change."""
        made = self._clients.cloudformation.create_change_set(
            StackName=self._stack,
            ChangeSetName=f"make-deploy-{int(time.time())}",
            ChangeSetType="CREATE" if _is_new(status) else "UPDATE",
            TemplateBody=TEMPLATE.read_text(encoding="utf-8"),
            Parameters=self._parameters(given, status),
            Capabilities=["CAPABILITY_IAM"],
        )
        change_set: str = made["Id"]
        try:
            waiter = self._clients.cloudformation.get_waiter("change_set_create_complete")
            waiter.wait(ChangeSetName=change_set, WaiterConfig={"Delay": 2, "MaxAttempts": 150})
        except WaiterError as error:
            found = self._clients.cloudformation.describe_change_set(ChangeSetName=change_set)
            reason = found.get("StatusReason", "no reason was given")
            self._withdraw(change_set, status)
            if any(words in reason for words in _NOTHING_NEW):
                return None
            raise DeployError(f"{self._stack} cannot be changed like this, and was not: {reason}") from error
        return change_set

    def _parameters(self, given: Mapping[str, str], status: str | None) -> list[dict[str, Any]]:
        known = (
            set() if _is_new(status) else {name["ParameterKey"] for name in self._stack_now()["Parameters"]}
        )
        summary = self._clients.cloudformation.get_template_summary(
            TemplateBody=TEMPLATE.read_text(encoding="utf-8")
        )
        names = {parameter["ParameterKey"] for parameter in summary["Parameters"]}
        if stray := sorted(set(given) - names):
            raise DeployError(f"the template has no parameter {', '.join(stray)}; nothing was changed")
        kept = [
            {"ParameterKey": name, "UsePreviousValue": True} for name in sorted(names & known - set(given))
        ]
        return [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()] + kept

    def _changes(self, change_set: str) -> Iterator[str]:
        pages = self._clients.cloudformation.get_paginator("describe_change_set").paginate(
            ChangeSetName=change_set
        )
        for page in pages:
            for change in page["Changes"]:
                what = change["ResourceChange"]
                replaced = "REPLACED" if what.get("Replacement") in {"True", "Conditional"} else ""
                name = f"{what['LogicalResourceId']} ({what['ResourceType']})"
                yield f"  {what['Action']:<8} {name} {replaced}".rstrip()

    def _withdraw(self, change_set: str, before: str | None) -> None:
        self._clients.cloudformation.delete_change_set(ChangeSetName=change_set)
        # A stack that was never made is left behind as an empty shell, with a name that is taken.
        if before is None:
            self._clients.cloudformation.delete_stack(StackName=self._stack)

    def _report(self) -> None:
        for output in self._stack_now()["Outputs"]:
            name = output["Description"]
            if name.startswith("LEDGER_DB_"):
                self._say(f"{name}={output['OutputValue']}")
            else:
                self._say(f"# {name}: {output['OutputValue']}")

    def _stack_now(self) -> Mapping[str, Any]:
        stack: Mapping[str, Any] = self._clients.cloudformation.describe_stacks(StackName=self._stack)[
            "Stacks"
        ][0]
        return stack

    def _status(self) -> str | None:
        try:
            return str(self._stack_now()["StackStatus"])
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise

    def _wait(self, what: str) -> None:
        try:
            self._clients.cloudformation.get_waiter(what).wait(StackName=self._stack, WaiterConfig=_PATIENCE)
        except WaiterError as error:
            raise DeployError(
                f"{self._stack} is {self._status() or 'gone'}; its events in the console say which resource "
                "and why; mend that and run this again"
            ) from error


def _is_new(status: str | None) -> bool:
    return status in {None, "REVIEW_IN_PROGRESS"}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infra.deploy", description="Deploy the stack, or delete it."
    )
    parser.add_argument("stack")
    parser.add_argument("--bucket", help="keeps the zip; in the region of the stack, and of this account")
    parser.add_argument("--architecture", choices=sorted(PLATFORMS), default="x86_64")
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--yes", action="store_true", help="do not ask; for pipelines")
    parser.add_argument("--delete", action="store_true")
    given = parser.parse_args(arguments)
    if not given.delete and not given.bucket:
        parser.error("--bucket is needed: where the zip is to be put")
    if wrong := [text for text in given.parameter if "=" not in text]:
        parser.error(f"{wrong[0]} is not NAME=VALUE")
    return given


def _run(deployment: Deployment, given: argparse.Namespace) -> bool:
    if given.delete:
        return deployment.delete()
    code = PROJECT / "build" / f"rotation-{given.architecture}.zip"
    parameters = dict(text.split("=", 1) for text in given.parameter)
    where = {
        "Architecture": given.architecture,
        "CodeBucket": given.bucket,
        "CodeKey": deployment.upload(code, given.bucket),
    }
    return deployment.deploy({**parameters, **where})


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    given = _arguments(arguments)
    answers = (lambda question: given.stack if given.delete else "yes") if given.yes else input
    try:
        session = boto3.session.Session()
        clients = Clients(
            cloudformation=session.client("cloudformation"),
            s3=session.client("s3"),
            sts=session.client("sts"),
        )
        return 0 if _run(Deployment(given.stack, clients, ask=answers), given) else 1
    except (DeployError, ClientError, BotoCoreError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
