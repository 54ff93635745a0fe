# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Files of a Proxmox VE node, read instead of running commands (pve-cli 1.8). Never written.

Edge file: the file system. Parsing is pure.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Dict, List, Mapping, NoReturn, Optional

from ..errors import Side
from .errors import NodeFileUnreadable, VmAbsent, printable
from .vm_config import VmConfig

__all__ = [
    "ConfigSection",
    "HaResource",
    "NodeFiles",
    "ReplicationJob",
    "parse_ha_resources",
    "parse_replication",
    "parse_sections",
]

_MAX_FILE = 4 * 1024 * 1024
_HEADER = re.compile(r"([a-z][a-z0-9_-]*):[ \t]*(\S+)[ \t]*", re.ASCII)
_PROPERTY = re.compile(r"[ \t]+([A-Za-z0-9_-]+)(?:[ \t]+(.*?))?[ \t]*", re.ASCII)
_NODE = re.compile(r"nodes/([A-Za-z0-9-]+)", re.ASCII)


@dataclass(frozen=True)
class ConfigSection:
    """One ``type: id`` block of a file of Proxmox VE."""

    type: str
    id: str
    properties: Mapping[str, str]


@dataclass(frozen=True)
class HaResource:
    """A guest that HA manages, in any state: ``started``, ``stopped``, ``disabled``, ``ignored``."""

    vmid: int
    kind: str
    state: str


@dataclass(frozen=True)
class ReplicationJob:
    """A replication job; disabled ones count as well."""

    id: str
    vmid: int
    target: str


def parse_sections(text: str, name: str) -> List[ConfigSection]:
    """Blocks of a section file; a line that is neither header, property, comment nor empty is refused."""
    blocks: List[ConfigSection] = []
    properties: Dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        header = _HEADER.fullmatch(line)
        member = _PROPERTY.fullmatch(line)
        if header:
            properties = {}
            blocks.append(ConfigSection(header.group(1), header.group(2), properties))
        elif member and blocks:
            properties[member.group(1)] = member.group(2) or "1"
        else:
            _unreadable(name, f"line {number} cannot be understood: {printable(line, 40)!r}")
    return blocks


def parse_ha_resources(text: str) -> List[HaResource]:
    """Of ``ha/resources.cfg``; a resource without a state is ``started``."""
    found = []
    for block in parse_sections(text, "ha/resources.cfg"):
        if block.type in ("vm", "ct") and block.id.isdecimal():
            found.append(HaResource(int(block.id), block.type, block.properties.get("state", "started")))
    return found


def parse_replication(text: str) -> List[ReplicationJob]:
    """Of ``replication.cfg``: jobs are called ``<vmid>-<number>``."""
    found = []
    for block in parse_sections(text, "replication.cfg"):
        vmid = block.id.partition("-")[0]
        if not vmid.isdecimal():
            _unreadable("replication.cfg", f"a job has no VMID: {printable(block.id, 40)!r}")
        found.append(ReplicationJob(block.id, int(vmid), block.properties.get("target", "")))
    return found


