"""Credentials that were simply given: a developer's own server, a test, the environment."""

from ledger_db.credentials.model import Credentials, Stage


class StaticSource:
    """Always the same answer.  A login that is refused with it is refused for good."""

    __module__ = "ledger_db"

    name = "settings"
    rotates = False

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def fetch(self, stage: Stage) -> Credentials | None:
        """Return the credentials; there is only one version of them."""
        return self._credentials if stage == "AWSCURRENT" else None
