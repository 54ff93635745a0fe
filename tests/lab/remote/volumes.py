# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The volumes of a VM and what becomes of them in a remote migration (mtunnel-protocol 7.1 and 7.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, Iterator, List, Tuple

from lab.node.base import Die, Node
from lab.node.properties import format_drive, format_size, is_drive, parse_drive, split_volid
from lab.node.schema import is_cloudinit
from lab.node.storage import Storages
from lab.node.vmconfig import VmConfig

__all__ = ["ProblemVolumes", "SourceVolume", "correct_sizes", "drive_object", "import_name", "ordered", "scan"]

TPM_SIZE = "4M"
ORDER = ("ide", "sata", "scsi", "virtio", "efidisk", "tpmstate")


class ProblemVolumes(Die):
    """Volumes that stand in the way; each is named in a line of its own before."""

    def __init__(self, reasons: Dict[str, str]) -> None:
        super().__init__("Problem found while scanning volumes - can't migrate VM: failed due to volume check")
        self.reasons = reasons


@dataclass(frozen=True)
class SourceVolume:
    """A volume that travels: by NBD while the VM runs, else as a stream."""

    volid: str
    key: str
    storage: str
    format: str
    why: str
    online: bool
    generated: bool = False

    @property
    def found(self) -> str:
        """Its line in the log."""
        return f"found {'generated' if self.generated else 'local'} disk '{self.volid}' ({self.why})"


def ordered(keys: "List[str]") -> List[str]:
    """Drive keys as they are iterated when volumes are allocated (recorded: scsi0, virtio1, efidisk0)."""

    def rank(key: str) -> Tuple[int, int]:
        kind = re.sub(r"\d+$", "", key)
        return ORDER.index(kind), int(key[len(kind) :])

    return sorted(keys, key=rank)


def scan(node: Node, config: VmConfig, running: bool) -> List[SourceVolume]:
    """Every volume that current config, pending section or unused entries name, by volume id."""
    found: Dict[str, SourceVolume] = {}
    problems: Dict[str, str] = {}
    storages = Storages(node)
    for key, volid, drive, why in _references(config):
        if volid in found or volid in ("none",):
            continue
        reason = _problem(config, key, volid, drive, running)
        if reason:
            problems[volid] = reason
            continue
        sid, name = split_volid(volid)
        storage = storages.check_enabled(sid)
        form = storages.owner_and_format(storage, name)[1]
        generated = key == "tpmstate0" or is_cloudinit(drive)
        online = running and why == "attached" and not generated
        found[volid] = SourceVolume(
            volid, key, sid, form, "in current VM config" if generated else why, online, generated
        )
    if problems:
        raise ProblemVolumes(problems)
    return [found[volid] for volid in sorted(found)]


def _references(config: VmConfig) -> Iterator[Tuple[str, str, Dict[str, str], str]]:
    for values, why in ((config.values, "attached"), (config.pending, "pending change")):
        for key in sorted(values):
            if is_drive(key):
                drive = parse_drive(values[key])
                yield key, drive["file"], drive, why
            elif re.fullmatch(r"unused\d+", key):
                yield key, values[key], {"file": values[key]}, "unused"


def _problem(config: VmConfig, key: str, volid: str, drive: Dict[str, str], running: bool) -> str:
    if volid == "cdrom" or volid.startswith("/dev/cdrom"):
        return "can't migrate local cdrom drive"
    if volid.startswith("/"):
        return "local path is not supported"
    if drive.get("media") == "cdrom" and not is_cloudinit(drive):
        return "local cdrom image"
    for name in sorted(config.snapshots):
        if volid in str(config.snapshots[name].get(key, "")):
            return (
                "online storage migration not possible if snapshot exists"
                if running
                else "remote migration with snapshots not supported yet"
            )
    return ""


def correct_sizes(node: Node, config: VmConfig) -> List[str]:
    """Write the real sizes of attached volumes into the config; answers the lines that say so."""
    lines = []
    for key in sorted(key for key in config.values if is_drive(key)):
        drive = parse_drive(config.values[key])
        if drive["file"] in ("none", "cdrom") or drive["file"].startswith("/"):
            continue
        size = TPM_SIZE if key == "tpmstate0" else format_size(Storages(node).size(drive["file"])[0])
        if drive.get("size") != size:
            if key != "tpmstate0":
                old = drive.get("size", "0T")
                lines.append(f"drive '{key}': size of disk '{drive['file']}' updated from {old} to {size}")
            drive["size"] = size
            config.values[key] = format_drive(drive)
    return lines


def drive_object(key: str, drive: Dict[str, str], size: int) -> Dict[str, object]:
    """`drive` of the tunnel's `disk`: options as numbers where they look like it, index as text."""
    kind = re.sub(r"\d+$", "", key)
    found: Dict[str, object] = {"interface": kind, "index": key[len(kind) :], "size": size}
    for name, value in drive.items():
        if name not in ("file", "format", "size"):
            found[name] = int(value) if re.fullmatch(r"-?\d{1,9}", value) else value
    return found


def import_name(volid: str, source: int, target: int) -> str:
    """Name of an imported volume: the VMID replaced, no directory."""
    name = split_volid(volid)[1].split("/")[-1]
    return re.sub(rf"\b{source}\b", str(target), name)
