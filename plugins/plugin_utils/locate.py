# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VM is meant, where it runs and what it consists of.

Knows the list ``/cluster/resources`` and the keys of a VM's configuration, both as JSON. Does not know where they come
from: the API of the cluster, or ``pvesh`` on one of its nodes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Set

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side

from .errors import ClustersInvalid, SeveralVms, UuidDiffers, UuidMissing, VmIsTemplate, VmManagedByHa, VmNotFound

__all__ = [
    "Disk",
    "Resource",
    "candidates",
    "disks_of",
    "find_source",
    "mapped",
    "nics_of",
    "only",
    "refuse_unfit",
    "resources",
    "uuid_of",
]

_DRIVE_KEY = re.compile(r"(?:scsi|virtio|sata|ide|efidisk|tpmstate|unused)[0-9]+")
_NIC_KEY = re.compile(r"net[0-9]+")
_SIZE = re.compile(r"(?:^|,)size=([0-9]+(?:\.[0-9]+)?)([KMGT]?)(?:,|$)")
_UUID = re.compile(r"(?:^|,)uuid=([0-9A-Fa-f-]{36})(?:,|$)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Resource:
    """One VM in the list of a cluster."""

    vmid: int
    name: str
    node: str
    status: str
    lock: Optional[str]
    ha_state: Optional[str]
    template: bool


@dataclass(frozen=True)
class Disk:
    """A disk with content of a VM.

    Attributes:
        key: Its key in the configuration.
        size: Bytes, 0 when the configuration does not say.
        imported: Whether it arrives as a whole; of a mirrored one only what the guest has written takes space.
    """

    key: str
    size: int
    imported: bool


def resources(raw: Any) -> List[Resource]:
    """The QEMU VMs of ``/cluster/resources?type=vm``; containers are left out."""
    if not isinstance(raw, list):
        raise ClustersInvalid("the list of VMs is no list", side=Side.CONTROLLER, object="resources")
    return [_resource(entry) for entry in raw if isinstance(entry, Mapping) and entry.get("type") == "qemu"]


def _resource(raw: Mapping[str, Any]) -> Resource:
    return Resource(
        vmid=int(raw["vmid"]),
        name=str(raw.get("name") or ""),
        node=str(raw.get("node") or ""),
        status=str(raw.get("status") or "unknown"),
        lock=str(raw["lock"]) if raw.get("lock") else None,
        # pve-cli 1.6: the key is there for an HA resource in any state, "ignored" included.
        ha_state=str(raw["hastate"]) if raw.get("hastate") else None,
        template=str(raw.get("template", 0)) == "1",
    )


def find_source(found: Iterable[Resource], cluster: str, vmid: Optional[int], name: Optional[str]) -> Resource:
    """The one VM with that number or name.

    Raises:
        VmNotFound: VM_NOT_FOUND.
        SeveralVms: VM_NAME_AMBIGUOUS.
    """
    asked = f"VM {vmid}" if vmid is not None else f"VM {name}"
    matching = [vm for vm in found if (vm.vmid == vmid if vmid is not None else vm.name == name)]
    if vmid is not None and name and matching and matching[0].name != name:
        raise VmNotFound(
            f"VM {vmid} of cluster {cluster} is called {matching[0].name}, not {name}", side=Side.SOURCE, object=asked
        )
    if not matching:
        raise VmNotFound(
            f"cluster {cluster} has no {asked}",
            side=Side.SOURCE,
            object=asked,
            remedy="A token only sees VMs on which it has VM.Audit.",
        )
    return only(matching, cluster, str(name), Side.SOURCE)


def only(matching: List[Resource], cluster: str, name: str, side: Side) -> Resource:
    """The one VM that was found.

    Raises:
        SeveralVms: VM_NAME_AMBIGUOUS.
    """
    if len(matching) > 1:
        numbers = ", ".join(str(vm.vmid) for vm in sorted(matching, key=lambda vm: vm.vmid))
        raise SeveralVms(
            f"cluster {cluster} has several VMs called {name}: {numbers}",
            side=side,
            object=f"VM {name}",
            remedy="Give vmid instead of name.",
        )
    return matching[0]


def candidates(found: Iterable[Resource], numbers: Set[int], name: Optional[str]) -> List[Resource]:
    """The VMs that may be the one with that name, or with one of the numbers it may have."""
    return [vm for vm in found if vm.vmid in numbers or (name and vm.name == name)]


def refuse_unfit(vm: Resource) -> None:
    """Refuses what is plain from the list alone.

    Raises:
        VmIsTemplate: TEMPLATE.
        VmManagedByHa: HA_RESOURCE.
    """
    name = f"VM {vm.vmid}"
    if vm.template:
        raise VmIsTemplate(f"{name} is a template", side=Side.SOURCE, object=name)
    if vm.ha_state and vm.status == "running":
        raise VmManagedByHa(
            f"{name} is an HA resource (state {vm.ha_state})",
            side=Side.SOURCE,
            object=name,
            remedy="Remove it from HA for the time of the move; a lock does not keep HA from starting it.",
        )


def uuid_of(config: Mapping[str, Any], vmid: int, wanted: Optional[str]) -> str:
    """The SMBIOS uuid in a configuration, which must be the wanted one if one is.

    Raises:
        UuidMissing: UUID_MISSING.
        UuidDiffers: UUID_DIFFERS.
    """
    name = f"VM {vmid}"
    match = _UUID.search(str(config.get("smbios1") or ""))
    if not match:
        raise UuidMissing(
            f"{name} has no SMBIOS uuid and could not be recognised on the other side",
            side=Side.SOURCE,
            object=name,
            remedy="Give it one: qm set <vmid> --smbios1 uuid=...",
        )
    uuid = match.group(1).lower()
    if wanted and wanted.lower() != uuid:
        raise UuidDiffers(f"{name} has the uuid {uuid}, wanted is {wanted.lower()}", side=Side.SOURCE, object=name)
    return uuid


def disks_of(config: Mapping[str, Any], running: bool) -> List[Disk]:
    """The disks that need a storage on the target; CD drives do not."""
    found = []
    for key, value in sorted(config.items()):
        text = str(value)
        if _DRIVE_KEY.fullmatch(key) and _holds_data(text):
            match = _SIZE.search(text)
            size = int(float(match.group(1)) * _UNITS[match.group(2)]) if match else 0
            # mtunnel-protocol 7.1: what QEMU does not write to is copied before the guest moves.
            imported = not running or key.startswith(("tpmstate", "unused")) or "media=cdrom" in text.split(",")
            found.append(Disk(key, size, imported))
    return found


def _holds_data(drive: str) -> bool:
    """Whether a drive is a volume of the VM: a disk, or a cloud-init image, which is declared as a CD."""
    volume = drive.split(",")[0]
    return volume != "none" and ("media=cdrom" not in drive.split(",") or "cloudinit" in volume)


def nics_of(config: Mapping[str, Any]) -> List[str]:
    """The NICs in a configuration."""
    return sorted(key for key in config if _NIC_KEY.fullmatch(key))


def mapped(places: Mapping[str, Any], leading: str) -> Dict[str, str]:
    """``disks`` or ``nics`` with the name of the storage or bridge alone."""
    return {str(key): str(entry.get(leading) if isinstance(entry, Mapping) else entry) for key, entry in places.items()}
