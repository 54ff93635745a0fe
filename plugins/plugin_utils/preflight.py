# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the target node can take a VM: everything a token can find out without changing anything.

Knows the questions and what a good answer is (mtunnel-protocol 3.1, pve-cli 7). Asks through an ``Api`` that is passed
in. The worker asks again on its own, right before it acts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    ApiError,
    ApiRefused,
    PrivilegeMissing,
)

from .errors import (
    BridgeUnknown,
    ClustersInvalid,
    DiskUnmapped,
    NicUnmapped,
    NodeOffline,
    NodeUnknown,
    PoolExhausted,
    SpaceShort,
    StorageUnusable,
    VersionTooOld,
    VmidOccupied,
)
from .locate import Disk, Resource
from .proxmox_api import Api
from .rights import needs_startup_right, vlans_of, vm_rights

__all__ = ["Wish", "check_target", "target_vmid"]

OLDEST = (7, 3)  # mtunnel-protocol 10.1
_UUID = re.compile(r"(?:^|,)uuid=([0-9A-Fa-f-]{36})(?:,|$)")
_BRIDGE_TYPES = frozenset({"bridge", "OVSBridge"})
# pve-cli 7: what a token needs for any VM; VM.Audit is not implied by VM.Allocate.
_VM_PRIVILEGES = ("VM.Allocate", "VM.Audit")


@dataclass(frozen=True)
class Wish:
    """What is to become of a VM: its identity, its parts, and where each of them goes."""

    uuid: str
    source_vmid: int
    node: str
    vmid: str
    vmid_pool: Optional[Tuple[int, int]]
    disks: Tuple[Disk, ...]
    nics: Tuple[str, ...]
    storage_of: Mapping[str, str]
    bridge_of: Mapping[str, str]
    tag_of: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    def storages(self) -> Dict[str, int]:
        """Bytes that each storage has to have room for at once.

        Raises:
            DiskUnmapped: STORAGE_UNMAPPED.
        """
        needed: Dict[str, int] = {}
        for disk in self.disks:
            storage = self.storage_of.get(disk.key) or self.storage_of.get("default")
            if not storage:
                raise DiskUnmapped(
                    f"disk {disk.key} of VM {self.source_vmid} has no storage on the target",
                    side=Side.CONTROLLER,
                    object=f"disks.{disk.key}",
                    remedy=f"Name one in disks, as {disk.key} or as default.",
                )
            needed[storage] = needed.get(storage, 0) + (disk.size if disk.imported else 0)
        return needed

    def bridges(self) -> Dict[str, List[str]]:
        """The NICs on each bridge that is needed.

        Raises:
            NicUnmapped: BRIDGE_UNMAPPED.
        """
        needed: Dict[str, List[str]] = {}
        for nic in self.nics:
            bridge = self.bridge_of.get(nic) or self.bridge_of.get("default")
            if not bridge:
                raise NicUnmapped(
                    f"NIC {nic} of VM {self.source_vmid} has no bridge on the target",
                    side=Side.CONTROLLER,
                    object=f"nics.{nic}",
                    remedy=f"Name one in nics, as {nic} or as default.",
                )
            needed.setdefault(bridge, []).append(nic)
        return needed


def target_vmid(api: Api, wish: Wish, present: List[Resource]) -> Tuple[int, bool]:
    """The number the VM will have (from a pool: the first that is free now), and whether it is there already.

    Raises:
        VmidOccupied: VMID_TAKEN.
        PoolExhausted: POOL_EXHAUSTED.
    """
    taken = {vm.vmid: vm for vm in present}
    if wish.vmid == "pool":
        low, high = _bounds(wish)
        for vm in present:
            if low <= vm.vmid <= high and _uuid(api, vm) == wish.uuid:
                return vm.vmid, True
        for vmid in range(low, high + 1):
            if vmid not in taken:
                return vmid, False
        raise PoolExhausted(
            f"no number from {low} to {high} is free", side=Side.TARGET, object="target.vmid_pool", remedy="Widen it."
        )
    vmid = wish.source_vmid if wish.vmid == "same" else int(wish.vmid)
    if vmid not in taken:
        return vmid, False
    found = _uuid(api, taken[vmid])
    # Without a uuid it is a reservation, perhaps that of the very move that is asked for: the worker knows.
    if found and found != wish.uuid:
        raise VmidOccupied(
            f"VM {vmid} of the target cluster is another VM ({taken[vmid].name or 'without a name'})",
            side=Side.TARGET,
            object=f"VM {vmid}",
            remedy="Choose another number, or vmid: pool with a vmid_pool.",
        )
    return vmid, True


def _bounds(wish: Wish) -> Tuple[int, int]:
    if wish.vmid_pool is None:
        raise ClustersInvalid(
            "vmid: pool needs a vmid_pool", side=Side.CONTROLLER, object="target.vmid_pool", remedy="Declare one."
        )
    return wish.vmid_pool


def _uuid(api: Api, vm: Resource) -> Optional[str]:
    """The uuid of a VM of the target, None when it has none or the token may not look."""
    try:
        config = api.get("nodes", vm.node, "qemu", str(vm.vmid), "config")
    except ApiError:
        return None
    match = _UUID.search(str(config.get("smbios1") or "")) if isinstance(config, Mapping) else None
    return match.group(1).lower() if match else None


def check_target(api: Api, wish: Wish, vmid: int) -> None:
    """Asks for everything the VM will need on the target node, and stops at the first thing that is missing.

    Raises:
        PlacementError: the code names what is missing.
        ApiError: the token or the API does not serve.
    """
    _check_version(api)
    _check_node(api, wish.node)
    storages, bridges = wish.storages(), wish.bridges()
    _check_rights(api, wish, vmid, storages)
    _check_storages(api, wish.node, storages)
    _check_bridges(api, wish, bridges)


