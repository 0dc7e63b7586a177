"""
What must not reach a log: the one place that knows.

ledger_db logs constant event names with chosen fields, so nothing of its own needs hiding.  botocore does: at
DEBUG it logs whole response bodies, secrets included, and the signatures that are RDS login tokens.
"""

import logging
from collections.abc import Iterator

_BOTOCORE_LOGGERS = (
    "botocore.auth",
    "botocore.endpoint",
    "botocore.hooks",
    "botocore.httpsession",
    "botocore.parsers",
    "botocore.regions",
    "botocore.retryhandler",
)
_TELLTALES = (
    "SecretString",
    "SecretBinary",
    "RandomPassword",
    "Signature",
    "X-Amz-",
    # What STS gives for a role, and what it asks for.
    "SecretAccessKey",
    "WebIdentityToken",
    # Parameters of ElastiCache.
    "Passwords",
    "AuthToken",
)


class _HideSecrets(logging.Filter):
    """Replaces, in botocore's loggers, the whole text of a record that may hold a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        # The formatted text is judged, not the template: the secret is in the arguments.
        if any(telltale in record.getMessage() for telltale in _TELLTALES):
            record.msg = "(hidden by ledger_db: may hold a secret)"
            record.args = ()
        return True


_FILTER = _HideSecrets()


def hide_secrets_of_botocore() -> None:
    """
    Make botocore's DEBUG logging safe, in this whole process.  Idempotent.

    A filter on a logger covers only what is logged through exactly that logger, so each is named.
    """
    for name in _BOTOCORE_LOGGERS:
        # addFilter ignores one that is already there.
        logging.getLogger(name).addFilter(_FILTER)


def describe(error: BaseException) -> str:
    """
    Return the class and the first line of *error*, for a log field or a message.

    libpq repeats itself over several lines; an asyncpg timeout has no text at all; and what SQLAlchemy wraps
    says more by itself.
    """
    inner = getattr(error, "orig", None)
    if isinstance(inner, BaseException):
        # SQLAlchemy's asyncpg adapter puts the name of the real error in front of its text.
        error = inner.__cause__ or inner
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # noqa: BLE001 - one of somebody's own that cannot even say what it is
        lines = []
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def behind(error: BaseException, *, but: BaseException | None = None) -> Iterator[BaseException]:
    """Yield *error*, and all that a traceback shows with it or a driver's wrapper holds, once; not *but*."""
    seen = {id(but)}
    waiting: list[object] = [error]
    while waiting:
        link = waiting.pop()
        if isinstance(link, BaseException) and id(link) not in seen:
            seen.add(id(link))
            yield link
            waiting += [link.__cause__, link.__context__, getattr(link, "orig", None)]
            waiting += link.exceptions if isinstance(link, BaseExceptionGroup) else ()


def forget_frames(error: BaseException, *, but: BaseException | None) -> None:
    """
    Take the tracebacks from *error* and from everything behind it, as far as *but*.

    The frames of a driver that could not connect hold the password in plain local variables, and tools that
    report errors print those.  What is lost is the inside of the driver.

    Args:
        error: What the driver raised.

        but: What was being handled already when the driver was called (`sys.exception`): the caller's own.
    """
    for link in behind(error, but=but):
        link.__traceback__ = None
