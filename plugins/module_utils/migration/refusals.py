# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What is refused before anything is written, and why: everything outside the supported set. Pure functions.

The supported set is a whitelist of config keys, drive options and NIC options; what nobody has looked at is refused
by its name (mtunnel-protocol 7.4 and 5.4, safety 8).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Callable, Dict, FrozenSet, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..errors import Side
from ..proxmox.errors import ConfigInvalid
from ..proxmox.vm_config import Drive, Nic, VmConfig, parse_properties, split_key
from .mapping import FILE_STORAGES, RAW_STORAGES, Mode, Volume, place_of, volumes
from .spec import DiskPlace, NicPlace

__all__ = ["Refusal", "SourceFacts", "VolumeFacts", "refusals"]


@dataclass(frozen=True)
class Refusal:
    """One reason: stable code, what it is about, a sentence, what to do."""

    code: str
    object: str
    message: str
    remedy: str
    side: Side = Side.SOURCE


@dataclass(frozen=True)
class VolumeFacts:
    """What the storage says about a volume.

    Attributes:
        format: Image format.
        parent: The volume it is based on, empty without one.
        inactive: It is on LVM and has no device node.
    """

    format: str = "raw"
    parent: str = ""
    inactive: bool = False


@dataclass(frozen=True)
class SourceFacts:
    """What is known about the VM beside its config.

    Attributes:
        vmid: VMID at the source.
        running: Whether its QEMU runs (a paused VM does).
        disks: Declared places per disk key or ``default``.
        nics: Declared places per NIC key or ``default``.
        offline: Whether a stopped VM may be moved.
        own_lock: Lock word that is ours; any other refuses.
        ha_state: State as HA resource, empty when it is none.
        replicated: Whether a replication job exists.
        backup_running: Whether a backup of the VM runs.
        references: Other VMs that name a volume of this one, by volume id.
        volumes: What the storages say, by volume id.
        storage_types: Type of each storage of the source, by id.
    """

    vmid: int
    running: bool
    disks: Mapping[str, DiskPlace] = field(default_factory=dict)
    nics: Mapping[str, NicPlace] = field(default_factory=dict)
    offline: bool = False
    own_lock: str = ""
    ha_state: str = ""
    replicated: bool = False
    backup_running: bool = False
    references: Mapping[str, Sequence[int]] = field(default_factory=dict)
    volumes: Mapping[str, VolumeFacts] = field(default_factory=dict)
    storage_types: Mapping[str, str] = field(default_factory=dict)


def _words(text: str) -> FrozenSet[str]:
    return frozenset(text.split())


# Keys whose value changes nothing about whether a VM can move.
_FREE_KEYS = _words("""
    acpi agent allow-ksm balloon bios boot bootdisk cipassword citype ciupgrade ciuser cores cpulimit cpuunits
    description efidisk hotplug ide ipconfig keyboard kvm localtime lock machine memory meta migrate_downtime
    migrate_speed name nameserver net numa onboot ostype reboot sata scsi scsihw searchdomain shares smbios1 smp sockets
    sshkeys startdate startup tablet tags tdf tpmstate unused vcpus virtio vmgenid watchdog""")
# mtunnel-protocol 5.4: no token may set these, not even one of root.
_ROOT_KEYS = _words("affinity amd-sev arch args hookscript hugepages intel-tdx ivshmem keephugepages parallel")
_DEVICE_KEYS = frozenset(("hostpci", "usb", "virtiofs"))
_DRIVE_OPTIONS = _words("""
    aio backup bps bps_max_length bps_rd bps_rd_max_length bps_wr bps_wr_max_length cache detect_zeroes discard
    efitype format iops iops_max iops_max_length iops_rd iops_rd_max iops_rd_max_length iops_wr iops_wr_max
    iops_wr_max_length iothread mbps mbps_max mbps_rd mbps_rd_max mbps_wr mbps_wr_max media ms-cert pre-enrolled-keys
    product queues replicate rerror serial size ssd vendor version werror wwn""")
