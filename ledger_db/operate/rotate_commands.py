"""``ledger-db rotate``: how does a person rotate a secret, look at it, or end a rotation that got stuck?"""

import os
import uuid

import click

from ledger_db.answers.aws_client import region_of
from ledger_db.answers.tls import MODES, TLS, SslMode
from ledger_db.rotation.failures import (
    ForeignRotation,
    LabelsMoved,
    NothingPending,
    SecretNotAllowed,
    SecretsManagerDenied,
    SecretUnusable,
    StepFailed,
)
from ledger_db.rotation.handler import announcer, client_maker
from ledger_db.rotation.labels import PENDING
from ledger_db.rotation.leak import Leak
from ledger_db.rotation.passwords import PasswordRules
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.request import GRACE_SECONDS, TOKEN, Request
from ledger_db.rotation.runner import Findings, Rules, Runner
from ledger_db.rotation.steps import STEPS
from ledger_db.rotation.strategies import STRATEGIES

_NOT_GOOD = 3


@click.command()
@click.argument("secret")
@click.option("--dry-run", is_flag=True, help="Log in with every version, report, change nothing.")
@click.option("--step", type=click.Choice(STEPS), help="Do one step only; needs --token from the second on.")
@click.option("--token", metavar="ID", help="Go on with the rotation that makes this version.")
@click.option("--repair", is_flag=True, help="Bring a rotation that stopped half way to a good end.")
@click.option("--retire", is_flag=True, help="End the password before AWSCURRENT, or say what ends it.")
@click.option("--compromised", is_flag=True, help="It has leaked: end all that it opens, sessions included.")
@click.option(
    "--grace-seconds",
    type=click.FloatRange(min=0.0),
    default=GRACE_SECONDS,
    show_default=True,
    help="With --compromised: how long services have to come over; beside --timeout.",
)
@click.option("--urgent", is_flag=True, help="Let services replace all connections at once.")
@click.option("--strategy", type=click.Choice(list(STRATEGIES)), help="For a secret that names none.")
@click.option("--sslmode", type=click.Choice(["verify-full", "verify-ca", "require", "disable"]))
@click.option("--sslrootcert", type=click.Path(dir_okay=False, exists=True), help="Whom to trust.")
@click.option("--timeout", "timeout_seconds", type=click.FloatRange(min=3.0), default=60.0, show_default=True)
def rotate(
    secret: str,
    *,
    dry_run: bool,
    step: str | None,
    token: str | None,
    repair: bool,
    retire: bool,
    compromised: bool,
    grace_seconds: float,
    urgent: bool,
    strategy: str | None,
    sslmode: SslMode | None,
    sslrootcert: str | None,
    timeout_seconds: float,
) -> int:
    """
    Rotate SECRET (name or ARN), as the rotation function does.

    AWS is configured the AWS way: AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL_SECRETS_MANAGER.
    """
    if sum((dry_run, repair, retire, compromised, step is not None)) > 1:
        raise click.UsageError("--dry-run, --repair, --retire, --compromised and --step exclude each other")
    if compromised and token is not None:
        raise click.UsageError("--compromised makes versions of its own, so it takes no --token")
    if step not in {None, STEPS[0]} and token is None:
        raise click.UsageError(f"--step {step} needs --token, which the first step has printed")
    if token is not None and not TOKEN.fullmatch(token):
        raise click.UsageError("--token is the id of a version: 32 to 64 characters")
    # No list here: it keeps others from choosing for a function, and this is whoever owns the permissions.
    rules = Rules(
        allowed=("*",),
        strategy=strategy,
        tls=_tls(sslmode, sslrootcert),
        passwords=PasswordRules.from_environment(os.environ),
        urgent=urgent or compromised,
    )
    runner = Runner(rules, client_maker(region_of(secret)), announcer=announcer)
    deadline = Deadline.after(timeout_seconds)
    try:
        if dry_run:
            return _report(runner.examine(secret, deadline))
        if repair:
            click.echo(f"{secret}: {runner.repair(secret, deadline).value}")
            return 0
        if retire:
            retired = runner.retire(secret, deadline)
            click.echo(f"{secret}: {retired}")
            return 0 if retired.is_dead else _NOT_GOOD
        if compromised:
            return _answer_leak(runner, secret, grace_seconds, deadline)
        _do_steps(runner, secret, token or str(uuid.uuid4()), (step,) if step else STEPS, deadline)
    except StepFailed as error:
        click.echo(f"Error: {error}", err=True)
        return error.exit_status
    return 0


