"""
Who is asked when AWS is: the service that is meant, or somebody who has to give credentials first?

One call waits for several parties: an agent, a metadata service, a file, a process or STS for the role's
credentials, then the service.  Each may be late, silent or unwilling, and a person has to hear which it was.
botocore says so in what it raises, and in its events while it calls.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

# What botocore calls by itself, to have credentials for the call that was meant.
_FOR_CREDENTIALS: Final[Mapping[str, str]] = {
    "AssumeRole": "sts",
    "AssumeRoleWithSAML": "sts",
    "AssumeRoleWithWebIdentity": "sts",
    "GetRoleCredentials": "sso",
}
_AGENT: Final = "the container agent"
_METADATA: Final = "the instance metadata service"
_PROCESS: Final = "the credential process"
# By botocore's names for its ways to credentials, and by those of a profile's credential_source.
_WAYS: Final[Mapping[str, str]] = {
    "container-role": _AGENT,
    "EcsContainer": _AGENT,
    "iam-role": _METADATA,
    "Ec2InstanceMetadata": _METADATA,
    "custom-process": _PROCESS,
}
_SERVICES: Final[Mapping[str, str]] = {
    "secrets-manager": "Secrets Manager",
    "sso": "IAM Identity Center",
    "sts": "STS",
}
_OPERATION: Final = "ledger_db_operation"
# What the machine's maker has written; in a container it is there too.
_MAKER: Final = Path("/sys/class/dmi/id/sys_vendor")

Hears = Callable[[str | None], object]
_hears: ContextVar[Hears | None] = ContextVar("ledger_db_hears", default=None)


def giver(environment: Mapping[str, str], profile: Mapping[str, Any] | None = None) -> str | None:
    """
    Return who gives this process the credentials of a role, in the order in which botocore looks.

    Args:
        environment: The variables of the process.

        profile: What ``~/.aws/config`` says.

    Returns:
        None where nobody is named: keys are at hand, a person has signed in, or there is nothing.
    """
    if environment.get("AWS_ACCESS_KEY_ID"):
        return None
    if environment.get("AWS_WEB_IDENTITY_TOKEN_FILE") or (profile or {}).get("role_arn"):
        return _SERVICES["sts"]
    if (profile or {}).get("credential_process"):
        return _PROCESS
    if any(environment.get(f"AWS_CONTAINER_CREDENTIALS_{kind}_URI") for kind in ("RELATIVE", "FULL")):
        return _AGENT
    return _METADATA if has_metadata(environment) else None


def has_metadata(environment: Mapping[str, str], maker: Path = _MAKER) -> bool:
    """
    Return whether there is a metadata service to wait for: it is named, or the machine is one of EC2.

    botocore does not tell one that is busy from none at all.  To ask it is no way to find out: at other
    makers of clouds somebody answers at the same address.
    """
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    if any(environment.get(f"AWS_EC2_METADATA_SERVICE_ENDPOINT{more}") for more in ("", "_MODE")):
        return True
    try:
        return "Amazon EC2" in maker.read_text()
    except OSError:
        return False


def late_giver(error: Exception) -> str | None:
    """Return who has not given the role's credentials, from what botocore raised about it."""
    said = getattr(error, "kwargs", None)
    way = _WAYS.get(str(said.get("provider"))) if isinstance(said, Mapping) else None
    if way is not None:
        return way
    file = getattr(error, "filename", None)
    if file is not None:
        return f"the file {file}"
    # Nothing else of what botocore reads for a role is JSON that it has not looked at before.
    return _PROCESS if type(error).__name__ == "JSONDecodeError" else giver(os.environ)


def helper_of(error: Exception) -> str | None:
    """Return the action of AWS that was to give credentials, if it is the one that *error* is about."""
    operation = getattr(error, "operation_name", None) or getattr(error, _OPERATION, None)
    service = _FOR_CREDENTIALS.get(str(operation))
    return None if service is None else f"{service}:{operation}"


@contextmanager
def told(hears: Hears) -> Iterator[None]:
    """Let *hears* know, in this thread, whom each call to AWS is waiting for."""
    token = _hears.set(hears)
    try:
        yield
    finally:
        _hears.reset(token)


def tell(party: str | None) -> None:
    """Say that *party* is waited for from now on; None if it is nobody's turn."""
    hears = _hears.get()
    if hears is not None:
        hears(party)


def follow(session: Any) -> None:
    """Listen to what a botocore *session* says while it calls, from before its first client is made."""
    session.register("before-send", _tell_service)
    session.register("after-call-error", _note_operation)


def _tell_service(event_name: str, **_: object) -> None:
    # Not "before-call": the request is signed after that, and STS may be called for it.
    service = event_name.split(".")[1]
    tell(_SERVICES.get(service, service))


def _note_operation(event_name: str, exception: Exception, **_: object) -> None:
    # The first one: an error of STS goes through the call that it was needed for as well.
    exception.__dict__.setdefault(_OPERATION, event_name.rsplit(".", maxsplit=1)[-1])