_NIC_OPTIONS = _words("firewall link_down mtu queues rate tag trunks")
_VGA_TYPES = _words("cirrus none serial0 serial1 serial2 serial3 std virtio vmware")
_ASCII_FREE = ("description",)


def refusals(config: VmConfig, facts: SourceFacts) -> List[Refusal]:
    """Every reason, in a fixed order; empty when the VM may move."""
    found: List[Refusal] = []
    for check in _CHECKS:
        try:
            found += check(config, facts)
        except ConfigInvalid as error:
            found.append(_refusal(error.code, error.object, error.message, "Correct the line in the VM's config."))
    return list(dict.fromkeys(found))


def _refusal(code: str, object: str, message: str, remedy: str) -> Refusal:
    return Refusal(code, object, message, remedy)


def _state(config: VmConfig, facts: SourceFacts) -> Iterator[Refusal]:
    vm = f"VM {facts.vmid}"
    if config.lock and config.lock != facts.own_lock:
        yield _refusal("LOCK_FOREIGN", vm, f"{vm} is locked ({config.lock})", "Wait until the running action ends.")
    if facts.ha_state:
        # pve-cli 1.6: after fencing, HA removes the lock and starts the VM, in spite of a copy at the target.
        yield _refusal(
            "HA_RESOURCE",
            vm,
            f"{vm} is an HA resource (state {facts.ha_state}), which would start it again behind our back",
            f"Remove it from HA: 'ha-manager remove vm:{facts.vmid}'; add it again at the target.",
        )
    if facts.replicated:
        yield _refusal("REPLICATED", vm, f"{vm} has a replication job", "Remove the replication job.")
    if facts.backup_running or "fleecing" in config.special:
        yield _refusal("BACKUP_RUNNING", vm, f"a backup of {vm} runs or left images behind", "Wait for its end.")
    if not facts.running and not facts.offline:
        yield _refusal("VM_STOPPED", vm, f"{vm} does not run", "Start it, or give 'offline: true'.")
    if not config.uuid:
        yield _refusal(
            "UUID_MISSING",
            vm,
            f"{vm} has no uuid in 'smbios1', so it could not be recognised at the target",
            "Set one and restart the VM: 'qm set ID --smbios1 uuid=$(uuidgen)'.",
        )


def _sections(config: VmConfig, facts: SourceFacts) -> Iterator[Refusal]:
    vm = f"VM {facts.vmid}"
    if config.snapshots or "parent" in config.values:
        names = ", ".join(config.snapshots) or config.values["parent"]
        yield _refusal("SNAPSHOTS", vm, f"{vm} has snapshots: {names}", "Delete them; they would be lost.")
    if config.pending:
        keys = ", ".join(sorted(config.pending))
        yield _refusal(
            "PENDING_CHANGES", vm, f"{vm} has pending changes: {keys}", "Apply them by a restart, or revert them."
        )
    for name in config.special:
        if name not in ("cloudinit", "fleecing"):
            yield _refusal("KEY_UNKNOWN", f"[special:{name}]", f"{vm} has an unknown section", "Report it.")


def _keys(config: VmConfig, facts: SourceFacts) -> Iterator[Refusal]:
    for key, value in config.values.items():
        base = split_key(key)[0]
        if base in _FREE_KEYS or key == "parent":
            continue
        if base in _ROOT_KEYS:
            yield _refusal(
                "ROOT_ONLY_KEY", key, f"'{key}' may be set by root alone, not by a token", f"Remove '{key}' to move."
            )
        elif base in _DEVICE_KEYS:
            yield _refusal(
                "LOCAL_DEVICE", key, f"'{key}' ties the VM to a device of this node", f"Remove '{key}' to move."
            )
        elif base in _VALUE_RULES:
            yield from _VALUE_RULES[base](key, value, facts)
        else:
            yield _refusal(
                "KEY_UNKNOWN", key, f"'{key}' is not in the set this collection can move", f"Remove '{key}' to move."
            )


Rule = Callable[[str, str, SourceFacts], Iterator[Refusal]]


