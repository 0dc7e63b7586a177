"""
The Lambda function: what does Secrets Manager call?

Configured by its environment:

    LEDGER_DB_ROTATION_SECRETS       names, ARNs or patterns of the secrets that it may rotate, with commas
    LEDGER_DB_ROTATION_STRATEGY      for secrets without the field "strategy"; by engine if absent
    LEDGER_DB_ROTATION_SSLMODE       verify-full if absent, beyond this machine; there is no fallback to less
    LEDGER_DB_ROTATION_SSLROOTCERT   file with the CA certificates; those of the system if absent

and by AWS's own names for what passwords are made of, which `passwords` lists.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final, Protocol, TypeVar

from ledger_db.answers.aws_client import make_client
from ledger_db.answers.aws_errors import refusal_of
from ledger_db.answers.tls import MODES, TLS
from ledger_db.errors import ConfigurationError
from ledger_db.rotation import journal
from ledger_db.rotation.passwords import PasswordRules
from ledger_db.rotation.protocol import Deadline, Tools
from ledger_db.rotation.request import LeakReport, Request
from ledger_db.rotation.runner import Announces, Rules, Runner
from ledger_db.rotation.strategies import STRATEGIES

T = TypeVar("T", bound=str)

_PREFIX: Final = "LEDGER_DB_ROTATION_"
# The two others leave it to the server whether passwords are sent in clear.
_MODES: Final = tuple(mode for mode in MODES if mode not in {"allow", "prefer"})
# Enough for the error to be raised and written before Lambda ends the process.
_MARGIN_SECONDS: Final = 1.0
# All attempts together end within twelve seconds, waits included: a network without a way to Secrets Manager
# is the usual mistake of a new installation, and shall end with a message.
_CONNECT_SECONDS: Final = 2
_READ_SECONDS: Final = 3
_ATTEMPTS: Final = 3


class Context(Protocol):
    """What Lambda tells a function about its call."""

    def get_remaining_time_in_millis(self) -> int:
        """How long until it is ended."""
        ...


def lambda_handler(event: Mapping[str, Any], context: Context) -> dict[str, Any] | None:
    """
    Do one step of one rotation, or answer a leak.

    Args:
        event: ``Step``, ``SecretId`` (name or ARN), ``ClientRequestToken``, and ``RotationToken`` where a
            role of another account is used.  Or, from a person: ``Compromised`` (name or ARN), and
            ``GraceSeconds``.

        context: Says how much time there is.

    Returns:
        What was done about a leak; nothing for a step.

    Raises:
        StepFailed: Its class is the ``errorType``, its message says what, in which state, what next; Secrets
            Manager tries again.

        ConfigurationError: The environment of the function is incomplete.
    """
    journal.write_to_standard_output()
    deadline = Deadline.after(context.get_remaining_time_in_millis() / 1000 - _MARGIN_SECONDS)
    if "Compromised" in event:
        return _answer(LeakReport.from_event(event), deadline)
    request = Request.from_event(event)
    _runner().step(request, deadline)
    return None


def _answer(report: LeakReport, deadline: Deadline) -> dict[str, Any]:
    from ledger_db.rotation.leak import Leak  # noqa: PLC0415 - nearly no call needs it

    # Not only where rotation is enabled: that is about Secrets Manager's own calls.
    rules = replace(rules_from(os.environ), urgent=True, only_if_enabled=False)
    runner = Runner(rules, client_maker(), announcer=announcer, emit=_write_line)
    leak = Leak(runner, report.secret_id, grace_seconds=report.grace_seconds, deadline=deadline)
    done = leak.run()
    return {
        "Versions": list(done.versions),
        "DeadAfterSeconds": round(done.dead_seconds, 1),
        "SessionsEnded": None if done.sessions is None else done.sessions.ended,
        "SessionsLeft": None if done.sessions is None else done.sessions.left,
    }


def rules_from(environment: Mapping[str, str]) -> Rules:
    """
    Read the configuration of the function.

    Raises:
        ConfigurationError: A variable is missing or wrong.
    """

    def configured(name: str) -> str | None:
        return environment.get(f"{_PREFIX}{name}", "").strip() or None

    allowed = tuple(name.strip() for name in (configured("SECRETS") or "").split(",") if name.strip())
    if not allowed:
        # Not "then everything": whoever may invoke this function would choose what it works on.
        raise ConfigurationError(
            f"{_PREFIX}SECRETS is not set, so no secret may be rotated; "
            "list the names or ARNs of the secrets that this function is for"
        )
    return Rules(
        allowed=allowed,
        strategy=_one_of("STRATEGY", configured("STRATEGY"), tuple(STRATEGIES)),
        tls=TLS(mode=_one_of("SSLMODE", configured("SSLMODE"), _MODES), ca_file=configured("SSLROOTCERT")),
        passwords=PasswordRules.from_environment(environment),
        only_if_enabled=True,
    )


def client_maker(region: str | None = None) -> Callable[[str], Any]:
    """
    Return what makes boto3 clients, each service's once, with timeouts that a step can bear.

    Args:
        region: Where; as the environment says if None.
    """

    @cache
    def client(service: str) -> Any:
        try:
            return make_client(
                service,
                region=region,
                connect_timeout_seconds=_CONNECT_SECONDS,
                read_timeout_seconds=_READ_SECONDS,
                attempts=_ATTEMPTS,
            )
        except Exception as error:
            raise refusal_of(error, service).as_error("AWS", service) from error

    return client


@cache
def _runner() -> Runner:
    # Once a process: warm calls find their connections to AWS open.
    return Runner(rules_from(os.environ), client_maker(), announcer=announcer, emit=_write_line)


def announcer(tools: Tools) -> Announces:
    """Return who tells services of rotations that have ended, as the environment says."""
    from ledger_db.rotation.announce import Announcer  # noqa: PLC0415 - only the last of four steps needs it

    return Announcer(tools)


def _write_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _one_of(name: str, value: str | None, choices: tuple[T, ...]) -> T | None:
    chosen = next((choice for choice in choices if choice == value), None)
    if value is not None and chosen is None:
        raise ConfigurationError(f"{_PREFIX}{name} is none of {', '.join(sorted(choices))}; mend it")
    return chosen
