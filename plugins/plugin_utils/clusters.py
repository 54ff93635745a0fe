# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared clusters as typed values: what stands in the variable ``crosscluster_clusters``.

Knows names, defaults and what is required. Does not ask any cluster anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Tuple

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side

from .errors import ClustersInvalid, ClusterUnknown, NodeUnknown

__all__ = ["Cluster", "Clusters", "Endpoint", "Node", "parse_pool"]

VARIABLE = "crosscluster_clusters"
_API_KEYS = ("api_host", "api_port", "api_user", "api_token_id", "api_token_secret")
_CERTIFICATE_KEYS = ("validate_certs", "ca_path", "fingerprint")
_CLUSTER_KEYS = frozenset((*_API_KEYS, *_CERTIFICATE_KEYS, "vmid_pool", "target_root", "nodes"))
_NODE_KEYS = frozenset(("inventory_host", "api_host", "fingerprint", "migration_address", "certificate_name"))
_POOL = re.compile(r"([1-9][0-9]{2,8})-([1-9][0-9]{2,8})")


@dataclass(frozen=True)
class Endpoint:
    """One API address and what proves that it is the right one; the secret is kept out of ``repr``."""

    host: str
    port: int
    user: str
    token_id: str
    fingerprint: Optional[str]
    ca_path: Optional[str]
    validate_certs: bool


@dataclass(frozen=True)
class Node:
    """A node of a cluster, and the inventory host through which Ansible reaches it."""

    name: str
    inventory_host: str
    api_host: Optional[str]
    fingerprint: Optional[str]
    migration_address: Optional[str]
    certificate_name: str


@dataclass(frozen=True)
class Cluster:
    """A declared cluster."""

    name: str
    api_host: Optional[str]
    api_port: int
    api_user: Optional[str]
    api_token_id: Optional[str]
    validate_certs: bool
    ca_path: Optional[str]
    fingerprint: Optional[str]
    vmid_pool: Optional[Tuple[int, int]]
    target_root: bool
    nodes: Mapping[str, Node]

    @classmethod
    def parse(cls, name: str, raw: Any) -> Cluster:
        """Checks one entry of the variable.

        Raises:
            ClustersInvalid: names the entry, never its value.
        """
        where = f"{VARIABLE}.{name}"
        raw = _dictionary(where, raw, _CLUSTER_KEYS)
        declared = _dictionary(f"{where}.nodes", raw.get("nodes"), None)
        if not declared:
            raise _invalid(f"{where}.nodes", "names no node")
        return cls(
            name=name,
            api_host=_text(where, raw, "api_host"),
            api_port=_port(where, raw.get("api_port", 8006)),
            api_user=_text(where, raw, "api_user"),
            api_token_id=_text(where, raw, "api_token_id"),
            validate_certs=_flag(where, raw, "validate_certs", default=True),
            ca_path=_text(where, raw, "ca_path"),
            fingerprint=_text(where, raw, "fingerprint"),
            vmid_pool=parse_pool(f"{where}.vmid_pool", raw.get("vmid_pool")),
            target_root=_flag(where, raw, "target_root", default=False),
            nodes={str(node): _node(name, str(node), entry) for node, entry in declared.items()},
        )

    @property
    def has_token(self) -> bool:
        """Whether the API of this cluster can be asked at all."""
        return bool(self.api_user and self.api_token_id)

    def node(self, name: str) -> Node:
        """The declared node.

        Raises:
            NodeUnknown: it is not declared.
        """
        if name not in self.nodes:
            raise NodeUnknown(
                f"node {name} of cluster {self.name} is not declared",
                side=Side.CONTROLLER,
                object=f"{VARIABLE}.{self.name}.nodes",
                remedy=f"Declare it; declared are: {', '.join(sorted(self.nodes))}.",
            )
        return self.nodes[name]

    def cluster_endpoint(self) -> Endpoint:
        """Where questions about the whole cluster go."""
        if self.api_host:
            return self._endpoint(self.api_host, self.fingerprint)
        return self.node_endpoint(next(iter(self.nodes.values())))

    def node_endpoint(self, node: Node) -> Endpoint:
        """Where this very node answers; the address of the cluster serves for a cluster of one node."""
        only = len(self.nodes) == 1
        host = node.api_host or (self.api_host if only else None)
        if not host:
            raise _invalid(
                f"{VARIABLE}.{self.name}.nodes.{node.name}",
                "has no api_host, and the tunnel is not passed on from one node to another",
            )
        same = host == self.api_host or only
        return self._endpoint(host, node.fingerprint or (self.fingerprint if same else None))

    def _endpoint(self, host: str, fingerprint: Optional[str]) -> Endpoint:
        if not self.api_user or not self.api_token_id:
            raise _invalid(f"{VARIABLE}.{self.name}", "needs api_user and api_token_id")
        return Endpoint(
            host, self.api_port, self.api_user, self.api_token_id, fingerprint, self.ca_path, self.validate_certs
        )


