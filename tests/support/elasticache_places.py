"""What do ElastiCache and MemoryDB say of where a user logs in?"""

from collections.abc import Mapping
from typing import Any

from tests.support.elasticache import ElastiCacheDouble


class Located(ElastiCacheDouble):
    """
    ElastiCache that knows where the user logs in, and MemoryDB with the same user.

    Its own description of MemoryDB: DescribeUsers and UpdateUser take a name, and a change is under way until
    it is "active"; what they do to passwords is as in ElastiCache.
    """

    caches: tuple[str, ...] = ("ReplicationGroups",)

    def describe_users(self, *, UserId: str = "", UserName: str = "") -> Mapping[str, Any]:  # noqa: N803
        """Say which groups it is in, besides its state."""
        user = super().describe_users(UserId=UserId or "app-user-id")["Users"][0]
        return {"Users": [{**user, "UserName": self._user, "UserGroupIds": ["g"], "ACLNames": ["acl"]}]}

    def describe_user_groups(self, *, UserGroupId: str) -> Mapping[str, Any]:  # noqa: N803
        """Say what the group is for."""
        assert UserGroupId == "g"
        return {"UserGroups": [{kind: ["cache"] for kind in self.caches}]}

    def describe_replication_groups(self, *, ReplicationGroupId: str) -> Mapping[str, Any]:  # noqa: N803
        """Say where it is, without cluster mode."""
        assert ReplicationGroupId == "cache"
        return {"ReplicationGroups": [{"NodeGroups": [{"PrimaryEndpoint": self._endpoint()}]}]}

    def describe_serverless_caches(self, *, ServerlessCacheName: str) -> Mapping[str, Any]:  # noqa: N803
        """Say where a serverless one is."""
        assert ServerlessCacheName == "cache"
        return {"ServerlessCaches": [{"Endpoint": self._endpoint()}]}

    def describe_clusters(self, *, NextToken: str = "") -> Mapping[str, Any]:  # noqa: N803
        """List MemoryDB's clusters, one a page; the second has the user."""
        if not NextToken:
            other = {"ACLName": "another", "ClusterEndpoint": {"Address": "not.asked.example", "Port": 1}}
            return {"Clusters": [other], "NextToken": "2"}
        return {"Clusters": [{"ACLName": "acl", "ClusterEndpoint": self._endpoint()}]}

    def update_user(self, *, UserName: str, AuthenticationMode: Mapping[str, Any]) -> None:  # noqa: N803
        """Replace all passwords of the user, later."""
        assert AuthenticationMode["Type"] == "password"
        self.modify_user(UserId=UserName, Passwords=AuthenticationMode["Passwords"])

    def _endpoint(self) -> Mapping[str, Any]:
        with self._connect() as admin:
            given = admin.connection_pool.connection_kwargs
        return {"Address": given["host"], "Port": given["port"]}
