# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What POST remote_migrate checks before its task starts, in the real order (mtunnel-protocol 2.1, 2.2 and 6.2)."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional

from lab.api.schema import Field, boolean, check, enum, integer, string
from lab.node import vmconfig
from lab.node.base import Die, May, Node, ParamError, complain, may_all
from lab.node.cluster import Cluster
from lab.node.ha import Resources
from lab.node.process import pid

from .endpoint import Endpoint, IdMap
from .job import Wanted
from .rest import Remote

__all__ = ["check_target", "wanted"]

PROPERTIES: Dict[str, Field] = {
    "node": string(),
    "vmid": string(format="vmid"),
    "target-endpoint": string(),
    "target-storage": string(),
    "target-bridge": string(),
    "target-vmid": string(format="vmid", optional=True),
    "online": boolean(optional=True),
    "delete": boolean(optional=True),
    "bwlimit": integer(optional=True, minimum=0),
}
PATCHED: Dict[str, Field] = {
    "migration_type": enum("secure", "insecure", optional=True),
    "migration_network": string(optional=True, format="cidr"),
}


def wanted(node: Node, params: Mapping[str, Any], may: Optional[May], patched: bool) -> Wanted:
    """The migration that is asked for, or the first reason against it. may None: root@pam."""
    found = check({**PROPERTIES, **(PATCHED if patched else {})}, params)
    insecure, network = found.get("migration_type") == "insecure", found.get("migration_network")
    if insecure or network:
        may_all(may, "/", ["Sys.Modify"])
    vmid = int(found["vmid"])
    Cluster(node).check_quorum()
    config = vmconfig.load(node, vmid)
    vmconfig.check_lock(config)
    if Resources(node).state(vmid) is not None:
        raise ParamError({"vmid": "cannot remote-migrate VM that is configured for HA"})
    endpoint = Endpoint.parse(found["target-endpoint"])
    os.write(1, f"Establishing API connection with remote at '{endpoint.host}'\n".encode())
    if endpoint.fingerprint is None:
        endpoint = Remote(endpoint).pin()
    _check_source(node, vmid, found)
    _check_cpu(config, endpoint)
    storages = IdMap.parse("target-storage", found["target-storage"])
    bridges = IdMap.parse("target-bridge", found["target-bridge"])
    if storages.identity:
        raise Die("remote migration requires explicit storage mapping!")
    return Wanted(
        vmid,
        int(found.get("target-vmid") or vmid),
        _target_node(endpoint),
        endpoint,
        storages,
        bridges,
        bool(found.get("online")),
        bool(found.get("delete")),
        found.get("bwlimit"),
        insecure,
        network,
    )


def _check_source(node: Node, vmid: int, found: Dict[str, Any]) -> None:
    jobs = Cluster(node).sections("/etc/pve/replication.cfg")
    if any(name.split("-")[0] == str(vmid) for name in jobs):
        raise Die("cannot remote-migrate replicated VM")
    if pid(node, vmid) is not None:
        if not found.get("online"):
            raise Die("can't migrate running VM without --online")
    elif found.pop("online", False):
        complain("VM isn't running. Doing offline migration instead.")


def _check_cpu(config: vmconfig.VmConfig, endpoint: Endpoint) -> None:
    """A custom CPU model must be there on the target as well (since 9.1.19)."""
    kind = config.values.get("cpu", "").split(",")[0].rpartition("=")[2]
    if kind.startswith("custom-"):
        Remote(endpoint).get(f"/cluster/qemu/custom-cpu-models/{kind}")


def _target_node(endpoint: Endpoint) -> str:
    """The node that answers; needs Sys.Audit on / there."""
    entries: List[Dict[str, Any]] = Remote(endpoint).get("/cluster/status")
    name = next((entry["name"] for entry in entries if entry["type"] == "node" and entry.get("local")), None)
    if name is None:
        raise Die("unable to determine the name of the target node")
    return str(name)


def check_target(params: Mapping[str, str]) -> None:
    """What only `qm remote-migrate` checks: a free VMID, and each mapped storage listed for images."""
    endpoint = Endpoint.parse(params["target-endpoint"])
    remote = Remote(endpoint if endpoint.fingerprint else Remote(endpoint).pin())
    vmid = int(params["target-vmid"])
    if any(entry.get("vmid") == vmid for entry in remote.get("/cluster/resources?type=vm")):
        raise ParamError({"target_vmid": f"Guest with ID '{vmid}' already exists on remote cluster"})
    known = {entry["storage"]: entry for entry in remote.get("/nodes/localhost/storage?enabled=1")}
    storages = IdMap.parse("target-storage", params["target-storage"])
    for sid in sorted({*storages.entries.values(), *([storages.default] if storages.default else [])}):
        if sid not in known:
            raise Die(f"remote: storage '{sid}' does not exist (or missing permission)!")
        if "images" not in known[sid].get("content", "").split(","):
            raise Die(f"remote: storage '{sid}' cannot store images")
