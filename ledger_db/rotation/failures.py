"""
What can a rotation fail with, and what does a person do next?

A class each, because the class is what Lambda reports as ``errorType``, what an alarm filters by, and what
the command line exits with.  The message has the step and the secret in front, then what is wrong, what is
true now, and what to do.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import ClassVar, Final

from ledger_db.answers.aws_errors import refusal_of
from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import SecretProblem
from ledger_db.errors import LedgerDBError, Retryable, RotationFailed
from ledger_db.rotation.protocol import OutOfTime, ServerProblem

_OURS: Final = "ledger_db."


class StepFailed(RotationFailed):
    """
    A step did not end; the root of all below.

    Attributes:
        exit_status: Of the command line.

        next_move: What a person does about it; where AWS refused, `aws_errors` knows better.
    """

    exit_status: ClassVar[int] = 1
    next_move: ClassVar[str] = (
        "that is a mistake of the program, or of what it runs on: report it with this sentence; every step "
        "may be repeated"
    )


class EventInvalid(StepFailed):
    """The caller sent something that is no rotation event."""

    exit_status = 10
    next_move = "only Secrets Manager, or 'ledger-db rotate', should call this"


class SecretNotAllowed(StepFailed):
    """The configuration of this function does not allow this secret."""

    exit_status = 11
    next_move = "add it to LEDGER_DB_ROTATION_SECRETS of the function that is meant to rotate it"


class SecretUnusable(StepFailed):
    """The secret, or the administrator's, lacks a field or contradicts the one before it."""

    exit_status = 12
    next_move = "mend the secret, then rotate again"


class ForeignRotation(StepFailed):
    """AWSPENDING belongs to another rotation."""

    exit_status = 13
    next_move = "let that one end, or end it with 'ledger-db rotate SECRET --repair'"


class NothingPending(StepFailed):
    """There is no version with a value that could become the next one."""

    exit_status = 14
    next_move = "start a new rotation"


class LabelsMoved(StepFailed):
    """Somebody else moved AWSCURRENT at the same moment."""

    exit_status = 15
    next_move = "find out who changed the secret, then 'ledger-db rotate SECRET --repair'"


class SecretsManagerFailed(StepFailed):
    """AWS did not answer, or not in time; trying again may help."""

    exit_status = 16


class SecretsManagerDenied(StepFailed):
    """AWS does not permit it, knows no such secret, or cannot be asked before a person mends something."""

    exit_status = 17


class TimeUsedUp(StepFailed):
    """The time that the step was given is over."""

    exit_status = 18
    next_move = (
        "it is tried again; if it goes on, look at what was waited for, or give the function more time"
    )


class PasswordRefused(StepFailed):
    """The server knows none of the passwords, or not the one that was just set."""

    exit_status = 20
    next_move = "set the role's password to what AWSCURRENT holds, or 'ledger-db rotate SECRET --repair'"


class PasswordExpired(StepFailed):
    """The role's VALID UNTIL has passed; the password may be right."""

    exit_status = 21
    next_move = "ALTER ROLE ... VALID UNTIL 'infinity' as an administrator, then rotate again"


class DatabaseMissing(StepFailed):
    """The server is there, the database is not."""

    exit_status = 22
    next_move = "mend 'dbname' in the secret, or create the database"


class PortClosed(StepFailed):
    """The host answers that nobody listens."""

    exit_status = 23
    next_move = "start the server, or mend 'port' in the secret"


class HostUnknown(StepFailed):
    """DNS does not know the host."""

    exit_status = 24
    next_move = "mend 'host' in the secret, or the DNS of the network that this runs in"


class HostSilent(StepFailed):
    """Nothing came back at all."""

    exit_status = 25
    next_move = "check security groups, routes and subnets between here and the server"


class CertificateWrong(StepFailed):
    """The server's certificate is not trusted, or is for another name."""

    exit_status = 26
    next_move = (
        "give the right CA in LEDGER_DB_ROTATION_SSLROOTCERT, or use the name in the certificate as 'host'"
    )


class TLSMissing(StepFailed):
    """TLS was asked for and the server has none; there is no fallback, as the login would be in clear."""

    exit_status = 27
    next_move = "turn TLS on at the server"


class ConnectionsExhausted(StepFailed):
    """No connection is free."""

    exit_status = 28
    next_move = (
        "it is tried again; if it goes on, raise max_connections or the role's CONNECTION LIMIT, make its "
        "pool smaller, or, for a role of PostgreSQL, name an administrator's secret in 'masterarn'"
    )


class ServerNotReady(StepFailed):
    """The server is starting, stopping, or busy."""

    exit_status = 29
    next_move = "it is tried again; look at the server if it goes on"


class ActionForbidden(StepFailed):
    """A rule of the server stands against it: pg_hba.conf, a missing privilege, a read-only replica."""

    exit_status = 30
    next_move = (
        "give the user that the message names the right to: LOGIN, CONNECT, a line in pg_hba.conf, a rule of "
        "the ACL; or name an administrator's secret in 'masterarn', if it is the change that is forbidden"
    )


class CheckFailed(StepFailed):
    """The login works, what an application does after it does not."""

    exit_status = 31
    next_move = "compare the two users of the pair, then rotate again"


class ServerOdd(StepFailed):
    """The server said something that nobody has seen before; nothing was written after that."""

    exit_status = 32
    next_move = "look up what it says, mend the server or the secret, then rotate again"


