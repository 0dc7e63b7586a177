"""Which secret is worked on, and who can rotate it?"""

from dataclasses import dataclass

from ledger_db.answers.secret import Secret
from ledger_db.rotation.labels import Labels
from ledger_db.rotation.protocol import Rotator
from ledger_db.rotation.versions import Versions


@dataclass(frozen=True, slots=True)
class Case:
    """
    A secret that may be rotated, as it was found.

    Attributes:
        versions: Of the secret.

        labels: As they were.

        current: What AWSCURRENT held.

        rotator: For its kind of server.
    """

    versions: Versions
    labels: Labels
    current: Secret
    rotator: Rotator
