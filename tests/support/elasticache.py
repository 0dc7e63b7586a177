"""
ElastiCache's API for passwords, in front of a real Valkey.

Stands in for four operations of AWS's, which nothing local offers: ModifyUser, DescribeUsers,
ModifyReplicationGroup and DescribeReplicationGroups.  After AWS's documentation: a change is taken at once
and applied later, meanwhile another one is refused; a user has two passwords at most; ROTATE keeps the newest
token and drops the oldest of two; SET is for one of two known tokens.  What it applies is real: the Valkey
behind it accepts exactly the passwords that ElastiCache would.  How long AWS takes, and what its nodes do
meanwhile, it cannot show.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from ledger_db.rotation.redis import hashed
from tests.support.redis_world import acl

if TYPE_CHECKING:
    import redis

_TOKEN = re.compile(r"[A-Za-z0-9!&#$^<>-]{16,128}")
_PASSWORD = re.compile(r"""[^\s",/@]{16,128}""")


class ElastiCacheDouble:
    """
    One user and one replication group, both of which are the same user of the Valkey.

    Args:
        connect: Makes a client of the Valkey that may do everything.

        user: Whose passwords they are there.

        known: The password that is known in the beginning.

        looks_to_settle: How often a change is seen as not yet applied.
    """

    def __init__(
        self, connect: Callable[[], "redis.Redis"], user: str, known: str, *, looks_to_settle: int = 2
    ) -> None:
        self._connect = connect
        self._user = user
        self._looks_to_settle = looks_to_settle
        self._unsettled = 0
        # Newest last.
        self.passwords = [known]
        self.calls: list[str] = []
        self.paused_seconds = 0.0
        # Set to have every operation refused with that code.
        self.refuse_with: str | None = None
        self.stuck = False
        # Applies nothing, although it says so: nodes that lag behind.
        self.lag_looks = 0

    def pause(self, seconds: float) -> None:
        """Let time pass, which nobody has to wait for; nodes that lag behind catch up."""
        self.paused_seconds += seconds
        if self.lag_looks:
            self.lag_looks -= 1
            if not self.lag_looks:
                self._apply()

    def modify_user(self, *, UserId: str, Passwords: list[str]) -> Mapping[str, Any]:  # noqa: N803 - AWS's names
        """Replace all passwords of the user, later."""
        self._begin("modify_user", busy="InvalidUserState")
        if not 1 <= len(Passwords) <= 2 or len(set(Passwords)) != len(Passwords):
            raise _refused("InvalidParameterCombination")
        if not all(_PASSWORD.fullmatch(password) for password in Passwords):
            raise _refused("InvalidParameterValue")
        self._change(Passwords)
        return {"UserId": UserId, "Status": "modifying"}

    def describe_users(self, *, UserId: str) -> Mapping[str, Any]:  # noqa: N803
        """Say what state the user is in."""
        self._begin("describe_users")
        if UserId != "app-user-id":
            raise _refused("UserNotFound")
        return {
            "Users": [
                {
                    "UserId": UserId,
                    "Status": "active" if self._settled() else "modifying",
                    "Authentication": {"Type": "password", "PasswordCount": len(self.passwords)},
                }
            ]
        }

    def modify_replication_group(
        self,
        *,
        ReplicationGroupId: str,  # noqa: N803
        AuthToken: str,  # noqa: N803
        AuthTokenUpdateStrategy: str,  # noqa: N803
        ApplyImmediately: bool,  # noqa: N803
    ) -> Mapping[str, Any]:
        """Add a token, or keep only one of two, later."""
        self._begin(
            f"modify_replication_group {AuthTokenUpdateStrategy}", busy="InvalidReplicationGroupState"
        )
        if not _TOKEN.fullmatch(AuthToken):
            raise _refused("InvalidParameterValue")
        if AuthTokenUpdateStrategy == "ROTATE":
            self._change([*self.passwords[-1:], AuthToken])
        elif len(self.passwords) == 2 and AuthToken in self.passwords:
            self._change([AuthToken])
        else:
            raise _refused("InvalidParameterCombination")
        return {"ReplicationGroup": {"ReplicationGroupId": ReplicationGroupId, "Status": "modifying"}}

    def describe_replication_groups(self, *, ReplicationGroupId: str) -> Mapping[str, Any]:  # noqa: N803
        """Say what state the group is in."""
        self._begin("describe_replication_groups")
        if ReplicationGroupId != "app-group":
            raise _refused("ReplicationGroupNotFoundFault")
        settled = self._settled()
        return {
            "ReplicationGroups": [
                {
                    "ReplicationGroupId": ReplicationGroupId,
                    "Status": "available" if settled else "modifying",
                    "AuthTokenEnabled": True,
                    "PendingModifiedValues": {} if settled else {"AuthTokenStatus": "ROTATING"},
                }
            ]
        }

    def _begin(self, operation: str, *, busy: str | None = None) -> None:
        self.calls.append(operation)
        if self.refuse_with is not None:
            raise _refused(self.refuse_with)
        if busy is not None and self._unsettled:
            raise _refused(busy)

    def _change(self, passwords: list[str]) -> None:
        self.passwords = list(passwords)
        self._unsettled = self._looks_to_settle + 1

    def _settled(self) -> bool:
        if self._unsettled and not self.stuck:
            self._unsettled -= 1
            if not self._unsettled and not self.lag_looks:
                self._apply()
        return not self._unsettled

    def _apply(self) -> None:
        with closing(self._connect()) as admin:
            acl(admin, "SETUSER", self._user, "resetpass", *(hashed(each) for each in self.passwords))


def _refused(code: str) -> ClientError:
    # AWS's texts may repeat what was sent.
    return ClientError({"Error": {"Code": code, "Message": "text with a canary in it"}}, "Modify")
