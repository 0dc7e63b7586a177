"""
What must not reach a log: the one place that knows.

ledger_db logs constant event names with chosen fields, so nothing of its own needs hiding.  botocore does: at
DEBUG it logs whole response bodies, secrets included, and the signatures that are RDS login tokens.
"""

import logging

_BOTOCORE_LOGGERS = (
    "botocore.auth",
    "botocore.endpoint",
    "botocore.hooks",
    "botocore.httpsession",
    "botocore.parsers",
    "botocore.regions",
    "botocore.retryhandler",
)
_TELLTALES = ("SecretString", "SecretBinary", "RandomPassword", "Signature", "X-Amz-")


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

    libpq repeats itself over several lines; an asyncpg timeout has no text at all.
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
