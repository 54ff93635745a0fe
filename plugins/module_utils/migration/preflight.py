# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The look at source and target before anything is written (DESIGN 5.0). Read-only; refuses by default.

The same look serves check mode, the start of a migration and the moment right before the lock.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..errors import Side
from ..proxmox.vm_config import Nic, VmConfig
from ..qemu.errors import QemuError
from ..qemu.status import BlockDevice, RunState, RunStatus, Version, find_drive
from . import mapping
from .errors import Refused
from .mapping import FILE_STORAGES, RAW_STORAGES, Mode, Volume
from .plan import Plan
from .refusals import SourceFacts, VolumeFacts, refusals
from .spec import Spec
from .world import Qmp, Source, Target

__all__ = ["check_target", "look", "raise_refusals"]

_MACHINE = re.compile(r"pc-(q35|i440fx)-([0-9]{1,3})\.([0-9]{1,3})(?:\+pve[0-9]+)?", re.ASCII)
_MOVABLE = {RunState.RUNNING: "running", RunState.PAUSED: "paused"}


def look(spec: Spec, source: Source, qmp: Qmp) -> Plan:
    """Everything about the VM at the source.

    Raises:
        Refused: the first reason's code; all reasons are in the facts.
        VmAbsent: there is no such VM on this node.
    """
    config = VmConfig.read(source.config())
    _check_identity(spec, config)
    run_state = _run_state(spec, source, qmp)
    devices = BlockDevice.parse_all(qmp.run("query-block")) if run_state != "stopped" else []
    stored = source.volume_list(_listed_storages(config, run_state))
    raise_refusals(spec, refusals(config, _facts(spec, config, source, run_state, stored)))
    volumes = _volumes(spec, config, devices, stored, run_state)
    nics = mapping.mapped_nics(config, spec.nics)
    running = run_state != "stopped"
    return Plan(
        config=config,
        run_state=run_state,
        machine=_machine(qmp) if running else "",
        cpu=None,
        qemu=Version.parse(qmp.run("query-version")) if running else None,
        memory=_memory(qmp) if running else 0,
        volumes=tuple(volumes),
        nics=nics,
        nets_host_mtu=mapping.nets_host_mtu(nics, _host_mtus(qmp, nics)) if running else None,
        source_node=source.node_name(),
    )


def raise_refusals(spec: Spec, found: List[Any]) -> None:
    """One error for all reasons; its code and object are the first one's."""
    if not found:
        return
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    raise Refused(
        f"VM {spec.vmid} cannot be migrated: {first.message}{more}",
        code=first.code,
        side=first.side,
        object=first.object,
        remedy=first.remedy,
        facts={
            "refusals": [{"code": r.code, "object": r.object, "message": r.message, "remedy": r.remedy} for r in found]
        },
    )


def _check_identity(spec: Spec, config: VmConfig) -> None:
    if spec.uuid is not None and config.uuid != spec.uuid:
        raise Refused(
            f"VM {spec.vmid} on this node has the uuid {config.uuid or 'none'}, not {spec.uuid}",
            code="UUID_DIFFERS",
            side=Side.SOURCE,
            object=f"VM {spec.vmid}",
            remedy="Look up the VM again: this VMID belongs to another VM",
        )


def _run_state(spec: Spec, source: Source, qmp: Qmp) -> str:
    if not source.qemu_alive():
        return "stopped"
    status = RunStatus.parse(qmp.run("query-status"))
    if status.state not in _MOVABLE:
        raise Refused(
            f"VM {spec.vmid} is in the state {status.text}; only a running, paused or stopped VM can be moved",
            code="RUN_STATE",
            side=Side.SOURCE,
            object=f"VM {spec.vmid}",
            remedy="Bring the VM into one of these states first; a VM in postmigrate is stopped and started anew",
        )
    return _MOVABLE[status.state]


