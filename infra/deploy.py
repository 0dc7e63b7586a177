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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from infra.changes import changes_of, servers_lost, to_do_afterwards
from infra.package import trusts_rds
from infra.stack import Stack, is_empty, is_new, needed_first
from infra.wheels import PLATFORMS, PROJECT, PackageError

TEMPLATE: Final = PROJECT / "infra" / "template.yaml"
_NOTHING_NEW: Final = ("didn't contain changes", "No updates are to be performed")
# The servers of a first deployment take their time.
_PATIENCE: Final = {"Delay": 15, "MaxAttempts": 240}
# 128 and SIGINT, as every shell has it.
_INTERRUPTED: Final = 130


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

        rds: Says whether the database is protected; who only deploys needs none.
    """

    cloudformation: Any
    s3: Any
    sts: Any
    rds: Any = None


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
        self._there = Stack(stack, cloudformation=clients.cloudformation, rds=clients.rds)
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

    def deploy(
        self, given: Mapping[str, str], *, code: Path | None = None, replace: Collection[str] = ()
    ) -> bool:
        """
        Show what would change, ask, and do it.

        Args:
            given: Parameters; the others stay as they are.

            code: The zip that they name, to see whom it trusts; None if that is not to be looked at.

            replace: Logical ids of the servers that may be lost.

        Returns:
            Whether the stack is as wanted; False if the answer was no.

        Raises:
            DeployError: The stack cannot be changed like this, or nobody answered; nothing was changed.
        """
        before = self._there.status()
        if first := needed_first(self._stack, before):
            raise DeployError(f"{self._stack} is {before}, and nothing was changed; {first}")
        declared, known = self._declared(), {} if is_new(before) else self._there.parameters()
        chosen = {**declared, **known, **given}
        _refuse_code_that_fails(code, chosen)
        change_set = self._propose(_parameters(given, known, declared), before)
        agreed: bool | None = False
        try:
            agreed = self._agreed(change_set, chosen.get("Name", ""), replace)
        finally:
            # Also if it is Ctrl-C that answered.
            if not agreed:
                self._withdraw(change_set, before)
        if agreed:
            self._execute(change_set, before)
        return agreed is not False

    def delete(self) -> bool:
        """
        Delete the stack, if whoever asked types its name; secrets, key and logs are kept.

        Returns:
            Whether it is gone.

        Raises:
            DeployError: The database is protected, or nobody answered; nothing was deleted.
        """
        if (status := self._there.status()) is None:
            self._say(f"There is no stack {self._stack}")
            return True
        if server := self._there.protected_server():
            by_hand = (
                f"`aws rds modify-db-instance --db-instance-identifier {server} --no-deletion-protection`"
            )
            first = by_hand if needed_first(self._stack, status) else "deploy with DatabaseProtected=false"
            raise DeployError(
                f"the database of {self._stack} is protected, and nothing was deleted; {first} first"
            )
        self._say("Kept: both secrets, their key, the logs; of servers a snapshot.")
        if self._answer(f"Type {self._stack} to delete it: ") != self._stack:
            return False
        self._clients.cloudformation.delete_stack(StackName=self._stack)
        self._wait("stack_delete_complete")
        return True

    def _propose(self, parameters: list[dict[str, Any]], status: str | None) -> str:
        """Make a change set and return its ARN."""
        made = self._clients.cloudformation.create_change_set(
            StackName=self._stack,
            ChangeSetName=f"make-deploy-{int(time.time())}",
            ChangeSetType="CREATE" if is_new(status) else "UPDATE",
            TemplateBody=TEMPLATE.read_text(encoding="utf-8"),
            Parameters=parameters,
            Capabilities=["CAPABILITY_IAM"],
        )
        return str(made["Id"])

    def _agreed(self, change_set: str, name: str, replace: Collection[str]) -> bool | None:
        """Return whether somebody said yes to the changes; None if there are none."""
        if not self._is_to_be_done(change_set):
            self._say(f"{self._stack} is as it should be; nothing was changed")
            return None
        changes = changes_of(self._clients.cloudformation, change_set)
        for change in changes:
            self._say(str(change))
        if lost := servers_lost(changes, agreed=replace):
            options = " ".join(f"--replace {server}" for server in lost)
            raise DeployError(
                f"{' and '.join(lost)} would or might be replaced or removed, and their data is then "
                f"in a snapshot only; nothing was changed. If that is wanted: {options}"
            )
        for line in to_do_afterwards(changes, name):
            self._say(line)
        return self._answer(f"Change {self._stack} like this? [yes/no] ").lower() == "yes"

    def _is_to_be_done(self, change_set: str) -> bool:
        """Wait until it is known what a change set would do; return whether that is anything."""
        try:
            waiter = self._clients.cloudformation.get_waiter("change_set_create_complete")
            waiter.wait(ChangeSetName=change_set, WaiterConfig={"Delay": 2, "MaxAttempts": 150})
        except WaiterError as error:
            found = self._clients.cloudformation.describe_change_set(ChangeSetName=change_set)
            reason = found.get("StatusReason", "no reason was given")
            if any(words in reason for words in _NOTHING_NEW):
                return False
            raise DeployError(f"{self._stack} cannot be changed like this, and was not: {reason}") from error
        return True

    def _execute(self, change_set: str, before: str | None) -> None:
        self._clients.cloudformation.execute_change_set(ChangeSetName=change_set)
        self._wait("stack_create_complete" if is_new(before) else "stack_update_complete")
        self._report()

    def _withdraw(self, change_set: str, before: str | None) -> None:
        self._clients.cloudformation.delete_change_set(ChangeSetName=change_set)
        # A stack that was never made is left behind as an empty shell, with a name that is taken.
        # What somebody else has made of it in the meantime stays.
        if before is None and is_empty(self._there.status()):
            self._clients.cloudformation.delete_stack(StackName=self._stack)

    def _answer(self, question: str) -> str:
        try:
            return self._ask(question).strip()
        except EOFError as error:
            raise DeployError(
                "there is nobody to answer, and nothing was changed; --yes does not ask"
            ) from error

    def _declared(self) -> dict[str, str]:
        """Return the parameters of the template, and their defaults."""
        summary = self._clients.cloudformation.get_template_summary(
            TemplateBody=TEMPLATE.read_text(encoding="utf-8")
        )
        return {found["ParameterKey"]: found.get("DefaultValue", "") for found in summary["Parameters"]}

    def _report(self) -> None:
        for output in self._there.now()["Outputs"]:
            name = output["Description"]
            if name.startswith("LEDGER_DB_"):
                self._say(f"{name}={output['OutputValue']}")
            else:
                self._say(f"# {name}: {output['OutputValue']}")

    def _wait(self, what: str) -> None:
        try:
            self._clients.cloudformation.get_waiter(what).wait(StackName=self._stack, WaiterConfig=_PATIENCE)
        except WaiterError as error:
            status = self._there.status()
            then = needed_first(self._stack, status) or "mend that and run this again"
            raise DeployError(
                f"{self._stack} is {status or 'gone'}; its events in the console say which resource and why; "
                f"{then}"
            ) from error


def _parameters(
    given: Mapping[str, str], known: Collection[str], declared: Collection[str]
) -> list[dict[str, Any]]:
    """Return what is *given*, and that the rest of what is *known* stays, as CloudFormation wants it."""
    if stray := sorted(set(given) - set(declared)):
        raise DeployError(f"the template has no parameter {', '.join(stray)}; nothing was changed")
    kept = sorted(set(declared) & set(known) - set(given))
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()] + [
        {"ParameterKey": name, "UsePreviousValue": True} for name in kept
    ]


def _refuse_code_that_fails(code: Path | None, chosen: Mapping[str, str]) -> None:
    if code is None or chosen.get("Database") not in {"create", "rds"}:
        return
    if not trusts_rds(code.read_bytes()):
        raise DeployError(
            f"{code.name} does not trust RDS, so no rotation could log in, and nothing was changed; "
            "make it with the authorities of its region: TRUST=<region>-bundle.pem"
        )


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infra.deploy", description="Deploy the stack, or delete it."
    )
    parser.add_argument("stack")
    parser.add_argument("--bucket", help="keeps the zip; in the region of the stack, and of this account")
    parser.add_argument("--architecture", choices=sorted(PLATFORMS), default="x86_64")
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--replace", action="append", default=[], metavar="LOGICALID", help="a server that may be lost"
    )
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
    return deployment.deploy({**parameters, **where}, code=code, replace=given.replace)


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
            rds=session.client("rds"),
        )
        return 0 if _run(Deployment(given.stack, clients, ask=answers), given) else 1
    except (DeployError, PackageError, ClientError, BotoCoreError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what had a yes goes on without this command\n")
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