class NodeFiles:
    """Reads below ``root`` (``/`` on a node, a directory in tests)."""

    def __init__(self, root: str = "/", side: Side = Side.SOURCE) -> None:
        self._root = root
        self._side = side

    def vm_config_bytes(self, vmid: int) -> bytes:
        """Config of a VM of this node; raises VmAbsent."""
        data = self._read(f"etc/pve/qemu-server/{vmid}.conf")
        if data is None:
            raise VmAbsent(f"there is no VM {vmid} on this node", object=f"VM {vmid}", side=self._side)
        return data

    def vm_config(self, vmid: int) -> VmConfig:
        """Config of a VM of this node, parsed; raises VmAbsent, ConfigInvalid."""
        return VmConfig.read(self.vm_config_bytes(vmid))

    def vm_lock(self, vmid: int) -> str:
        """Lock word of a VM of this node; empty without a lock."""
        return self.vm_config(vmid).lock

    def cluster_vm_texts(self) -> Dict[int, str]:
        """Texts of the configs of every VM of the cluster, by VMID; for reference checks."""
        found: Dict[int, str] = {}
        base = self._path("etc/pve/nodes")
        for node in _listed(base):
            for name in _listed(os.path.join(base, node, "qemu-server")):
                vmid, _dot, suffix = name.partition(".")
                data = self._read(f"etc/pve/nodes/{node}/qemu-server/{name}") if suffix == "conf" else None
                if data is not None and vmid.isdecimal():
                    found[int(vmid)] = data.decode("utf-8", "surrogateescape")
        return found

    def references(self, vmid: int, volids: List[str]) -> Dict[str, List[int]]:
        """Which other VMs of the cluster name one of the volumes, in any section of their config."""
        found: Dict[str, List[int]] = {}
        for other, text in sorted(self.cluster_vm_texts().items()):
            words = set(re.split(r"[\s,]+", text))
            for volid in volids:
                # A drive line holds the volume bare or as file=, a linked clone as a path below its base.
                named = any(word in (volid, f"file={volid}", f"volume={volid}") for word in words)
                if other != vmid and (named or any(word.startswith(volid + "/") for word in words)):
                    found.setdefault(volid, []).append(other)
        return found

    def ha_resources(self) -> List[HaResource]:
        """Guests that HA manages, in any state."""
        return parse_ha_resources(self._text("etc/pve/ha/resources.cfg"))

    def ha_state(self, vmid: int) -> str:
        """State of a VM as HA resource; empty when it is none."""
        return next((entry.state for entry in self.ha_resources() if entry.vmid == vmid), "")

    def replication_jobs(self, vmid: int) -> List[ReplicationJob]:
        """Replication jobs of a VM."""
        return [job for job in parse_replication(self._text("etc/pve/replication.cfg")) if job.vmid == vmid]

    def storages(self) -> Dict[str, ConfigSection]:
        """Storages of the cluster, by id."""
        return {block.id: block for block in parse_sections(self._text("etc/pve/storage.cfg"), "storage.cfg")}

    def volume_inactive(self, volid: str) -> bool:
        """Whether a volume of LVM has no device node, as those of a stopped VM: nothing can read it then."""
        name, _colon, volume = volid.partition(":")
        storage = self.storages().get(name)
        if storage is None or storage.type not in ("lvm", "lvmthin"):
            return False
        return not os.path.lexists(self._path(f"dev/{storage.properties.get('vgname', '')}/{volume}"))

    def firewall(self, vmid: int) -> Optional[str]:
        """Text of the VM's firewall file, a character per byte as the real source sends it; None without one.

        Not surrogates: JSON decoders refuse a lone one, and the target would refuse the whole command `config`.
        """
        data = self._read(f"etc/pve/firewall/{vmid}.fw")
        return None if data is None else data.decode("latin-1")

    def node_name(self) -> str:
        """Name of this node, by the link ``/etc/pve/local``."""
        try:
            found = _NODE.fullmatch(os.readlink(self._path("etc/pve/local")))
        except OSError as error:
            _unreadable("/etc/pve/local", error.strerror or "no link", self._side)
        if not found:
            _unreadable("/etc/pve/local", "it does not lead to a node", self._side)
        return found.group(1)

    def qemu_pid(self, vmid: int) -> Optional[int]:
        """Process id of the VM's QEMU; None when none runs. Checked against the process's command line."""
        data = self._read(f"run/qemu-server/{vmid}.pid")
        text = (data or b"").strip().decode("ascii", "replace")
        if not text.isdecimal():
            return None
        command = self._read(f"proc/{text}/cmdline")
        # The process of the pid file names itself by "-id <vmid>" (older: by its pid file only).
        words = (command or b"").split(b"\0")
        marks = (str(vmid), f"/run/qemu-server/{vmid}.pid", f"/var/run/qemu-server/{vmid}.pid")
        return int(text) if any(mark.encode("ascii") in words for mark in marks) else None

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _text(self, name: str) -> str:
        """Text of a file; an absent file is an empty one, as Proxmox VE reads it."""
        return (self._read(name) or b"").decode("utf-8", "replace")

    def _read(self, name: str) -> Optional[bytes]:
        """Bytes of a file; None when there is none."""
        try:
            with open(self._path(name), "rb") as file:
                data = file.read(_MAX_FILE + 1)
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
            return None
        except OSError as error:
            _unreadable("/" + name, error.strerror or "unknown reason", self._side)
        if len(data) > _MAX_FILE:
            _unreadable("/" + name, f"it has more than {_MAX_FILE} bytes", self._side)
        return data


def _listed(path: str) -> List[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _unreadable(name: str, why: str, side: Side = Side.SOURCE) -> NoReturn:
    raise NodeFileUnreadable(
        f"{name} cannot be used: {why}", side=side, object=name, remedy="Check that pve-cluster runs and has quorum."
    )