def _listed_storages(config: VmConfig, run_state: str) -> List[str]:
    """Storages whose listing is needed: only volumes that QEMU does not have open (a listing costs 0.4 CPU-s)."""
    drives = [drive for drive in config.drives() + config.unused() if drive.storage]
    closed = [
        drive
        for drive in drives
        if run_state == "stopped" or drive.unused or drive.cloudinit or drive.interface == "tpmstate"
    ]
    return sorted({drive.storage for drive in closed})


def _facts(
    spec: Spec, config: VmConfig, source: Source, run_state: str, stored: Mapping[str, Mapping[str, Any]]
) -> SourceFacts:
    volids = [drive.file for drive in config.drives() + config.unused() if drive.storage]
    return SourceFacts(
        vmid=spec.vmid,
        running=run_state != "stopped",
        disks=spec.disks,
        nics=spec.nics,
        offline=spec.offline,
        ha_state=source.ha_state(),
        replicated=source.is_replicated(),
        references=source.references(volids),
        volumes={
            volid: VolumeFacts(entry.get("format", "raw"), inactive=bool(entry.get("inactive")))
            for volid, entry in stored.items()
        },
        storage_types=source.storage_types(),
    )


def _volumes(
    spec: Spec,
    config: VmConfig,
    devices: List[BlockDevice],
    stored: Mapping[str, Mapping[str, Any]],
    run_state: str,
) -> List[Volume]:
    sizes: Dict[str, int] = {volid: int(entry["size"]) for volid, entry in stored.items()}
    formats: Dict[str, str] = {volid: str(entry["format"]) for volid, entry in stored.items()}
    running = run_state != "stopped"
    found = mapping.volumes(config, running, spec.disks, sizes, formats)
    for volume in found:
        if volume.mode is Mode.MIRROR:
            device = find_drive(devices, volume.key)
            sizes[volume.volid] = device.virtual_size
    found = mapping.volumes(config, running, spec.disks, sizes, formats)
    missing = [volume.volid for volume in found if volume.size is None]
    if missing:
        raise Refused(
            f"volume {missing[0]} is in the configuration but its storage does not list it",
            code="VOLUME_MISSING",
            side=Side.SOURCE,
            object=missing[0],
            remedy="Remove the entry from the configuration or bring the volume back",
        )
    return found


def _machine(qmp: Qmp) -> str:
    """Versioned machine of the running QEMU, with the Proxmox revision where QEMU tells it."""
    for entry in qmp.run("query-machines"):
        if isinstance(entry, dict) and entry.get("is-current"):
            revision = entry.get("pve-version")
            name = str(entry.get("name", ""))
            return f"{name}+{revision}" if isinstance(revision, str) and revision.startswith("pve") else name
    return re.sub(r"-machine$", "", str(qmp.run("qom-get", {"path": "/machine", "property": "type"})))


def _memory(qmp: Qmp) -> int:
    """Bytes of RAM, with what was plugged in while the guest ran."""
    summary = qmp.run("query-memory-size-summary")
    summary = summary if isinstance(summary, dict) else {}
    base, plugged = summary.get("base-memory"), summary.get("plugged-memory")
    return (base if isinstance(base, int) else 512 << 20) + (plugged if isinstance(plugged, int) else 0)


def _host_mtus(qmp: Qmp, nics: Mapping[str, Nic]) -> Dict[str, int]:
    """Host MTU of the virtio NICs; the target must be started with the same (mtunnel-protocol 5.2)."""
    found: Dict[str, int] = {}
    for key, nic in nics.items():
        if not nic.virtio:
            continue
        try:
            value = qmp.run("qom-get", {"path": f"/machine/peripheral/{key}", "property": "host_mtu"})
        except QemuError:
            continue  # this QEMU's NIC has no such property: nothing to say
        if isinstance(value, int):
            found[key] = value
    return found


