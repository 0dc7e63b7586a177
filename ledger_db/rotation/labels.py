"""Which version of a secret has which label?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

CURRENT: Final = "AWSCURRENT"
PENDING: Final = "AWSPENDING"
PREVIOUS: Final = "AWSPREVIOUS"
MADE: Final = "ledger_db.made"
"""On a version that createSecret has made, until it has AWSPENDING; no service ever asks for it."""


@dataclass(frozen=True, slots=True)
class Labels:
    """
    Who carries which label.

    Attributes:
        arn: Of the secret.

        name: Of the secret.

        rotation_enabled: None if rotation was never configured.

        holders: Label to version id.
    """

    arn: str
    name: str
    rotation_enabled: bool | None
    holders: Mapping[str, str]

    @property
    def current(self) -> str | None:
        """The version with AWSCURRENT; None for a secret without a value."""
        return self.holders.get(CURRENT)

    @property
    def pending(self) -> str | None:
        """
        The version that waits to become the current one.

        AWSPENDING beside AWSCURRENT is what other rotation functions leave behind when they are done.
        """
        pending = self.holders.get(PENDING)
        return None if pending == self.current else pending
