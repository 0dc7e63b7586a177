"""How are ElastiCache and MemoryDB asked to change a password, and when have they?"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from ledger_db.answers.aws_errors import Cause, Refusal, refusal_of
from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Password
from ledger_db.event_log import EventLog
from ledger_db.rotation.protocol import Deadline, Probe, ServerProblem

log: EventLog = EventLog(__name__)

Pause = Callable[[float], None]

_POLL_SECONDS = 2.0

# ElastiCache's own codes; what all of AWS says alike is understood elsewhere.
_REASONS: Mapping[str, tuple[Reason, str]] = {
    "InvalidReplicationGroupState": (Reason.NOT_READY, "another change is in progress"),
    "InvalidUserState": (Reason.NOT_READY, "another change is in progress"),
    "ReplicationGroupNotFound": (Reason.FAILED_CHECK, "there is no such replication group"),
    "UserNotFound": (Reason.FAILED_CHECK, "there is no such user"),
}


class Users:
    """
    The users of ElastiCache's access control.

    Args:
        client: Of boto3, for the service.

        pause: Lets seconds pass.
    """

    service: ClassVar[str] = "elasticache"
    title: ClassVar[str] = "ElastiCache user"

    def __init__(self, client: Any, pause: Pause) -> None:
        self._client = client
        self._pause = pause

    def set_passwords(self, user_id: str, passwords: tuple[Password, ...], deadline: Deadline) -> None:
        """
        Let the user have these, two at most, and no others; return when that is so.

        Raises:
            ServerProblem: AWS would not.

            OutOfTime: It took too long; the change may still come.
        """
        # Before as well: a user that is being changed cannot be changed, not even to what it will be.
        self._wait_until_active(user_id, deadline)
        with self._asking(user_id):
            self._modify(user_id, [str(password) for password in passwords])
        log.info("rotation.passwords_set", role=user_id, action=f"{len(passwords)} known")
        self._wait_until_active(user_id, deadline)

    def describe(self, user_id: str) -> Mapping[str, Any]:
        """Return what AWS says about the user; raises as `set_passwords`."""
        with self._asking(user_id):
            return self._described(user_id)

    def nodes(self, user_id: str) -> tuple[str, ...]:
        """
        Return where the user logs in, each as "host:port": every cache that one of its groups is for.

        Raises:
            ServerProblem: AWS would not say, or there is no such cache.
        """
        with self._asking(user_id):
            found = tuple(self._endpoints(self._described(user_id)))
        if not found:
            what = f"{self.title} {user_id!r} is for no cache yet"
            raise ServerProblem(
                Probe(Reason.FAILED_CHECK, what), next_move="give it to one, or name 'host' in the secret"
            )
        return tuple(f"[{each['Address']}]:{each['Port']}" for each in found)

    def _described(self, user_id: str) -> Mapping[str, Any]:
        user: Mapping[str, Any] = self._client.describe_users(UserId=user_id)["Users"][0]
        return user

    def _modify(self, user_id: str, passwords: list[str]) -> None:
        self._client.modify_user(UserId=user_id, Passwords=passwords)

    def _endpoints(self, user: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        for name in user.get("UserGroupIds", ()):
            group = self._client.describe_user_groups(UserGroupId=name)["UserGroups"][0]
            for cache in group.get("ReplicationGroups", ()):
                answer = self._client.describe_replication_groups(ReplicationGroupId=cache)
                yield _endpoint(answer["ReplicationGroups"][0])
            for cache in group.get("ServerlessCaches", ()):
                answer = self._client.describe_serverless_caches(ServerlessCacheName=cache)
                yield answer["ServerlessCaches"][0]["Endpoint"]

    def _asking(self, user_id: str) -> AbstractContextManager[None]:
        return _translated(f"{self.title} {user_id!r}", self.service)

    def _wait_until_active(self, user_id: str, deadline: Deadline) -> None:
        what = f"{self.title} {user_id!r} to become active"
        while self.describe(user_id).get("Status") != "active":
            self._pause(deadline.wait_seconds(_POLL_SECONDS, what=what, at_least=_POLL_SECONDS))


class MemoryDBUsers(Users):
    """The users of MemoryDB's access control, whose name is their id."""

    service: ClassVar[str] = "memorydb"
    title: ClassVar[str] = "MemoryDB user"

    def _described(self, user_id: str) -> Mapping[str, Any]:
        user: Mapping[str, Any] = self._client.describe_users(UserName=user_id)["Users"][0]
        return user

    def _modify(self, user_id: str, passwords: list[str]) -> None:
        mode = {"Type": "password", "Passwords": passwords}
        self._client.update_user(UserName=user_id, AuthenticationMode=mode)

    def _endpoints(self, user: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        page: Mapping[str, Any] = {}
        while not page or page.get("NextToken"):
            page = self._client.describe_clusters(**({"NextToken": page["NextToken"]} if page else {}))
            for cluster in page["Clusters"]:
                if cluster.get("ACLName") in user.get("ACLNames", ()):
                    yield cluster["ClusterEndpoint"]


class Groups:
    """
    The replication groups that have an AUTH token.

    Args:
        client: Of boto3, for ElastiCache.

        pause: Lets seconds pass.
    """

    def __init__(self, client: Any, pause: Pause) -> None:
        self._client = client
        self._pause = pause

    def keep_only(self, group_id: str, token: Password, deadline: Deadline) -> None:
        """
        Let *token*, which is known, be the only one; return when that is so.

        Raises:
            ServerProblem: AWS would not.

            OutOfTime: It took too long; the change may still come.
        """
        try:
            self._modify(group_id, token, "SET", deadline)
        except _NothingToSetError:
            # SET is allowed only while two are known: this one is the only one already.
            log.debug("rotation.token_is_alone", role=group_id)

    def add(self, group_id: str, token: Password, deadline: Deadline) -> None:
        """Let *token* be known besides the newest of those that are; raises as `keep_only`."""
        self._modify(group_id, token, "ROTATE", deadline)

    def describe(self, group_id: str) -> Mapping[str, Any]:
        """Return what AWS says about the group; raises as `keep_only`."""
        with _translated(f"ElastiCache replication group {group_id!r}"):
            answer = self._client.describe_replication_groups(ReplicationGroupId=group_id)
        group: Mapping[str, Any] = answer["ReplicationGroups"][0]
        return group

    def _modify(self, group_id: str, token: Password, how: str, deadline: Deadline) -> None:
        self._wait_until_settled(group_id, deadline)
        with _translated(f"ElastiCache replication group {group_id!r}", is_set=how == "SET"):
            self._client.modify_replication_group(
                ReplicationGroupId=group_id,
                AuthToken=str(token),
                AuthTokenUpdateStrategy=how,
                ApplyImmediately=True,
            )
        log.info("rotation.passwords_set", role=group_id, action=how)
        self._wait_until_settled(group_id, deadline)

    def _wait_until_settled(self, group_id: str, deadline: Deadline) -> None:
        what = f"ElastiCache replication group {group_id!r} to become available"
        while not _is_settled(self.describe(group_id)):
            self._pause(deadline.wait_seconds(_POLL_SECONDS, what=what, at_least=_POLL_SECONDS))


class _NothingToSetError(Exception):
    """SET is allowed only while two tokens are known."""


@contextlib.contextmanager
def _translated(what: str, service: str = "elasticache", *, is_set: bool = False) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever boto3 raises is understood
        # Its code and no text, and not itself: AWS's words may repeat a parameter, and one is the password.
        refusal = refusal_of(error, service, repeat=False)
        if is_set and refusal.code in {"InvalidParameterCombination", "InvalidParameterValue"}:
            raise _NothingToSetError from None
        # MemoryDB has the same codes with a word behind them.
        own = _REASONS.get((refusal.code or "").removesuffix("Fault"))
        if own is not None:
            raise ServerProblem(Probe(own[0], f"{what}: {own[1]}")) from None
        probe = Probe(_reason_of(refusal), f"{what}: AWS {refusal.what}")
        raise ServerProblem(probe, next_move=refusal.next_move) from None


def _endpoint(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return where a replication group is written to; in cluster mode one address leads to all nodes."""
    found: Mapping[str, Any] = group.get("ConfigurationEndpoint") or group["NodeGroups"][0]["PrimaryEndpoint"]
    return found


def _reason_of(refusal: Refusal) -> Reason:
    if refusal.cause is Cause.UNREACHABLE:
        return Reason.NO_ANSWER
    if refusal.transient:
        return Reason.NOT_READY
    return Reason.FORBIDDEN if refusal.cause is Cause.DENIED else Reason.UNKNOWN


def _is_settled(group: Mapping[str, Any]) -> bool:
    # "available" alone is not enough: a change that waits for its turn leaves the state as it was.
    pending = group.get("PendingModifiedValues") or {}
    return group.get("Status") == "available" and "AuthTokenStatus" not in pending
