"""
By which names does RDS know one server?

A cluster has a writer's and a reader's endpoint, custom ones, and one for each of its instances; an instance
has replicas; either may have proxies.  RDS itself is asked, which is why the answer can be trusted with an
administrator's login: nobody gets a name into it by writing a secret, or a record of DNS.
"""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final

from ledger_db.rotation.failures import asking

ASKED: Final = "RDS, asked where the administrator belongs,"
_PROXY: Final = ".proxy-"

Element = Mapping[str, Any]


def plain(host: str) -> str:
    """Return *host* in the one spelling by which two names, or two addresses, are compared."""
    # The folder of a socket: /A and /a are two.
    if host.startswith("/"):
        return host
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower().removesuffix(".")


def is_of_rds(host: str) -> bool:
    """Whether *host* is a name that RDS gives, so that there is somebody to ask."""
    return ".rds." in plain(host)


def is_proxy(host: str) -> bool:
    """Whether *host* is a proxy of RDS, which logs in to a server with passwords of its own."""
    return is_of_rds(host) and _PROXY in plain(host)


class RdsNames:
    """
    What RDS tells about its servers.

    Args:
        rds: A client of boto3.
    """

    def __init__(self, rds: Any) -> None:
        self._rds = rds

    def are_one_server(self, host: str, admin_host: str) -> bool:
        """
        Whether *host* is a name of the server that takes changes at *admin_host*.

        A replica is: its roles are those of its source.  The other way round is no match, as a replica takes
        no changes.

        Raises:
            Stopped: RDS could not be asked.
        """
        host, admin_host = plain(host), plain(admin_host)
        with asking("rds", ASKED):
            instances = list(self._all("describe_db_instances", "DBInstances"))
            cluster = next((one for one in self._clusters(instances) if admin_host in one.names), None)
            server = cluster or _instance(admin_host, instances)
            if server is None:
                return False
            return self._is_proxy_of(host, server) if is_proxy(host) else host in server.names

    def _clusters(self, instances: list[Element]) -> "Iterator[_Server]":
        for cluster in self._all("describe_db_clusters", "DBClusters"):
            identifier = cluster.get("DBClusterIdentifier")
            members = {one.get("DBInstanceIdentifier") for one in cluster.get("DBClusterMembers", ())}
            names = [
                cluster.get("Endpoint"),
                cluster.get("ReaderEndpoint"),
                *cluster.get("CustomEndpoints", ()),
            ]
            names += [
                _address(one)
                for one in instances
                if one["DBInstanceIdentifier"] in members or one.get("DBClusterIdentifier", "") == identifier
            ]
            yield _Server({str(identifier), *map(str, members)}, names)

    def _is_proxy_of(self, host: str, server: "_Server") -> bool:
        targets = (
            target
            for name in self._proxies_at(host)
            for target in self._all("describe_db_proxy_targets", "Targets", DBProxyName=name)
        )
        return any(
            server.identifiers & {target.get("TrackedClusterId"), target.get("RdsResourceId")}
            for target in targets
        )

    def _proxies_at(self, host: str) -> Iterator[str]:
        for operation, key in (
            ("describe_db_proxies", "DBProxies"),
            ("describe_db_proxy_endpoints", "DBProxyEndpoints"),
        ):
            for one in self._all(operation, key):
                if plain(one.get("Endpoint") or "") == host:
                    yield one["DBProxyName"]

    def _all(self, operation: str, key: str, **which: str) -> Iterator[Element]:
        for page in self._rds.get_paginator(operation).paginate(**which):
            yield from page.get(key, ())


class _Server:
    """What RDS knows one server by: its own *identifiers*, and *names* that lead there."""

    def __init__(self, identifiers: set[str], names: list[str | None]) -> None:
        self.identifiers = identifiers
        self.names = {plain(name) for name in names if name}


def _instance(admin_host: str, instances: list[Element]) -> _Server | None:
    found = next((one for one in instances if admin_host == plain(_address(one) or "")), None)
    # With a source it is a replica itself.
    if found is None:
        return None
    family, size = {str(found["DBInstanceIdentifier"])}, 0
    # A replica in another region names its source by ARN; the administrator is of this region, so no match.
    while size < len(family):
        size = len(family)
        family |= {
            str(one["DBInstanceIdentifier"])
            for one in instances
            if one.get("ReadReplicaSourceDBInstanceIdentifier") in family
        }
    names = [_address(one) for one in instances if one["DBInstanceIdentifier"] in family]
    return _Server({str(found["DBInstanceIdentifier"])}, names)


def _address(instance: Element) -> str | None:
    # None while it is being made.
    address: str | None = instance.get("Endpoint", {}).get("Address")
    return address
