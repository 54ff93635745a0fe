# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""From the source's config to the target's: which volume goes how, and what the target is told. Pure functions."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..proxmox.vm_config import Drive, Nic, VmConfig
from .spec import DiskPlace, NicPlace

__all__ = [
    "FILE_STORAGES",
    "RAW_STORAGES",
    "Mode",
    "Volume",
    "export_format",
    "import_volume_name",
    "imported_drive",
    "mapped_bridges",
    "mapped_nics",
    "mapped_storages",
    "nets_host_mtu",
    "place_of",
    "target_config",
    "volumes",
]

DEFAULT = "default"
# mtunnel-protocol 7.3. Types that keep images as files, and so in more than one format; and those that besides them
# give and take a `raw+size` stream (zfspool has its own `zfs` streams and no other).
FILE_STORAGES = frozenset({"btrfs", "cephfs", "cifs", "dir", "glusterfs", "nfs"})
RAW_STORAGES = frozenset({"lvm", "lvmthin", "rbd"})
# Sizes the target's config shows whatever the volume has (mtunnel-protocol 2.3).
_TPM_SIZE = "4M"
_DROPPED_KEYS = ("lock", "parent", "digest", "vmstate", "snaptime", "snapstate")


class Mode(enum.Enum):
    """How the content of a volume travels."""

    MIRROR = "mirror"
    IMPORT = "import"


@dataclass(frozen=True)
class Volume:
    """One volume of the VM and where it goes.

    Attributes:
        key: Config key: ``scsi0``, ``efidisk0``, ``tpmstate0``, ``unused1``, ...
        volid: Volume of the source.
        storage: Storage of the target.
        format: Image format at the target.
        size: Bytes of the guest's view of the source volume; None when it is not known yet.
        mode: How it travels.
        source_format: Image format at the source.
        drive: The source's drive line.
    """

    key: str
    volid: str
    storage: str
    format: str
    size: Optional[int]
    mode: Mode
    source_format: str
    drive: Drive

    @property
    def parameters(self) -> Dict[str, Any]:
        """The ``drive`` object of the command ``disk``; the size must be known."""
        return self.drive.tunnel_parameters(self.size or 0)


def place_of(places: Mapping[str, Any], key: str) -> Optional[Any]:
    """What is declared for a disk or NIC: by its key, else by ``default``, else nothing."""
    return places.get(key, places.get(DEFAULT))


def _moved_drives(config: VmConfig) -> List[Drive]:
    """Drives with a volume that moves: no empty CD drive, no ISO image (those are refused)."""
    attached = [drive for drive in config.drives() if drive.storage and (not drive.cdrom or drive.cloudinit)]
    return attached + [drive for drive in config.unused() if drive.storage]


def volumes(
    config: VmConfig,
    running: bool,
    disks: Mapping[str, DiskPlace],
    sizes: Optional[Mapping[str, int]] = None,
    formats: Optional[Mapping[str, str]] = None,
) -> List[Volume]:
    """Every volume of the VM in the order of its config, the unused ones last (mtunnel-protocol 7.1).

    Args:
        config: The source's config.
        running: Whether the VM runs (a paused VM does).
        disks: Declared places, by key or ``default``; a disk without one is left out (refusals name it).
        sizes: Bytes by volume id, from the running QEMU or the storage; else the config's figure.
        formats: Image format by volume id, from the storage; else by the name.
    """
    found = []
    for drive in _moved_drives(config):
        place = place_of(disks, drive.key)
        if place is None:
            continue
        mode = _mode(drive, running)
        source_format = (formats or {}).get(drive.file, drive.image_format)
        found.append(
            Volume(
                key=drive.key,
                volid=drive.file,
                storage=place.storage,
                # An import carries the image as it is (mtunnel-protocol 7.3).
                format=place.format or source_format if mode is Mode.MIRROR else source_format,
                size=(sizes or {}).get(drive.file, drive.size_bytes),
                mode=mode,
                source_format=source_format,
                drive=drive,
            )
        )
    return found


def _mode(drive: Drive, running: bool) -> Mode:
    generated = drive.cloudinit or drive.interface == "tpmstate"
    return Mode.MIRROR if running and not drive.unused and not generated else Mode.IMPORT


def export_format(image_format: str) -> Tuple[str, bool]:
    """Stream format for ``pvesm export`` and whether it goes with snapshots (mtunnel-protocol 7.3, pve-cli 4.2)."""
    return f"{image_format}+size", image_format != "raw"


def import_volume_name(volid: str, source_vmid: int, target_vmid: int) -> str:
    """Name asked for at the target: that of the source without its directory, the VMID replaced."""
    name = volid.partition(":")[2].rsplit("/", 1)[-1]
    return re.sub(rf"(^|-){source_vmid}(?=-)", rf"\g<1>{target_vmid}", name, count=1)


def imported_drive(volume: Volume, volid: str) -> str:
    """Drive string of an imported volume: no format, options sorted, as Proxmox VE writes it (mtunnel-protocol 5.4)."""
    if volume.drive.unused:
        return volid
    options = {name: value for name, value in volume.drive.options.items() if name != "format"}
    if volume.drive.interface == "tpmstate":
        options["size"] = _TPM_SIZE
    return ",".join([volid, *(f"{name}={options[name]}" for name in sorted(options))])


def mapped_nics(config: VmConfig, nics: Mapping[str, NicPlace]) -> Dict[str, Nic]:
    """NICs on their declared bridges, MAC addresses kept; a NIC without a place is left out (refusals name it)."""
    found = {}
    for nic in config.nics():
        place = place_of(nics, nic.key)
        if place is not None:
            found[nic.key] = nic.mapped(place.bridge, place.tag, place.firewall)
    return found


def mapped_storages(moved: List[Volume]) -> List[str]:
    """Storages of the target that are used, sorted."""
    return sorted({volume.storage for volume in moved})


def mapped_bridges(nics: Mapping[str, Nic]) -> List[str]:
    """Bridges of the target that are used, sorted."""
    return sorted({nic.bridge for nic in nics.values()})


def nets_host_mtu(nics: Mapping[str, Nic], mtus: Mapping[str, int]) -> Optional[str]:
    """``net0=1500,net1=0`` for the virtio NICs whose host MTU QEMU reports; None when there is none."""
    parts = [f"{key}={mtus[key]}" for key, nic in sorted(nics.items()) if nic.virtio and key in mtus]
    return ",".join(parts) or None


def target_config(config: VmConfig, new_volumes: Mapping[str, str], nics: Mapping[str, Nic]) -> str:
    """The text for the command ``config``.

    Keeps the order, MAC addresses, uuid and vmgenid of the source; drops lock, parent, pending changes and snapshots;
    puts in the drive strings of ``new_volumes`` (by key) and the NICs. ASCII: what is not is percent-encoded.
    """
    lines = []
    for line in config.sections[0].lines:
        key = "" if line.startswith("#") or not line.strip() else line.partition(":")[0]
        if key in _DROPPED_KEYS:
            continue
        if key in new_volumes:
            line = f"{key}: {new_volumes[key]}\n"
        elif key in nics:
            line = f"{key}: {nics[key].format()}\n"
        lines.append(line if line.endswith("\n") else line + "\n")
    for section in config.sections[1:]:
        # The state of the generated cloud-init image travels with it; every other section does not.
        if section.name == "special:cloudinit":
            lines += ["\n", section.header, *section.lines]
    return _ascii("".join(lines))


def _ascii(text: str) -> str:
    """Percent-encode what is not ASCII, byte by byte, as Proxmox VE's own files have it (mtunnel-protocol 5.4)."""
    return "".join(
        char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in text
    )
