"""
Everything that ledger_db raises on purpose.

The question a caller asks of an error is "would trying again help?", so that is how the tree is cut.
Every message says what happened, in which state, and what to do next.  None holds a secret.
"""


class LedgerDBError(Exception):
    """The root: catch it to catch everything below."""

    __module__ = "ledger_db"


class Retryable(LedgerDBError):
    """Trying again later may work."""

    __module__ = "ledger_db"


class CredentialsUnavailable(Retryable):
    """The credential source did not answer; what is already known stays in use."""

    __module__ = "ledger_db"


class ServerUnreachable(Retryable):
    """PostgreSQL or Redis could not be reached, or was not ready, in the time allowed."""

    __module__ = "ledger_db"


class Saturated(Retryable):
    """Every connection was in use for as long as a request may wait for one."""

    __module__ = "ledger_db"


class RetriesExhausted(Retryable):
    """
    A transaction met conflicts or lost connections until its patience was over; nothing was committed.

    Attributes:
        attempts: How often it was tried.

        seconds: For how long.
    """

    __module__ = "ledger_db"

    attempts: int = 0
    seconds: float = 0.0


class OutcomeUnknown(LedgerDBError):
    """
    COMMIT was sent, or a statement under AUTOCOMMIT, and no answer came.

    Find out whether it was done before doing it again.
    """

    __module__ = "ledger_db"


class CredentialsInvalid(LedgerDBError):
    """The secret was read and has the wrong shape: mend the field that the message names."""

    __module__ = "ledger_db"


class LoginRefused(LedgerDBError):
    """The server says no to the newest credentials that could be read: mend the secret or the role."""

    __module__ = "ledger_db"


class ConfigurationError(LedgerDBError):
    """Something outside this process must be mended: a setting, a permission, a name, a certificate."""

    __module__ = "ledger_db"


class RotationFailed(LedgerDBError):
    """A rotation did not end: the message names the step, the secret, and what is true now."""

    __module__ = "ledger_db"


class NotFound(LedgerDBError, LookupError):
    """There is no row with this key."""

    __module__ = "ledger_db"


class CursorInvalid(LedgerDBError, ValueError):
    """This text is no cursor of this listing in this order: start again from the first page."""

    __module__ = "ledger_db"


class ManagerClosed(LedgerDBError):
    """The manager was used before it was opened or after it was closed: a bug in the caller."""

    __module__ = "ledger_db"