def check_target(spec: Spec, plan: Plan, target: Target) -> None:
    """Storages, formats, space and bridges of the target node, as far as the token shows them.

    Raises:
        Refused: names the storage or bridge.
    """
    available = {entry.name: entry for entry in target.storages()}
    for name in plan.storages:
        if name not in available or not available[name].active:
            raise _refuse_target(
                "STORAGE_UNKNOWN",
                f"storage {name}",
                f"node {spec.target.node} has no active storage '{name}' for images that the token may use",
                "Correct disks, or grant Datastore.AllocateSpace on it to the token",
            )
    for volume in plan.volumes:
        kind = available[volume.storage].type
        if volume.mode is Mode.IMPORT and kind and kind not in FILE_STORAGES | RAW_STORAGES:
            raise _refuse_target(
                "IMPORT_UNSUPPORTED",
                f"storage {volume.storage}",
                f"storage {volume.storage} ({kind}) cannot take {volume.key}, which travels as an image stream",
                f"Give disks.{volume.key} a storage that is a directory, LVM or Ceph RBD",
            )
        if volume.format != "raw" and kind and kind not in FILE_STORAGES:
            _check_format(spec, volume, kind)
    _check_machine(spec, plan, target)
    _check_space(plan, {name: entry.available for name, entry in available.items()})
    bridges = set(target.bridge_names())
    for key, nic in sorted(plan.nics.items()):
        if nic.bridge not in bridges:
            raise _refuse_target(
                "BRIDGE_UNKNOWN",
                f"bridge {nic.bridge}",
                f"node {spec.target.node} has no bridge '{nic.bridge}' for {key}",
                "Correct nics, or create the bridge",
            )


def _check_machine(spec: Spec, plan: Plan, target: Target) -> None:
    """A machine newer than the target's QEMU would only fail at `start`, after volumes were made (hazard 14)."""
    wanted = _MACHINE.fullmatch(plan.machine)
    if wanted is None:
        return
    known = [found for found in map(_MACHINE.fullmatch, target.machines()) if found]
    versions = [_version(found) for found in known if found.group(1) == wanted.group(1)]
    if versions and _version(wanted) > max(versions):
        raise _refuse_target(
            "MACHINE_UNSUPPORTED",
            f"machine {plan.machine}",
            f"the QEMU of node {spec.target.node} is too old for the machine {plan.machine} that the VM runs with",
            "Upgrade the target node, or restart the VM with an older machine version",
        )


def _version(machine: re.Match[str]) -> Tuple[int, int]:
    return int(machine.group(2)), int(machine.group(3))


def _check_format(spec: Spec, volume: Volume, kind: str) -> None:
    place = mapping.place_of(spec.disks, volume.key)
    if volume.mode is Mode.MIRROR and (place is None or place.format is None):
        return  # nobody asked for a format: the target takes its storage's own (mtunnel-protocol 5.1)
    raise _refuse_target(
        "FORMAT_UNSUPPORTED",
        f"storage {volume.storage}",
        f"storage {volume.storage} ({kind}) cannot hold {volume.key} as {volume.format}",
        f"Give disks.{volume.key} with format: raw, or another storage"
        if volume.mode is Mode.MIRROR
        else "An import carries the image as it is: choose a storage that keeps files",
    )


def _check_space(plan: Plan, available: Mapping[str, Optional[int]]) -> None:
    """Imports arrive in full; a mirror allocates what the guest has written, which only QEMU will tell."""
    needed: Dict[str, int] = {}
    for volume in plan.imported:
        needed[volume.storage] = needed.get(volume.storage, 0) + (volume.size or 0)
    for name, size in needed.items():
        free = available.get(name)
        if free is not None and size > free:
            raise _refuse_target(
                "STORAGE_FULL",
                f"storage {name}",
                f"storage {name} has {free} bytes free, {size} are needed",
                "Make room or choose another storage",
            )


def _refuse_target(code: str, name: str, message: str, remedy: str) -> Refused:
    return Refused(message, code=code, side=Side.TARGET, object=name, remedy=remedy)