def _serial(key: str, value: str, _facts: SourceFacts) -> Iterator[Refusal]:
    if value != "socket":
        yield _refusal("LOCAL_DEVICE", key, f"'{key}' is a device of this node", f"Set '{key}' to socket.")


def _vga(key: str, value: str, facts: SourceFacts) -> Iterator[Refusal]:
    properties = parse_properties(value, "type", key)
    kind = properties.get("type", "std")
    if kind.startswith("qxl"):
        yield _refusal(
            "SPICE_UNSUPPORTED", key, "a SPICE display cannot be moved yet: its viewers would be lost", "Use vga: std."
        )
    elif kind not in _VGA_TYPES:
        yield _refusal("DISPLAY_UNSUPPORTED", key, f"display '{kind}' cannot be moved", "Use vga: std or virtio.")
    if "clipboard" in properties and facts.running:
        # mtunnel-protocol 2.3: only machine versions from 10.1 on carry its state.
        yield _refusal("CLIPBOARD", key, "the VNC clipboard cannot be moved while the VM runs", "Remove 'clipboard'.")
    for name in sorted(set(properties) - {"type", "memory", "clipboard"}):
        yield _refusal("KEY_UNKNOWN", key, f"'{name}' in '{key}' is not known", "Remove it to move.")


def _cpu(key: str, value: str, _facts: SourceFacts) -> Iterator[Refusal]:
    model = parse_properties(value, "cputype", key).get("cputype", "")
    if model.startswith("custom-"):
        yield _refusal(
            "CPU_CUSTOM", key, f"CPU model '{model}' is defined by this cluster alone", "Use a model of QEMU."
        )


def _rng(key: str, value: str, _facts: SourceFacts) -> Iterator[Refusal]:
    source = parse_properties(value, "source", key).get("source", "")
    if source not in ("/dev/urandom", "/dev/random"):
        yield _refusal("LOCAL_DEVICE", key, f"'{key}' reads {source} of this node", "Use source=/dev/urandom.")


def _audio(key: str, value: str, _facts: SourceFacts) -> Iterator[Refusal]:
    if parse_properties(value, "device", key).get("driver", "spice") != "none":
        yield _refusal("SPICE_UNSUPPORTED", key, f"'{key}' plays over SPICE", "Set driver=none, or remove it.")


def _protection(key: str, value: str, _facts: SourceFacts) -> Iterator[Refusal]:
    # A protected copy at the target could not be removed again after a failure.
    if value != "0":
        yield _refusal(
            "PROTECTION", key, "the VM is protected against removal, also where a failed move must remove it",
            "Set 'protection: 0' for the move and set it again at the target.",
        )  # fmt: skip


def _freeze(key: str, value: str, _facts: SourceFacts) -> Iterator[Refusal]:
    if value != "0":
        yield _refusal("KEY_UNKNOWN", key, "'freeze' would keep the target from running", "Remove 'freeze'.")


def _template(_key: str, value: str, facts: SourceFacts) -> Iterator[Refusal]:
    if value != "0":
        yield _refusal("TEMPLATE", f"VM {facts.vmid}", "a template cannot be moved", "Clone it and move the clone.")


def _spice(key: str, _value: str, _facts: SourceFacts) -> Iterator[Refusal]:
    yield _refusal("SPICE_UNSUPPORTED", key, f"'{key}' needs SPICE, which cannot be moved", f"Remove '{key}' to move.")


def _cicustom(key: str, _value: str, _facts: SourceFacts) -> Iterator[Refusal]:
    yield _refusal(
        "CLOUDINIT_CUSTOM", key, "its snippets lie on storages of this cluster and would not move", "Remove 'cicustom'."
    )


def _vmstate_storage(key: str, value: str, _facts: SourceFacts) -> Iterator[Refusal]:
    yield _refusal(
        "STORAGE_SETTING", key, f"'{key}' names storage '{value}' of this cluster", f"Remove '{key}' to move."
    )


