"""
Everything that ledger_db raises on purpose.

The question a caller asks of an error is "would trying again help?", so that is how the tree is cut.
Every message says what happened, in which state, and what to do next.  None holds a secret.
"""


class LedgerDBError(Exception):
    """The root: catch it to catch everything below."""


class Retryable(LedgerDBError):
    """Trying again later may work."""


class CredentialsUnavailable(Retryable):
    """The credential source did not answer; what is already known stays in use."""


class ServerUnreachable(Retryable):
    """PostgreSQL or Redis could not be reached, or was not ready, in the time allowed."""


class CredentialsInvalid(LedgerDBError):
    """The secret was read and has the wrong shape: mend the field that the message names."""


class LoginRefused(LedgerDBError):
    """The server says no to the newest credentials that could be read: mend the secret or the role."""


class ConfigurationError(LedgerDBError):
    """Something outside this process must be mended: a setting, a permission, a name, a certificate."""


class RotationFailed(LedgerDBError):
    """A rotation did not end: the message names the step, the secret, and what is true now."""


class ManagerClosed(LedgerDBError):
    """The manager was used before it was opened or after it was closed: a bug in the caller."""
