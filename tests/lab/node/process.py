# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The QEMU process of a VM: its pid file, and commands on its monitor."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from . import qmp, texts
from .base import Die, Node

__all__ = ["alive", "command", "pid"]


def pid(node: Node, vmid: int) -> Optional[int]:
    """Process id of the VM's QEMU, or None."""
    try:
        number = int(node.path(f"/run/qemu-server/{vmid}.pid").read_text("ascii").strip() or "0")
        with open(f"/proc/{number}/cmdline", "rb") as stream:
            words = stream.read().split(b"\0")
    except (OSError, ValueError):
        return None
    return number if f"{node.root}/run/qemu-server/{vmid}.pid".encode() in words and alive(number) else None


def alive(number: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{number}/stat", encoding="ascii", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def command(
    node: Node, vmid: int, name: str, arguments: Optional[Mapping[str, Any]] = None, timeout: Optional[float] = None
) -> Any:
    """A monitor command; `VM N not running` without a process."""
    if pid(node, vmid) is None:
        raise Die(texts.not_running(vmid), 2)
    return qmp.run(node, vmid, name, arguments, timeout)