def _check_version(api: Api) -> None:
    version = str((api.get("version") or {}).get("version", ""))
    match = re.match(r"([0-9]+)\.([0-9]+)", version)
    if not match or (int(match.group(1)), int(match.group(2))) < OLDEST:
        raise VersionTooOld(
            f"the target has version {version or 'unknown'}; needed is {OLDEST[0]}.{OLDEST[1]} or newer",
            side=Side.TARGET,
            object="version",
        )


def _check_node(api: Api, node: str) -> None:
    nodes = {str(entry.get("node")): str(entry.get("status", "unknown")) for entry in api.get("nodes") or []}
    if node not in nodes:
        raise NodeUnknown(
            f"the target cluster has no node {node}",
            side=Side.TARGET,
            object=f"node {node}",
            remedy=f"It has: {', '.join(sorted(nodes)) or 'none that this token sees'}.",
        )
    if nodes[node] == "offline":
        raise NodeOffline(f"node {node} of the target cluster is offline", side=Side.TARGET, object=f"node {node}")


def _held(api: Api, path: str) -> Mapping[str, Any]:
    """What the token may do on a path.

    A privilege that is named is held, whatever its value: that only says whether the entry propagates, and is always 0
    for what a pool gives (pve-access-control, RPCEnvironment: "a key being defined means the priv is set").
    """
    return (api.get("access", "permissions", path=path) or {}).get(path) or {}


def _check_rights(api: Api, wish: Wish, vmid: int, storages: Mapping[str, int]) -> None:
    wanted: Dict[str, Set[Tuple[str, ...]]] = {"/": {("Sys.Incoming",)}}
    if needs_startup_right(wish.config):
        wanted["/"].add(("Sys.Modify",))
    wanted[f"/vms/{vmid}"] = {(privilege,) for privilege in _VM_PRIVILEGES} | vm_rights(wish.config)
    for storage in sorted(storages):
        wanted[f"/storage/{storage}"] = {("Datastore.AllocateSpace",)}
    for path, choices in wanted.items():
        held = _held(api, path)
        missing = sorted(" or ".join(choice) for choice in choices if not set(choice) & set(held))
        if missing:
            raise _missing(", ".join(missing), path)


def _missing(privileges: str, path: str) -> PrivilegeMissing:
    return PrivilegeMissing(
        f"the token lacks {privileges} on {path}",
        object=path,
        remedy="Grant it to the token, and to its user if the token has separate privileges.",
    )


def _check_storages(api: Api, node: str, needed: Mapping[str, int]) -> None:
    there = {str(entry.get("storage")): entry for entry in api.get("nodes", node, "storage") or []}
    for storage, size in sorted(needed.items()):
        entry = there.get(storage)
        problem = _storage_problem(entry)
        if problem or entry is None:
            raise StorageUnusable(
                f"storage {storage} of node {node} {problem}",
                side=Side.TARGET,
                object=f"storage {storage}",
                remedy=f"The node has: {', '.join(sorted(there)) or 'none that this token sees'}.",
            )
        free = entry.get("avail")
        if free is not None and int(free) < size:
            raise SpaceShort(
                f"storage {storage} of node {node} has {int(free)} bytes left, the disks take up to {size}",
                side=Side.TARGET,
                object=f"storage {storage}",
                facts={"free_bytes": int(free), "needed_bytes": size},
            )


def _storage_problem(entry: Optional[Mapping[str, Any]]) -> str:
    if entry is None:
        return "does not exist"
    if str(entry.get("enabled", 1)) == "0":
        return "is disabled"
    if str(entry.get("active", 1)) == "0":
        return "is not active"
    content = str(entry.get("content") or "images").split(",")
    return "" if "images" in content else "does not take disks of VMs (content images)"


def _check_bridges(api: Api, wish: Wish, needed: Mapping[str, List[str]]) -> None:
    if not needed:
        return
    node = wish.node
    try:
        listed = api.get("nodes", node, "network", type="any_bridge")
    except ApiRefused:  # an older API does not know the type; its list has every interface
        listed = api.get("nodes", node, "network")
    there = {
        str(entry.get("iface")): str(entry.get("type") or "bridge") for entry in listed or [] if entry.get("iface")
    }
    for bridge, nics in sorted(needed.items()):
        if bridge not in there or there[bridge] not in _BRIDGE_TYPES | {"vnet"}:
            raise BridgeUnknown(
                f"node {node} has no bridge {bridge}",
                side=Side.TARGET,
                object=f"bridge {bridge}",
                remedy=f"It has: {', '.join(sorted(there)) or 'none that this token sees'}.",
            )
        if there[bridge] in _BRIDGE_TYPES:  # of a network of another zone the target says so if the right is missing
            for nic in nics:
                _check_bridge_right(api, f"/sdn/zones/localnetwork/{bridge}", wish, nic)


def _check_bridge_right(api: Api, bridge: str, wish: Wish, nic: str) -> None:
    """mtunnel-protocol 2.6: with a VLAN or a trunk the right on each of them counts, else that on the bridge."""
    tags, trunk = vlans_of(wish.config.get(nic, ""), wish.tag_of.get(nic, wish.tag_of.get("default")))
    if not tags and not trunk:
        paths = [bridge]
    else:
        if trunk and _held(api, bridge).get("SDN.Use"):  # it propagates: a trunk may have thousands of VLANs
            trunk = set()
        paths = [f"{bridge}/{vlan}" for vlan in sorted(tags | trunk)]
    for path in paths:
        if "SDN.Use" not in _held(api, path):
            raise _missing("SDN.Use", path)
