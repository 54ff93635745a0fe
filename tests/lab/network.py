# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's networks: the address plan (pure) and the ip(8) batches that make it.

One extra namespace per instance, the fabric, holds every bridge and every fault point; the machine itself gets one
veth and two routes. Only the API segments have an address in the fabric and are routed there; the migration and the
guest segment are plain bridges.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .trees import HostType

__all__ = [
    "INSTANCES",
    "AddressPlan",
    "Clusters",
    "Segment",
    "HostAddresses",
    "NetworkError",
    "fabric_batch",
    "host_batch",
    "in_namespace",
    "ip_batch",
    "machine_batch",
    "machine_networks",
    "overlaps",
]

INSTANCES = range(0, 100)
Clusters = Mapping[str, "int | list[str] | dict[str, str]"]
NETNS_DIRECTORY = Path("/run/netns")
CONTROLLER_SEGMENT = 1
FIRST_API_SEGMENT = 10
FIRST_HOST = 11
GATEWAY = 254
LONGEST_HOST_NAME = 8  # "<host>-guest" is an interface name: at most 15 characters, one of them a cluster's letter


class NetworkError(Exception):
    """A command of the network set-up failed."""


class Segment(Enum):
    """What an interface of a host is for; the value is its name inside the host."""

    API = "api"
    MIGRATION = "mig"
    GUEST = "guest"


@dataclass(frozen=True)
class HostAddresses:
    """The names and addresses of one host, addresses with their prefix lengths.

    name is the host's in the lab: the node's own name, with a letter for its cluster behind it where two clusters
    have nodes of equal names.
    """

    name: str
    node: str
    cluster: str
    index: int
    api4: ipaddress.IPv4Interface
    api6: ipaddress.IPv6Interface
    migration4: ipaddress.IPv4Interface
    migration6: ipaddress.IPv6Interface
    gateway4: ipaddress.IPv4Address
    gateway6: ipaddress.IPv6Address
    kind: HostType = HostType.SELF