class NoPasswordAsked(StepFailed):
    """Whatever the password is, the server lets this address in, so that no login proves anything."""

    exit_status = 33
    next_move = (
        "have the server ask for one from here too (in pg_hba.conf scram-sha-256 instead of trust; for a "
        "user of Redis a password instead of nopass), or rotate from where it does, then rotate again"
    )


_BY_REASON: dict[Reason, type[StepFailed]] = {
    Reason.REFUSED: PasswordRefused,
    Reason.EXPIRED: PasswordExpired,
    Reason.NO_DATABASE: DatabaseMissing,
    Reason.CLOSED_PORT: PortClosed,
    Reason.NO_ADDRESS: HostUnknown,
    Reason.NO_ANSWER: HostSilent,
    Reason.WRONG_CERTIFICATE: CertificateWrong,
    Reason.NO_TLS: TLSMissing,
    Reason.TOO_MANY_CONNECTIONS: ConnectionsExhausted,
    Reason.NOT_READY: ServerNotReady,
    Reason.NOT_PRIMARY: ServerNotReady,
    Reason.FORBIDDEN: ActionForbidden,
    Reason.NO_LOGIN: ActionForbidden,
    Reason.FAILED_CHECK: CheckFailed,
    Reason.NO_PASSWORD: NoPasswordAsked,
    Reason.UNSUPPORTED: ServerOdd,
    Reason.UNKNOWN: ServerOdd,
}


class Stopped(Exception):
    """
    A step cannot go on, with the *kind* of failure that this will be once step and state are known.

    Args:
        kind: Which failure.

        what: What happened.

        next_move: What a person does about it, if that is not the same for all of the *kind*.
    """

    def __init__(self, kind: type[StepFailed], what: str, *, next_move: str | None = None) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.next_move = next_move


@contextmanager
def asking(service: str, what: str, *, but: Collection[str] = (), repeat: bool = True) -> Iterator[None]:
    """
    Make a `Stopped` of whatever boto3 raises in the block.

    Args:
        service: Who is asked, as policies write it.

        what: What is asked for, for the message.

        but: AWS's codes that are an answer to whoever asks.

        repeat: Keep AWS's own words, and its error as the cause; not where a password is sent, which they
            may repeat.
    """
    try:
        yield
    except Exception as error:
        if refusal_of(error, service).code in but:
            raise
        raise stopped_by(error, service, what, repeat=repeat) from (error if repeat else None)


def stopped_by(error: Exception, service: str, what: str, *, repeat: bool = True) -> Stopped:
    """Return what an *error* of AWS's means for a rotation; the rest as in `asking`."""
    refusal = refusal_of(error, service, repeat=repeat)
    kind = SecretsManagerFailed if refusal.transient else SecretsManagerDenied
    return Stopped(kind, f"{what} {refusal.what}", next_move=refusal.next_move)


def is_before_writing(error: Exception) -> bool:
    """Whether a rotator that raised *error* has certainly changed nothing."""
    # Secrets are read, and compared, before anything is sent to a server.
    return isinstance(error, Stopped | SecretProblem) or (
        isinstance(error, ServerProblem) and error.is_untouched
    )


@contextmanager
def of_secret(whose: str) -> Iterator[None]:
    """
    Say *whose* secret it was, of all that goes wrong with one in the block.

    A step reads several, and its message has one in front: without this, that one is blamed.
    """
    try:
        yield
    except Stopped as error:
        raise Stopped(error.kind, f"{whose}: {error.what}", next_move=error.next_move) from error
    except SecretProblem as error:
        raise SecretProblem(f"{whose}: {error}") from error


@contextmanager
def explained(where: str, state: Callable[[], str]) -> Iterator[None]:
    """
    Make a `StepFailed` of whatever fails in the block.

    Args:
        where: Step and name of the secret.

        state: Says what is true now.
    """
    try:
        yield
    except StepFailed:
        raise
    except Stopped as error:
        raise _failure(error.kind, where, error.what, state(), error.next_move) from error
    except ServerProblem as error:
        kind = _BY_REASON[error.reason]
        raise _failure(kind, where, error.probe.what, state(), error.next_move) from error
    except SecretProblem as error:
        raise _failure(SecretUnusable, where, str(error), state()) from error
    except OutOfTime as error:
        raise _failure(TimeUsedUp, where, str(error), state()) from error
    except LedgerDBError as error:
        # A sentence of our own, complete with what to do: AWS could not even be asked.
        kind = SecretsManagerFailed if isinstance(error, Retryable) else SecretsManagerDenied
        raise kind(f"{where}: {state()}; {error}") from error
    except Exception as error:
        if type(error).__module__.startswith("botocore."):
            stopped = stopped_by(error, "aws", "AWS", repeat=False)
            raise _failure(stopped.kind, where, stopped.what, state(), stopped.next_move) from error
        # The class, the place and no text: nobody knows what a text that nobody foresaw is made of.  The log
        # of a Lambda function shows this one message and no cause.
        met = f"it met a {type(error).__name__} in {_place(error)}"
        raise _failure(StepFailed, where, met, state()) from error


def _place(error: BaseException) -> str:
    """Return the last line of ours that *error* came through."""
    lines = [
        f"{frame.f_globals.get('__name__', '?')}:{number}" for frame, number in walk_tb(error.__traceback__)
    ]
    return next((line for line in reversed(lines) if line.startswith(_OURS)), lines[-1])


def _failure(
    kind: type[StepFailed], where: str, what: str, state: str, next_move: str | None = None
) -> StepFailed:
    return kind(f"{where}: {what}; {state}; {next_move or kind.next_move}")
