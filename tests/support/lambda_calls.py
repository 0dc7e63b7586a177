"""What does AWS call a function with: an event of EventBridge's, and a context of Lambda's?"""

from typing import Any


class Context:
    """What Lambda tells a function about its call."""

    def get_remaining_time_in_millis(self) -> int:
        """Say that there is time."""
        return 10_000


def awscurrent_moved(arn: str, version: str) -> dict[str, Any]:
    """Return what EventBridge says when the secret *arn* has another current *version*."""
    return {
        "source": "aws.secretsmanager",
        "detail-type": "Secret Label Updated",
        "resources": [arn],
        "detail": {"name": "any", "labelUpdated": "AWSCURRENT", "versionId": version},
    }
