"""How does every part of this project talk to AWS: in which region, with how much patience?"""

import os
import re
import time
from typing import Any, Final

from ledger_db.answers.aws_parties import follow, giver, tell
from ledger_db.errors import ConfigurationError
from ledger_db.redaction import hide_secrets_of_botocore

# Any partition: aws, aws-cn, aws-us-gov, the isolated ones.  A replica's ARN names the replica's region.
_ARN = re.compile(r"arn:aws[a-z-]*:secretsmanager:(?P<region>[a-z0-9-]+):\d{12}:secret:.+")
_SHARE_OF_PAUSE: Final = 0.2
_ATTEMPTS_FOR_CREDENTIALS: Final = 3


def region_of(secret_id: str) -> str | None:
    """
    Return the AWS region that *secret_id* names; None if it is a name and no ARN.

    Raises:
        ConfigurationError: *secret_id* starts like an ARN and is none of a secret.
    """
    if not secret_id.startswith("arn:"):
        return None
    match = _ARN.fullmatch(secret_id)
    if match is None:
        raise ConfigurationError(
            f"{secret_id!r} is not the ARN of a secret; "
            "expected arn:aws:secretsmanager:<region>:<account>:secret:<name>"
        )
    return match["region"]


def make_client(
    service: str,
    *,
    region: str | None = None,
    connect_timeout_seconds: float = 2,
    read_timeout_seconds: float = 5,
    attempts: int = 2,
    endpoint_url: str | None = None,
    key: str | None = None,
) -> Any:
    """
    Return a client, with a session of its own; raises what botocore raises, which `aws_errors` understands.

    botocore is imported here and not before: it takes an eighth of a second.  Its clients are those of boto3,
    which adds 3 MB for other services.  It waits 60 s for a connection and 60 s for an answer unless told
    otherwise; a request that needs a new password cannot.  Its own retries are the inner ones, those of
    whoever calls the outer ones.

    Args:
        service: As boto3 calls it.

        region: Where; ``AWS_REGION`` goes next: botocore by itself looks only at ``AWS_DEFAULT_REGION`` and
            the profile, while Lambda, ECS and EKS set ``AWS_REGION``.

        connect_timeout_seconds: For a connection, each time.

        read_timeout_seconds: For an answer, each time.

        attempts: How often a call is tried, the first time included.

        endpoint_url: Where to find the service; as the environment says if None.

        key: Both halves of the key, for a stand-in that checks no signature; the AWS way if None.  What the
            environment says about AWS then counts for nothing: a proxy, a profile.
    """
    hide_secrets_of_botocore()
    from botocore.config import Config  # noqa: PLC0415 - as above

    core = core_session(key)
    # For STS too, asked for the role's credentials: it would have 60 s for each of five answers.
    core.set_default_client_config(
        Config(
            connect_timeout=connect_timeout_seconds,
            read_timeout=read_timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS_FOR_CREDENTIALS},
            tcp_keepalive=True,
            # None is for what the environment says.
            proxies=None if key is None else {},
        )
    )
    config = Config(retries={"mode": "standard", "total_max_attempts": attempts})
    follow(core)
    if key is None:
        _ask_agent_quickly(core)
        tell(giver(os.environ, core.get_scoped_config()))
    return core.create_client(
        service,
        region_name=region or os.environ.get("AWS_REGION") or None,
        endpoint_url=endpoint_url,
        config=config,
        aws_access_key_id=key,
        aws_secret_access_key=key,
    )


def core_session(key: str | None) -> Any:
    """Return botocore's session; with a *key*, one to which the environment and its files say nothing."""
    import botocore.session  # noqa: PLC0415 - as above

    if key is None:
        # An empty profile is none, as it is where a setting is empty; botocore looks for one of that name.
        profile = os.environ.get("AWS_DEFAULT_PROFILE") or os.environ.get("AWS_PROFILE") or None
        return botocore.session.Session(session_vars={"profile": (None, None, profile, None)})
    # By name: where it stands in files, in the environment, what there is without, and how it is read.
    known = botocore.session.Session.SESSION_VARIABLES.items()
    nowhere = {name: (None, None, usual, convert) for name, (_, _, usual, convert) in known}
    nowhere |= dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    return botocore.session.Session(session_vars=nowhere)


def _ask_agent_quickly(core: Any) -> None:
    """
    Let *core* ask a container's agent with short pauses between its three attempts.

    botocore pauses for a second after each one, also after the last: a start that has eight seconds would ask
    an agent that comes late no more than eight times.
    """
    from botocore.credentials import ContainerProvider  # noqa: PLC0415 - as above
    from botocore.utils import ContainerMetadataFetcher  # noqa: PLC0415 - as above

    fetcher = ContainerMetadataFetcher(sleep=lambda seconds: time.sleep(seconds * _SHARE_OF_PAUSE))
    chain = core.get_component("credential_provider")
    chain.insert_after(ContainerProvider.METHOD, ContainerProvider(fetcher=fetcher))  # type: ignore[arg-type] # of the stubs
    # The first of that name.
    chain.remove(ContainerProvider.METHOD)
