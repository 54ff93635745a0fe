# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""VM config files: values, pending changes, snapshots, special sections, description, in Proxmox's format."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional, Union
from urllib.parse import unquote_to_bytes

from . import schema, texts
from .base import Die, Node, complain
from .cluster import Cluster, digest_of
from .flock import config_lock

__all__ = ["VmConfig", "check_lock", "decode_text", "encode_text", "load", "remove_lock", "set_lock", "store"]

SECTION = re.compile(r"\[(PENDING|special:[a-z][a-z0-9-]*|[a-zA-Z][a-zA-Z0-9_\-]+)\]\s*", re.IGNORECASE)
ITEM = re.compile(r"([a-z][a-z_\-]*\d*):\s*(.+?)\s*")
UNSAFE = re.compile(rb"[\x00-\x1f\x7f-\xff%:]")


def encode_text(text: str) -> str:
    """Percent-encode what a description line may not hold."""
    data = text.encode("utf-8", "surrogateescape")
    return UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], data).decode("ascii")


def decode_text(text: str) -> str:
    """Undo encode_text; bytes that are not UTF-8 become U+FFFD."""
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")


@dataclass
class VmConfig:
    """One config file; every value is the text of the file, description decoded."""

    vmid: int
    values: Dict[str, str] = field(default_factory=dict)
    pending: Dict[str, str] = field(default_factory=dict)
    pending_delete: List[str] = field(default_factory=list)
    snapshots: Dict[str, Dict[str, str]] = field(default_factory=dict)
    special: Dict[str, Dict[str, str]] = field(default_factory=dict)
    digest: str = ""

    @property
    def lock(self) -> Optional[str]:
        """The lock word, or None."""
        return self.values.get("lock")

    @classmethod
    def parse(cls, vmid: int, text: str, strict: bool = False) -> "VmConfig":
        """Read a file; strict refuses what lenient reading only warns about (the tunnel's config command)."""
        config = cls(vmid, digest=digest_of(text))
        _Reader(config, strict).read(text)
        return config

    def format(self) -> str:
        """The text of the file."""
        out = [_section(self.values)]
        if self.pending or self.pending_delete:
            body = {**self.pending}
            if self.pending_delete:
                body["delete"] = ",".join(sorted(self.pending_delete))
            out.append("\n[PENDING]\n" + _section(body))
        for name in sorted(self.special):
            out.append(f"\n[special:{name}]\n" + _section(self.special[name]))
        for name in sorted(self.snapshots):
            out.append(f"\n[{name}]\n" + _section(self.snapshots[name]))
        return "".join(out)

    def typed(self, values: Optional[Dict[str, str]] = None) -> Dict[str, Union[str, int, float]]:
        """Values as GET config shows them: integers and booleans as numbers, the rest as text."""
        return {key: schema.typed(key, value) for key, value in (self.values if values is None else values).items()}

    def with_pending(self) -> Dict[str, str]:
        """Values as they would be after the next start."""
        merged = {key: value for key, value in self.values.items() if key not in self.pending_delete}
        return {**merged, **self.pending}


class _Reader:
    def __init__(self, config: VmConfig, strict: bool) -> None:
        self.config = config
        self.strict = strict
        self.target = config.values
        self.section = ""
        self.description: List[str] = []

    def read(self, text: str) -> None:
        for line in text.split("\n"):
            line = line.rstrip("\r")
            if not line.strip():
                continue
            head = SECTION.fullmatch(line)
            if head:
                self._close()
                self._open(head[1])
            else:
                self._line(line)
        self._close()

    def _open(self, name: str) -> None:
        self.section = name
        if name.upper() == "PENDING":
            self.section, self.target = "PENDING", self.config.pending
        elif name.startswith("special:"):
            self.target = self.config.special.setdefault(name[len("special:") :], {})
        else:
            self.target = self.config.snapshots.setdefault(name, {})

    def _close(self) -> None:
        if self.description:
            self.target["description"] = "\n".join(self.description)
        self.description = []

    def _line(self, line: str) -> None:
        if line.startswith("#"):
            self.description.append(decode_text(line[1:]))
            return
        item = ITEM.fullmatch(line)
        if not item:
            self._trouble(f"vm {self.config.vmid} - unable to parse config: {line}")
            return
        key, value = item[1], item[2]
        if key == "description":
            self.description = [decode_text(value)]
        elif key == "delete" and self.section == "PENDING":
            self.config.pending_delete = [word for word in re.split(r"[,;\s]+", value) if word]
        elif self._snapshot_key(key):
            self.target[key] = value
        else:
            self._option(key, value)

    def _snapshot_key(self, key: str) -> bool:
        known = ("snaptime", "snapstate", "vmstate", "parent", "runningmachine", "runningcpu", "running-nets-host-mtu")
        return key in known or self.section.startswith("special:")

    def _option(self, key: str, value: str) -> None:
        try:
            self.target[key] = schema.stored(key, value)
        except ValueError as error:
            self._trouble(f"vm {self.config.vmid} - unable to parse value of '{key}' - {error}")

    def _trouble(self, text: str) -> None:
        if self.strict:
            raise Die(text)
        complain(text)


def _section(values: Dict[str, str]) -> str:
    lines = [
        "#" + encode_text(line) + "\n" for line in values.get("description", "").split("\n") if "description" in values
    ]
    lines += [f"{key}: {values[key]}\n" for key in sorted(values) if key != "description"]
    return "".join(lines)


def load(node: Node, vmid: int, at: Optional[str] = None) -> VmConfig:
    """Read a VM's config from the cluster file system."""
    return VmConfig.parse(vmid, Cluster(node).read(vmid, at))


def store(node: Node, vmid: int, config: VmConfig) -> None:
    """Write it back (call with the config flock held)."""
    text = config.format()
    Cluster(node).write(vmid, text)
    config.digest = digest_of(text)


def check_lock(config: VmConfig) -> None:
    """Die when the VM carries any lock."""
    if config.lock:
        raise Die(texts.locked(config.lock))


def set_lock(node: Node, vmid: int, word: str) -> None:
    """Set the lock word atomically; refused when there is one already."""

    def change(config: VmConfig) -> None:
        check_lock(config)
        config.values["lock"] = word

    _change(node, vmid, change)


def remove_lock(node: Node, vmid: int, word: Optional[str] = None) -> None:
    """Remove the lock; with a word, only that one (the tunnel's config and unlock)."""

    def change(config: VmConfig) -> None:
        if config.lock is None:
            wanted = f"'{word}'" if word else "any"
            raise Die(f"no lock found trying to remove {wanted} lock")
        if word is not None and config.lock != word:
            raise Die(f"found lock '{config.lock}' trying to remove '{word}' lock")
        del config.values["lock"]

    _change(node, vmid, change)


def _change(node: Node, vmid: int, change: Callable[[VmConfig], None]) -> None:
    with config_lock(node, vmid):
        config = load(node, vmid)
        change(config)
        store(node, vmid, config)
