# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change does to a VM that runs: some keys take effect at once, a few others through the monitor.

No device is plugged or unplugged here; such a change waits for the next start, as with `hotplug: 0`.
"""

from __future__ import annotations

import subprocess
from typing import Dict, Optional

from . import vm
from .base import Node
from .command_line import nics, tap_name, tun_usable
from .properties import is_drive, parse_drive, parse_size
from .storage import Storages

__all__ = ["at_once", "removes_at_once"]

FAST = (
    "lock",
    "name",
    "onboot",
    "shares",
    "startup",
    "description",
    "protection",
    "vmstatestorage",
    "hookscript",
    "tags",
)
GROUP = ("cpulimit", "cpuunits")
"""Keys of the control group: there is none here, so the value is all that changes."""
NIC_IDENTITY = ("model", "macaddr", "queues", "mtu")
DISK_BOOKKEEPING = ("backup", "replicate", "shared", "size")


def removes_at_once(key: str) -> bool:
    """Whether a key of a running VM can be taken out now."""
    return key in FAST or key in GROUP or key.startswith("unused")


def at_once(node: Node, vmid: int, key: str, old: Optional[str], new: str) -> bool:
    """Make a running VM follow a new value; False when it has to wait for the next start, Die when it did not."""
    if key in FAST or key in GROUP:
        return True
    if old is not None and key.startswith("net"):
        return _nic(node, vmid, key, old, new)
    return old is not None and is_drive(key) and _drive(node, vmid, key, parse_drive(old), parse_drive(new))


def _nic(node: Node, vmid: int, key: str, old: str, new: str) -> bool:
    """Bridge, VLAN, rate and link of the same card change under the guest."""
    before, after = nics({key: old})[key], nics({key: new})[key]
    same = all(before.get(name) == after.get(name) for name in NIC_IDENTITY)
    if not same or not (before.get("bridge") and after.get("bridge")):
        return False
    if before["bridge"] != after["bridge"] and tun_usable():
        lines = f"link set {tap_name(vmid, key)} master {after['bridge']}\n"
        subprocess.run(["ip", "-batch", "-"], input=lines, text=True, capture_output=True, check=False)
    if before.get("link_down", "0") != after.get("link_down", "0"):
        vm.command(node, vmid, "set_link", {"name": key, "up": after.get("link_down", "0") != "1"})
    return True


def _drive(node: Node, vmid: int, key: str, old: Dict[str, str], new: Dict[str, str]) -> bool:
    if new.get("media") == "cdrom" and old.get("media") == "cdrom":
        if old["file"] != new["file"]:
            _medium(node, vmid, key, new["file"])
        return True
    if old["file"] != new["file"]:
        return False
    before, after = (
        {name: value for name, value in each.items() if name not in DISK_BOOKKEEPING} for each in (old, new)
    )
    grown = parse_size(new.get("size", "0")) != parse_size(old.get("size", "0"))
    return before == after and not grown


def _medium(node: Node, vmid: int, key: str, volume: str) -> None:
    """Eject what is in the drive; put in what is asked for."""
    vm.command(node, vmid, "eject", {"device": f"drive-{key}", "force": True})
    if volume not in ("none", "cdrom"):
        path = volume if volume.startswith("/") else Storages(node).real_path(volume)
        vm.command(node, vmid, "blockdev-change-medium", {"device": f"drive-{key}", "filename": path})