class Clusters:
    """All declared clusters by name."""

    def __init__(self, raw: Any) -> None:
        self._raw = _dictionary(VARIABLE, raw, None)

    def get(self, name: Any) -> Cluster:
        """The cluster of that name.

        Raises:
            ClusterUnknown: it is not declared.
            ClustersInvalid: its entry is wrong.
        """
        if not isinstance(name, str) or name not in self._raw:
            raise ClusterUnknown(
                f"cluster {name} is not declared" if isinstance(name, str) and name else "no cluster is named",
                side=Side.CONTROLLER,
                object=VARIABLE,
                remedy=f"Declared are: {', '.join(sorted(map(str, self._raw))) or 'none'}.",
            )
        return Cluster.parse(str(name), self._raw[name])

    def secret(self, name: str) -> Optional[str]:
        """The secret of the cluster's token, kept apart from everything that may be printed."""
        entry = self._raw.get(name)
        return (str(entry.get("api_token_secret") or "") or None) if isinstance(entry, Mapping) else None


def _invalid(where: str, what: str) -> ClustersInvalid:
    return ClustersInvalid(
        f"{where} {what}", side=Side.CONTROLLER, object=where, remedy="See examples/inventory.yml of the collection."
    )


def _dictionary(where: str, raw: Any, known: Optional[frozenset]) -> Dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise _invalid(where, "must be a dictionary")
    unknown = sorted(set(raw) - known) if known is not None else []
    if unknown:
        raise _invalid(where, f"has the unknown key {unknown[0]}; known are {', '.join(sorted(known or ()))}")
    return dict(raw)


def _text(where: str, raw: Mapping[str, Any], key: str) -> Optional[str]:
    value = raw.get(key)
    if value in (None, ""):
        return None
    if not isinstance(value, str):
        raise _invalid(f"{where}.{key}", "must be text")
    return str(value)


def _flag(where: str, raw: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = raw.get(key, default)
    if not isinstance(value, bool):
        raise _invalid(f"{where}.{key}", "must be true or false")
    return bool(value)


def _port(where: str, value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise _invalid(f"{where}.api_port", "must be a port from 1 to 65535")
    return int(text)


def parse_pool(where: str, value: Any) -> Optional[Tuple[int, int]]:
    """The two ends of a range of VMIDs, None if none is given."""
    if value in (None, ""):
        return None
    match = _POOL.fullmatch(str(value))
    if not match or int(match.group(1)) > int(match.group(2)):
        raise _invalid(where, 'must be two numbers with a hyphen, such as "20000-20999"')
    return int(match.group(1)), int(match.group(2))


def _node(cluster: str, name: str, raw: Any) -> Node:
    where = f"{VARIABLE}.{cluster}.nodes.{name}"
    raw = _dictionary(where, {} if raw is None else raw, _NODE_KEYS)
    return Node(
        name=name,
        inventory_host=_text(where, raw, "inventory_host") or f"{cluster}-{name}",
        api_host=_text(where, raw, "api_host"),
        fingerprint=_text(where, raw, "fingerprint"),
        migration_address=_text(where, raw, "migration_address"),
        certificate_name=_text(where, raw, "certificate_name") or name,
    )
