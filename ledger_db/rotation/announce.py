"""
How do services hear that a rotation is finished?

By a message without any value in it: which secret, which version, how.  It goes to a Redis channel, to an SNS
topic, to both or to none, as the environment says.  Nobody depends on it: services poll as well.

    LEDGER_DB_ANNOUNCEMENTS_SECRET_ID   of a Redis user that may publish; else LEDGER_DB_REDIS_SECRET_ID
    LEDGER_DB_ANNOUNCEMENTS_CHANNEL     Redis channel, "ledger_db:rotations" if not set
    LEDGER_DB_ANNOUNCEMENTS_TOPIC_ARN   SNS topic
    LEDGER_DB_REDIS_TLS                 "true" or "false"; as for rotations if not set
    LEDGER_DB_REDIS_TLS_CA_FILE         file with the CA certificates, if it is "true"
"""

import os
from collections.abc import Callable, Mapping

from ledger_db.answers.announcement import DEFAULT_CHANNEL, Announcement
from ledger_db.answers.secret import SecretProblem
from ledger_db.answers.tls import TLS
from ledger_db.event_log import EventLog
from ledger_db.rotation import redis_login
from ledger_db.rotation.failures import Stopped, of_secret
from ledger_db.rotation.protocol import Deadline, OutOfTime, ServerProblem, Tools

log: EventLog = EventLog(__name__)

# For each way: the rotation is finished, and whoever waits for it should not wait for this.
_MOST_SECONDS = 3.0

Way = Callable[[str, Deadline], int]


class Announcer:
    """
    Tells services to look at a secret.

    Args:
        tools: Reads the secret of the Redis user that publishes, and makes the client for SNS.

        environment: Says where to; that of the process if None.
    """

    def __init__(self, tools: Tools, environment: Mapping[str, str] | None = None) -> None:
        given = os.environ if environment is None else environment
        self._tools = tools
        self._secret_id = given.get("LEDGER_DB_ANNOUNCEMENTS_SECRET_ID") or given.get(
            "LEDGER_DB_REDIS_SECRET_ID"
        )
        self._channel = given.get("LEDGER_DB_ANNOUNCEMENTS_CHANNEL") or DEFAULT_CHANNEL
        self._topic_arn = given.get("LEDGER_DB_ANNOUNCEMENTS_TOPIC_ARN")
        self._tls = _tls(given, tools.tls)

    def announce(self, announcement: Announcement, deadline: Deadline) -> None:
        """
        Say that AWSCURRENT of a secret moved.  Never raises: the rotation is finished, whoever hears of it.

        Args:
            announcement: Of which secret, to which version, how.

            deadline: Of the step; a part of what is left is used.
        """
        message = announcement.to_json()
        fields = {
            "secret": announcement.secret_id,
            "version": announcement.version_id,
            "strategy": announcement.strategy,
        }
        for name, way in self._ways().items():
            try:
                hearers = way(message, deadline)
            except Exception as error:  # noqa: BLE001 - whatever it is, services will find the version by polling
                told = {"error": type(error).__name__, "problem": _told(error)}
                log.warning("rotation.not_announced", **fields, action=name, **told)
            else:
                log.info("rotation.announced", **fields, action=name, outcome=hearers)

    def _ways(self) -> dict[str, Way]:
        ways: dict[str, Way] = {}
        if self._secret_id:
            ways["redis"] = self._publish_to_redis
        if self._topic_arn:
            ways["sns"] = self._publish_to_topic
        return ways

    def _publish_to_redis(self, message: str, deadline: Deadline) -> int:
        with of_secret(f"the publisher's secret {self._secret_id!r}"):
            secret = self._tools.read_secret(self._secret_id or "")
        # One node is enough: a cluster hands messages on, and replicas get them from their primary.
        node = redis_login.nodes_of(secret)[0]
        # From here on: a cold function takes seconds for its first client of AWS, and Redis is not to blame.
        until = Deadline(min(deadline.ends_at, Deadline.after(_MOST_SECONDS).ends_at))
        with redis_login.logged_in(node, secret, self._tls, until) as client:
            return int(client.publish(self._channel, message))

    def _publish_to_topic(self, message: str, deadline: Deadline) -> int:
        deadline.wait_seconds(_MOST_SECONDS, what="a message to SNS", at_least=0.1)
        self._tools.client("sns").publish(TopicArn=self._topic_arn, Message=message)
        return 1


def _told(error: Exception) -> str | None:
    """Return what was wrong, in words of ours; a driver's text may name what it was working with."""
    ours = isinstance(error, Stopped | SecretProblem | ServerProblem | OutOfTime)
    return str(error) if ours else None


def _tls(environment: Mapping[str, str], otherwise: TLS) -> TLS:
    # The Redis of the announcements need not be secured like the servers that are rotated.
    wanted = environment.get("LEDGER_DB_REDIS_TLS", "").strip().lower()
    if not wanted:
        return otherwise
    if wanted in {"false", "0", "no", "off"}:
        return TLS(mode="disable")
    # Whatever else it says: a typing error must not send a login in clear.
    return TLS(mode="verify-full", ca_file=environment.get("LEDGER_DB_REDIS_TLS_CA_FILE") or None)