_VALUE_RULES: Dict[str, Rule] = {
    "audio": _audio,
    "cicustom": _cicustom,
    "cpu": _cpu,
    "freeze": _freeze,
    "protection": _protection,
    "rng": _rng,
    "serial": _serial,
    "spice_enhancements": _spice,
    "template": _template,
    "vga": _vga,
    "vmstatestorage": _vmstate_storage,
}


def _numa(config: VmConfig, _facts: SourceFacts) -> Iterator[Refusal]:
    for key, value in config.values.items():
        # "numa" itself is a switch, "numa0" a node of the guest.
        if split_key(key)[0] == "numa" and key != "numa" and "hostnodes" in parse_properties(value, "cpus", key):
            yield _refusal("LOCAL_DEVICE", key, f"'{key}' names NUMA nodes of this host", "Remove 'hostnodes'.")


def _text(config: VmConfig, _facts: SourceFacts) -> Iterator[Refusal]:
    for key, value in config.values.items():
        # mtunnel-protocol 5.4: only the description is percent-decoded again.
        if not value.isascii() and key not in _ASCII_FREE:
            yield _refusal("NOT_ASCII", key, f"'{key}' has characters that cannot be carried over", "Use ASCII.")


def _drives(config: VmConfig, facts: SourceFacts) -> Iterator[Refusal]:
    seen: Dict[str, str] = {}
    for drive in config.drives() + config.unused():
        yield from _drive(drive, facts)
        if drive.storage and drive.file in seen:
            yield _refusal(
                "VOLUME_TWICE", drive.key, f"{drive.file} is also '{seen[drive.file]}'", "Attach a volume once."
            )
        seen[drive.file] = drive.key


def _drive(drive: Drive, facts: SourceFacts) -> Iterator[Refusal]:
    for name in sorted(set(drive.options) - _DRIVE_OPTIONS):
        yield _refusal(
            "DRIVE_OPTION", drive.key, f"option '{name}' of '{drive.key}' is not known", "Remove it to move."
        )
    if drive.empty:
        return
    if drive.file == "cdrom":
        yield _refusal("CDROM_HOST", drive.key, f"'{drive.key}' is the CD drive of this node", "Set it to none.")
    elif drive.cdrom and not drive.cloudinit:
        yield _refusal("CDROM_IMAGE", drive.key, f"an ISO image is in '{drive.key}'", "Eject it.")
    elif not drive.storage:
        yield _refusal("PATH_DRIVE", drive.key, f"'{drive.key}' is a path of this node", "Move it to a storage.")
    else:
        yield from _volume(drive, facts)


def _volume(drive: Drive, facts: SourceFacts) -> Iterator[Refusal]:
    known = facts.volumes.get(drive.file, VolumeFacts())
    name = drive.file.rpartition("/")[2].rpartition(":")[2]
    if re.search(r"(^|[/:])base-", drive.file) or known.parent:
        yield _refusal(
            "LINKED_CLONE", drive.key, f"{drive.file} is based on another volume", "Move the disk to make it whole."
        )
    elif not name.startswith(f"vm-{facts.vmid}-"):
        yield _refusal(
            "VOLUME_FOREIGN", drive.key, f"{drive.file} does not belong to VM {facts.vmid}", "Reassign the disk."
        )
    others = facts.references.get(drive.file)
    if others:
        names = ", ".join(str(vmid) for vmid in others)
        yield _refusal("VOLUME_SHARED", drive.key, f"{drive.file} is also used by VM {names}", "Detach it there.")


def _places(config: VmConfig, facts: SourceFacts) -> Iterator[Refusal]:
    moved = [drive for drive in config.drives() + config.unused() if drive.storage]
    for drive in moved:
        if place_of(facts.disks, drive.key) is None and (not drive.cdrom or drive.cloudinit):
            yield _unmapped("STORAGE_UNMAPPED", "disks", drive.key, f"no storage of the target for '{drive.key}'")
    for key in sorted(set(facts.disks) - {drive.key for drive in moved} - {"default"}):
        yield _unmapped("DISK_UNKNOWN", "disks", key, f"the VM has no disk '{key}'")
    nics = {nic.key: nic for nic in config.nics()}
    for key in nics:
        if place_of(facts.nics, key) is None:
            yield _unmapped("BRIDGE_UNMAPPED", "nics", key, f"no bridge of the target for '{key}'")
    for key in sorted(set(facts.nics) - set(nics) - {"default"}):
        yield _unmapped("NIC_UNKNOWN", "nics", key, f"the VM has no NIC '{key}'")


