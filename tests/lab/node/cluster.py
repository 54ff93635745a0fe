# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster file system as one node sees it: configs of all nodes, VMIDs unique over all of them, quorum."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from typing import Dict, List, Optional, Tuple

from . import texts
from .base import Die, Node
from .flock import config_lock

__all__ = ["Cluster", "digest_of", "parse_sections"]

KINDS = {"qemu-server": "qemu", "lxc": "lxc"}
CONFIG_FILE = re.compile(r"([1-9][0-9]{2,8})\.conf")
NO_QUORUM_FLAG = "/run/lab-faults/no_quorum.json"
"""A file that takes quorum away from this node; `.lab-no-quorum` in the shared /etc/pve takes it from every node."""


def digest_of(text: str) -> str:
    """The sha1 that GET config reports and that --digest compares."""
    return hashlib.sha1(text.encode("utf-8", "surrogateescape")).hexdigest()


class Cluster:
    """Reads and writes below /etc/pve; nothing is cached."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def nodes(self) -> List[str]:
        """Names of the cluster's nodes, sorted."""
        try:
            return sorted(entry.name for entry in self.node.path("/etc/pve/nodes").iterdir() if entry.is_dir())
        except FileNotFoundError:
            return [self.node.name]

    def vms(self) -> Dict[int, Tuple[str, str]]:
        """Every guest of the cluster: vmid -> (node, kind)."""
        found: Dict[int, Tuple[str, str]] = {}
        for name in self.nodes():
            for directory, kind in KINDS.items():
                for vmid in self._vmids(f"/etc/pve/nodes/{name}/{directory}"):
                    found[vmid] = (name, kind)
        return found

    def _vmids(self, directory: str) -> List[int]:
        try:
            names = os.listdir(self.node.path(directory))
        except FileNotFoundError:
            return []
        return sorted(int(match[1]) for match in map(CONFIG_FILE.fullmatch, names) if match)

    def local(self) -> List[int]:
        """VMIDs of the QEMU guests of this node, ascending."""
        return self._vmids(f"/etc/pve/nodes/{self.node.name}/qemu-server")

    def locate(self, vmid: int) -> Optional[Tuple[str, str]]:
        """Where a VMID lives, or None."""
        for name in self.nodes():
            for directory, kind in KINDS.items():
                if self.node.path(f"/etc/pve/nodes/{name}/{directory}/{vmid}.conf").exists():
                    return name, kind
        return None

    def config_file(self, vmid: int, at: Optional[str] = None) -> str:
        """Path of a VM's config on a node (this one by default)."""
        return f"/etc/pve/nodes/{at or self.node.name}/qemu-server/{vmid}.conf"

    def exists(self, vmid: int) -> bool:
        """Whether this node has the VM."""
        return self.node.path(self.config_file(vmid)).exists()

    def read(self, vmid: int, at: Optional[str] = None) -> str:
        """The text of a VM's config."""
        try:
            data = self.node.path(self.config_file(vmid, at)).read_bytes()
        except FileNotFoundError:
            raise Die(texts.config_missing(at or self.node.name, vmid), 2) from None
        return data.decode("utf-8", "surrogateescape")

    def write(self, vmid: int, text: str) -> None:
        """Replace a config atomically; needs quorum."""
        self.write_file(self.config_file(vmid), text)

    def write_file(self, path: str, text: str) -> None:
        """Replace any file below /etc/pve atomically; without quorum it is read-only."""
        self.check_writable(path)
        real = self.node.path(path)
        handle, temporary = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.tmp.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(text.encode("utf-8", "surrogateescape"))
            os.chmod(temporary, 0o640)
            os.rename(temporary, real)
        except BaseException:
            os.unlink(temporary)
            raise

    def remove(self, vmid: int) -> None:
        """Unlink a VM's config."""
        self.check_writable(self.config_file(vmid))
        self.node.path(self.config_file(vmid)).unlink(missing_ok=True)

    def create_stub(self, vmid: int, timeout: float = 5.0, content: str = "lock: create\n") -> None:
        """Reserve a VMID for the whole cluster: atomic, or Die naming the holder."""
        with config_lock(self.node, vmid, timeout):
            holder = self.locate(vmid)
            if holder is not None:
                raise Die(texts.stub_exists("CT" if holder[1] == "lxc" else "VM", vmid, holder[0]))
            self.check_writable(self.config_file(vmid))
            self._create(vmid, content)

    def _create(self, vmid: int, content: str) -> None:
        # pmxcfs serialises creations of a VMID over all nodes; a flock beside the configs does here.
        claims = self.node.path("/etc/pve/.lab-claims")
        with open(claims, "ab") as claim:
            fcntl.flock(claim, fcntl.LOCK_EX)
            holder = self.locate(vmid)
            if holder is not None:
                raise Die(texts.stub_exists("VM", vmid, holder[0]))
            path = self.node.path(self.config_file(vmid))
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(content)

    def quorate(self) -> bool:
        """Whether this node's cluster has quorum (a flag file takes it away)."""
        shared = self.node.path("/etc/pve/.lab-no-quorum")
        return not (self.node.path(NO_QUORUM_FLAG).exists() or shared.exists())

    def check_quorum(self) -> None:
        """Die when the cluster cannot decide."""
        if not self.quorate():
            raise Die(texts.NO_QUORUM)

    def check_writable(self, path: str) -> None:
        """Without quorum pmxcfs refuses every write."""
        if not self.quorate():
            raise Die(f"unable to open file '{path}.tmp.{os.getpid()}' - Permission denied", 13)

    def next_id(self) -> int:
        """The lowest free VMID from 100 on."""
        taken = self.vms()
        return next(vmid for vmid in range(100, 1_000_000_000) if vmid not in taken)

    def sections(self, path: str) -> Dict[str, Dict[str, str]]:
        """A file of "type: id" sections (storage.cfg, ha/resources.cfg, ...): id -> keys, "type" included."""
        try:
            text = self.node.path(path).read_text("utf-8")
        except FileNotFoundError:
            return {}
        return parse_sections(text)

    def write_sections(self, path: str, sections: Dict[str, Dict[str, str]]) -> None:
        """Write such a file back."""
        blocks = []
        for name, keys in sections.items():
            lines = [f"{keys['type']}: {name}\n"]
            lines += [f"\t{key} {value}".rstrip() + "\n" for key, value in keys.items() if key != "type"]
            blocks.append("".join(lines))
        self.node.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.write_file(path, "\n".join(blocks))


def parse_sections(text: str) -> Dict[str, Dict[str, str]]:
    """Parse section files leniently: comments and stray lines are skipped."""
    sections: Dict[str, Dict[str, str]] = {}
    current: Optional[Dict[str, str]] = None
    for line in text.splitlines():
        head = re.fullmatch(r"(\S+):\s*(\S+)\s*", line)
        if head and not line[0].isspace():
            current = sections.setdefault(head[2], {"type": head[1]})
            continue
        item = re.fullmatch(r"\s+(\S+)(?:\s+(.*?))?\s*", line)
        if item and current is not None:
            current[item[1]] = item[2] or ""
    return sections