def _tls(mode: SslMode | None, ca_file: str | None) -> TLS:
    # The same variables as for an application: whoever can connect with them can rotate with them.
    named = mode or os.environ.get("LEDGER_DB_DATABASE_SSLMODE") or None
    if named not in (None, *MODES):
        raise click.UsageError(f"LEDGER_DB_DATABASE_SSLMODE is none of {', '.join(MODES)}")
    return TLS(
        mode=next((mode for mode in MODES if mode == named), None),
        ca_file=ca_file or os.environ.get("LEDGER_DB_DATABASE_SSLROOTCERT") or None,
    )


def _do_steps(runner: Runner, secret: str, token: str, steps: tuple[str, ...], deadline: Deadline) -> None:
    # First of all: whoever interrupts this needs it to go on.
    click.echo(f"{secret}: version {token}")
    try:
        for step in steps:
            request = Request.from_event({"Step": step, "SecretId": secret, "ClientRequestToken": token})
            click.echo(f"  {step}: {runner.step(request, deadline).value}")
    except (KeyboardInterrupt, StepFailed) as error:
        # Whatever of it was done: with the same token each step finds out by itself.
        if not _leads_nowhere(step, error):
            click.echo(
                f"To go on: ledger-db rotate {secret} --token {token}\n"
                f"To undo:  ledger-db rotate {secret} --repair",
                err=True,
            )
        raise


def _answer_leak(runner: Runner, secret: str, grace_seconds: float, deadline: Deadline) -> int:
    """Answer a leak, a line for each thing that is done; the status says whether nothing is left of it."""
    click.echo(f"{secret}: the password has leaked")
    leak = Leak(
        runner,
        secret,
        grace_seconds=grace_seconds,
        deadline=deadline,
        extend=True,
        tell=lambda line: click.echo(f"  {line}"),
    )
    try:
        done = leak.run()
    except KeyboardInterrupt:
        click.echo(f"Interrupted: {leak.state}", err=True)
        raise
    click.echo(f"  it is refused since {done.dead_seconds:.1f} s after the beginning")
    if done.sessions is None:
        click.echo("  sessions that logged in with it may be open: AWS has no call that ends them")
    else:
        click.echo(f"  sessions ended: {done.sessions.ended}, left: {done.sessions.left}")
    return 0 if done.is_complete else _NOT_GOOD


def _leads_nowhere(step: str, error: BaseException) -> bool:
    """Whether there is nothing to go on with, or to undo: the message itself says what to do then."""
    if isinstance(error, ForeignRotation | NothingPending | LabelsMoved):
        return True
    return step == STEPS[0] and isinstance(error, SecretNotAllowed | SecretsManagerDenied | SecretUnusable)


def _report(findings: Findings) -> int:
    """Print *findings*; the status says whether everything is good."""
    click.echo(f"strategy: {findings.strategy}")
    for label, version in sorted(findings.versions.items()):
        probe = findings.probes.get(label)
        # No probe: AWSPENDING beside AWSCURRENT, or what a rotation left that was cut off as it began.
        rest = "with AWSCURRENT" if label == PENDING else "left by a rotation that was given up"
        answer = rest if probe is None else probe.what or probe.outcome
        click.echo(f"  {label:<12} {version}  {answer}")
    for sentence in findings.drift:
        click.echo(f"  drift: {sentence}")
    current = findings.probes.get("AWSCURRENT")
    good = current is not None and current.ok and "AWSPENDING" not in findings.probes
    return 0 if good and not findings.drift else _NOT_GOOD