def _unmapped(code: str, option: str, key: str, message: str) -> Refusal:
    return Refusal(code, f"{option}.{key}", message, f"Check option '{option}'.", Side.CONTROLLER)


def _formats(config: VmConfig, facts: SourceFacts) -> Iterator[Refusal]:
    formats = {volid: known.format for volid, known in facts.volumes.items()}
    for volume in volumes(config, facts.running, facts.disks, formats=formats):
        place: Optional[DiskPlace] = place_of(facts.disks, volume.key)
        if volume.source_format not in ("raw", "qcow2"):
            yield _refusal(
                "FORMAT_UNSUPPORTED", volume.key, f"image format {volume.source_format} cannot be moved",
                "Convert the disk to raw or qcow2.",
            )  # fmt: skip
        elif volume.mode is Mode.IMPORT and place is not None and place.format not in (None, volume.source_format):
            # mtunnel-protocol 7.3: a stream of an image cannot be converted on the way.
            yield Refusal(
                "FORMAT_FIXED", f"disks.{volume.key}",
                f"'{volume.key}' is copied as it is, {volume.source_format}, and cannot become {place.format}",
                "Leave its format out.", Side.CONTROLLER,
            )  # fmt: skip
        if volume.mode is Mode.IMPORT and facts.volumes.get(volume.volid, VolumeFacts()).inactive:
            yield from _inactive(volume)
        kind = facts.storage_types.get(volume.drive.storage, "")
        if volume.mode is Mode.IMPORT and not _exportable(kind, volume.source_format):
            yield _refusal(
                "EXPORT_UNSUPPORTED", volume.key,
                f"{volume.volid} ({volume.source_format} on {kind}) cannot be exported as an image stream",
                "Move the disk to a directory or LVM storage, or move the VM while it runs.",
            )  # fmt: skip


def _inactive(volume: Volume) -> Iterator[Refusal]:
    # `pvesm export` activates nothing, only the API's own export does: it would fail behind lock and reservation.
    yield _refusal(
        "VOLUME_INACTIVE", volume.key, f"{volume.volid} is on LVM and not active, so it cannot be read",
        f"Activate it until the VM has moved: 'lvchange -ay -K GROUP/{volume.volid.partition(':')[2]}'.",
    )  # fmt: skip


def _exportable(kind: str, image_format: str) -> bool:
    """mtunnel-protocol 7.3: images in files, and raw ones on LVM and RBD; a qcow2 on LVM is a chain of snapshots."""
    return not kind or kind in FILE_STORAGES or (kind in RAW_STORAGES and image_format == "raw")


def _network(config: VmConfig, _facts: SourceFacts) -> Iterator[Refusal]:
    for nic in config.nics():
        yield from _nic(nic)


def _nic(nic: Nic) -> Iterator[Refusal]:
    if not nic.bridge:
        yield _refusal("NIC_WITHOUT_BRIDGE", nic.key, f"'{nic.key}' has no bridge", "Give it a bridge.")
    if not nic.mac:
        yield _refusal("NIC_WITHOUT_MAC", nic.key, f"'{nic.key}' has no MAC address to keep", "Set its MAC address.")
    for name in sorted(set(nic.options) - _NIC_OPTIONS):
        yield _refusal("NIC_OPTION", nic.key, f"option '{name}' of '{nic.key}' is not known", "Remove it to move.")


_CHECKS: Tuple[Callable[[VmConfig, SourceFacts], Iterator[Refusal]], ...] = (
    _state,
    _sections,
    _keys,
    _numa,
    _text,
    _drives,
    _formats,
    _network,
    _places,
)
