# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the guest agent that `qm guest cmd` and the API pass on, and what each asks for."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from . import qmp, vm
from .base import Die, Node
from .vmconfig import load

__all__ = ["COMMANDS", "privileges", "run"]

_AUDIT = ("VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted")
_FILES = ("VM.GuestAgent.FileSystemMgmt", "VM.GuestAgent.Unrestricted")
_POWER = ("VM.PowerMgmt", "VM.GuestAgent.Unrestricted")
COMMANDS: Dict[str, Tuple[str, Tuple[str, ...]]] = {
    "fsfreeze-freeze": ("POST", _FILES),
    "fsfreeze-status": ("POST", _FILES),
    "fsfreeze-thaw": ("POST", _FILES),
    "fstrim": ("POST", _FILES),
    "get-fsinfo": ("GET", _AUDIT),
    "get-host-name": ("GET", _AUDIT),
    "get-memory-block-info": ("GET", _AUDIT),
    "get-memory-blocks": ("GET", _AUDIT),
    "get-osinfo": ("GET", _AUDIT),
    "get-time": ("GET", _AUDIT),
    "get-timezone": ("GET", _AUDIT),
    "get-users": ("GET", _AUDIT),
    "get-vcpus": ("GET", _AUDIT),
    "info": ("GET", _AUDIT),
    "network-get-interfaces": ("GET", _AUDIT),
    "ping": ("POST", _AUDIT),
    "shutdown": ("POST", _POWER),
    "suspend-disk": ("POST", _POWER),
    "suspend-hybrid": ("POST", _POWER),
    "suspend-ram": ("POST", _POWER),
}
"""Name -> verb of its own path below agent/, privileges on the VM of which one is enough."""


def privileges(name: str) -> Tuple[str, ...]:
    """Privileges on the VM of which one is enough."""
    return COMMANDS[name][1]


def run(node: Node, vmid: int, name: str) -> Any:
    """One command; the refusals come in the order of the real one: configured, VM running, agent running."""
    if "agent" not in load(node, vmid).values:
        raise Die("No QEMU guest agent configured")
    if vm.pid(node, vmid) is None:
        raise Die(f"VM {vmid} is not running")
    if name != "shutdown":
        try:
            qmp.agent(node, vmid, "guest-ping")
        except Die:
            raise Die("QEMU guest agent is not running") from None
    return qmp.agent(node, vmid, f"guest-{name}", qmp.SECONDS.get(f"guest-{name}", 10.0))