@dataclass(frozen=True)
class AddressPlan:
    """Every name and address of one instance; clusters maps a cluster's name to its number of nodes (named alpha1,
    alpha2, ...), to the list of its nodes' names, or to a mapping of its nodes' names to their types (HostType)."""

    instance: int
    clusters: Clusters

    MIGRATION_SEGMENT = 30
    GUEST_SEGMENT = 40

    def __post_init__(self) -> None:
        if self.instance not in INSTANCES:
            raise ValueError("instance must be 0 to 99, got %r" % (self.instance,))
        if not 1 <= len(self.clusters) <= 20:
            raise ValueError("1 to 20 clusters, got %d" % len(self.clusters))
        everybody = [host.name for host in self.hosts()]
        if len(everybody) != len(set(everybody)):
            raise ValueError("two hosts of a cluster have the same name: %r" % (everybody,))
        for name, count in self.clusters.items():
            nodes = self.node_names(name)
            if not name.isalpha() or not name.islower() or not nodes or max(map(len, nodes)) > LONGEST_HOST_NAME:
                raise ValueError(
                    "cluster %r with %r nodes: lower case letters, node names of at most %d characters"
                    % (name, count, LONGEST_HOST_NAME)
                )

    def node_names(self, cluster: str) -> list[str]:
        """The nodes of a cluster, in order."""
        nodes = self.clusters[cluster]
        return ["%s%d" % (cluster, number) for number in range(1, nodes + 1)] if isinstance(nodes, int) else list(nodes)

    def host_type(self, cluster: str, node: str) -> HostType:
        """What a node is made of."""
        nodes = self.clusters[cluster]
        return HostType(nodes[node]) if isinstance(nodes, dict) else HostType.SELF

    @property
    def prefix(self) -> str:
        return "ccl%d" % self.instance

    @property
    def fabric(self) -> str:
        """The name of the fabric's namespace; its presence is what claims the instance number."""
        return self.prefix + "-fabric"

    @property
    def control_sockets(self) -> str:
        """Directory of ssh's control sockets: short, whatever the checkout's path is (a socket's name has a limit)."""
        return "/run/%s-ssh" % self.prefix

    def namespace(self, host: str) -> str:
        return "%s-%s" % (self.prefix, host)

    @property
    def network4(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network("10.%d.0.0/16" % (100 + self.instance))

    @property
    def network6(self) -> ipaddress.IPv6Network:
        return ipaddress.IPv6Network("fd63:636c:%x::/48" % self.instance)

    def api_segment(self, cluster: str) -> int:
        return FIRST_API_SEGMENT + list(self.clusters).index(cluster)

    def address4(self, segment: int, host: int) -> ipaddress.IPv4Interface:
        return ipaddress.IPv4Interface("10.%d.%d.%d/24" % (100 + self.instance, segment, host))

    def address6(self, segment: int, host: int) -> ipaddress.IPv6Interface:
        return ipaddress.IPv6Interface("fd63:636c:%x:%x::%x/64" % (self.instance, segment, host))

    def hosts(self) -> list[HostAddresses]:
        found: list[HostAddresses] = []
        everybody = [node for cluster in self.clusters for node in self.node_names(cluster)]
        for letter, cluster in zip("abcdefghijklmnopqrst", self.clusters):
            segment = self.api_segment(cluster)
            for node in self.node_names(cluster):
                host = FIRST_HOST + len(found)
                found.append(
                    HostAddresses(
                        name=node if everybody.count(node) == 1 else node + letter,
                        node=node,
                        cluster=cluster,
                        index=len(found),
                        api4=self.address4(segment, host),
                        api6=self.address6(segment, host),
                        migration4=self.address4(self.MIGRATION_SEGMENT, host),
                        migration6=self.address6(self.MIGRATION_SEGMENT, host),
                        gateway4=self.address4(segment, GATEWAY).ip,
                        gateway6=self.address6(segment, GATEWAY).ip,
                        kind=self.host_type(cluster, node),
                    )
                )
        return found

    @property
    def controller4(self) -> ipaddress.IPv4Interface:
        return self.address4(CONTROLLER_SEGMENT, 1)

    @property
    def controller6(self) -> ipaddress.IPv6Interface:
        return self.address6(CONTROLLER_SEGMENT, 1)

    @property
    def controller_gateway4(self) -> ipaddress.IPv4Interface:
        return self.address4(CONTROLLER_SEGMENT, GATEWAY)

    @property
    def controller_gateway6(self) -> ipaddress.IPv6Interface:
        return self.address6(CONTROLLER_SEGMENT, GATEWAY)

    def bridge(self, segment: Segment, cluster: str) -> str:
        """The fabric's bridge a host of this cluster is plugged into."""
        if segment is Segment.API:
            return "br%d" % self.api_segment(cluster)
        return "br%d" % (self.MIGRATION_SEGMENT if segment is Segment.MIGRATION else self.GUEST_SEGMENT)

    @staticmethod
    def port(segment: Segment, host: str) -> str:
        """The fabric's end of a host's cable."""
        return "%s-%s" % (host, segment.value)


def machine_batch(plan: AddressPlan) -> list[str]:
    """ip -batch lines for the machine's own namespace: namespaces, cables, one veth, two routes."""
    lines = ["netns add " + plan.namespace(host.name) for host in plan.hosts()]
    lines += [
        "link add %s type veth peer name machine netns %s" % (plan.prefix, plan.fabric),
        "addr add %s dev %s" % (plan.controller4, plan.prefix),
        "addr add %s dev %s nodad" % (plan.controller6, plan.prefix),
        "link set %s up" % plan.prefix,
        "route add %s via %s" % (plan.network4, plan.controller_gateway4.ip),
        "route add %s via %s" % (plan.network6, plan.controller_gateway6.ip),
    ]
    for host in plan.hosts():
        for segment in Segment:
            lines.append(
                "link add %s netns %s type veth peer name %s netns %s"
                % (segment.value, plan.namespace(host.name), plan.port(segment, host.name), plan.fabric)
            )
    return lines


def fabric_batch(plan: AddressPlan) -> list[str]:
    """ip -batch lines for the fabric: bridges, their addresses (API segments only), and all ports."""
    lines = [
        "link set lo up",
        "addr add %s dev machine" % plan.controller_gateway4,
        "addr add %s dev machine nodad" % plan.controller_gateway6,
        "link set machine up",
    ]
    for cluster in plan.clusters:
        number = plan.api_segment(cluster)
        lines += [
            "link add br%d type bridge" % number,
            "addr add %s dev br%d" % (plan.address4(number, GATEWAY), number),
            "addr add %s dev br%d nodad" % (plan.address6(number, GATEWAY), number),
        ]
    lines += ["link add br%d type bridge" % number for number in (plan.MIGRATION_SEGMENT, plan.GUEST_SEGMENT)]
    for host in plan.hosts():
        for segment in Segment:
            lines.append(
                "link set %s master %s up" % (plan.port(segment, host.name), plan.bridge(segment, host.cluster))
            )
    bridges = {plan.bridge(segment, cluster) for segment in Segment for cluster in plan.clusters}
    return lines + ["link set %s up" % bridge for bridge in sorted(bridges)]


def host_batch(plan: AddressPlan, host: HostAddresses) -> list[str]:
    """ip -batch lines inside a host: addresses, default routes, vmbr0 on the guest network, vmbr1 without a port."""
    return [
        "link set lo up",
        "addr add %s dev api" % host.api4,
        "addr add %s dev api nodad" % host.api6,
        "addr add %s dev mig" % host.migration4,
        "addr add %s dev mig nodad" % host.migration6,
        "link add vmbr0 type bridge",
        "link add vmbr1 type bridge",
        "link set guest master vmbr0",
        *("link set %s up" % link for link in ("api", "mig", "guest", "vmbr0", "vmbr1")),
        "route add default via %s" % host.gateway4,
        "route add default via %s" % host.gateway6,
    ]


def in_namespace(namespace: str) -> list[str]:
    """The argv prefix that runs a command in a network namespace (by nsenter, which remounts nothing)."""
    return ["nsenter", "--net=%s" % (NETNS_DIRECTORY / namespace)]


def ip_batch(lines: list[str], namespace: str | None = None) -> None:
    """Run ip(8) commands in one process, in the given namespace or the machine's own."""
    argv = (in_namespace(namespace) if namespace else []) + ["ip", "-batch", "-"]
    done = subprocess.run(argv, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkError("ip in %s: %s" % (namespace or "the machine", done.stderr.strip()))


def machine_networks() -> list[ipaddress.IPv4Network]:
    """The IPv4 networks the machine already routes."""
    done = subprocess.run(
        ["ip", "-json", "-4", "route", "show", "table", "all"], capture_output=True, text=True, check=False
    )
    found = []
    for route in json.loads(done.stdout or "[]"):
        try:
            found.append(ipaddress.IPv4Network(route.get("dst", ""), strict=False))
        except ValueError:
            continue  # "default"
    return found


def overlaps(plan: AddressPlan, networks: list[ipaddress.IPv4Network]) -> bool:
    """Whether the machine uses part of this instance's addresses; a wider route of its own (a VPN's 10/8) does not
    hinder, because the lab's route is more specific."""
    return any(network.prefixlen >= plan.network4.prefixlen and network.overlaps(plan.network4) for network in networks)
