"""
What leads a program to these servers and to no others, whatever its shell says?

A shell of somebody's has a profile, a proxy, an endpoint or a session of AWS in it.  Left as they are they
would lead elsewhere, in part: these servers' passwords would be tried on a server of theirs, or a call with a
made-up key would reach AWS.  An empty value is for a variable that must not be set; where the SDK takes an
empty one for a value, it is given what it does without.
"""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ledger_db.sandbox import rotate

PROFILE_FILE: Final = "aws-config"
"""In the sandbox's folder: profiles with nothing in them, as the SDK refuses one that is not there."""

PROFILES: Final = "[default]\n[profile '']\n"
"""The second is what the SDK makes of an empty AWS_PROFILE."""

_SETTINGS: Final = (
    *("DATABASE_URL", "DATABASE_USER", "DATABASE_PASSWORD", "DATABASE_HOST", "DATABASE_PORT"),
    *("DATABASE_NAME", "DATABASE_IAM_AUTH", "DATABASE_SSLMODE", "DATABASE_SSLROOTCERT"),
    *("REDIS_USER", "REDIS_PASSWORD", "REDIS_HOST", "REDIS_PORT", "REDIS_DB"),
    *("REDIS_TLS", "REDIS_TLS_CA_FILE"),
)
_SDK: Final[Mapping[str, str]] = {
    # Who one is.  A role, and who gives its credentials, are asked for only where there is no key.
    "AWS_ACCESS_KEY_ID": rotate.DUMMY_KEY,
    "AWS_SECRET_ACCESS_KEY": rotate.DUMMY_KEY,
    "AWS_SESSION_TOKEN": "",
    "AWS_SECURITY_TOKEN": "",
    "AWS_CREDENTIAL_EXPIRATION": "",
    "AWS_PROFILE": "",
    "AWS_DEFAULT_PROFILE": "",
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": "",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv4",
    # Where it is asked.
    "AWS_REGION": rotate.REGION,
    "AWS_DEFAULT_REGION": rotate.REGION,
    "AWS_ENDPOINT_URL": "",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
    "AWS_USE_DUALSTACK_ENDPOINT": "false",
    "AWS_USE_FIPS_ENDPOINT": "false",
    "AWS_ACCOUNT_ID_ENDPOINT_MODE": "preferred",
    "AWS_STS_REGIONAL_ENDPOINTS": "regional",
    "AWS_DATA_PATH": "",
    "AWS_CSM_ENABLED": "false",
    # How it signs, and whom it trusts.
    "AWS_AUTH_SCHEME_PREFERENCE": "",
    "AWS_SIGV4A_SIGNING_REGION_SET": "",
    "AWS_CA_BUNDLE": ssl.get_default_verify_paths().cafile or os.devnull,
    # libpq would go there instead of to the host that it is given.
    "PGHOSTADDR": "",
    # Without it boto3 looks for a machine of AWS's around it, and waits.
    "AWS_EC2_METADATA_DISABLED": "true",
}
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def environment_of(url: str, folder: Path, own: Mapping[str, str]) -> dict[str, str]:
    """
    Return the environment of a sandbox.

    Args:
        url: Of its Secrets Manager.

        folder: With its files.

        own: Settings that it has values for.
    """
    return {
        **dict.fromkeys([f"LEDGER_DB_{name}" for name in _SETTINGS], ""),
        **own,
        "AWS_CONFIG_FILE": str(folder / PROFILE_FILE),
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": url,
        # Which of the two is read differs from program to program.
        **dict.fromkeys(("NO_PROXY", "no_proxy"), _no_proxy()),
        **_SDK,
    }


def _no_proxy() -> str:
    """Return for whom no proxy is asked: this machine, and whoever this process does not ask it for."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if known.strip() == "*":
        return known
    hosts = [host for host in (part.strip() for part in known.split(",")) if host]
    return ",".join([*hosts, *(host for host in _LOOPBACK if host not in hosts)])
