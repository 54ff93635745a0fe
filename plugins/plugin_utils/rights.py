# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which privileges a VM's configuration asks for on the target. Pure: configuration in, names out.

The target applies the configuration with the token's rights, key by key (mtunnel-protocol 2.6 and 5.4); a missing one
would only be told after disks were made.
"""

from __future__ import annotations

import re
from typing import Any, Dict, FrozenSet, Mapping, Set, Tuple

__all__ = ["needs_startup_right", "vlans_of", "vm_rights"]

Choice = Tuple[str, ...]
"""Privileges of which one is enough."""


def _words(text: str) -> FrozenSet[str]:
    return frozenset(text.split())


# qemu-server, API2/Qemu.pm: $check_vm_modify_config_perm and the lists above it; keys without their number.
_KEYS: Dict[Choice, FrozenSet[str]] = {
    ("VM.Config.CPU",): _words("cores cpu cpulimit cpuunits numa smp sockets vcpus"),
    ("VM.Config.Memory",): _words("allow-ksm balloon memory shares"),
    ("VM.Config.HWType",): _words("acpi audio hotplug kvm machine rng scsihw serial smbios tablet vga watchdog"),
    ("VM.Config.Options",): _words("""
        agent autostart bios description keyboard localtime migrate_downtime migrate_speed name onboot ostype protection
        reboot spice_enhancements startdate startup tags tdf template"""),
    ("VM.Config.Disk",): _words("boot bootdisk efidisk ide sata scsi tpmstate unused virtio vmstatestorage"),
    ("VM.Config.Network",): _words("net"),
    ("VM.Config.Cloudinit", "VM.Config.Network"): _words("""
        cicustom cipassword citype ciupgrade ciuser ipconfig nameserver searchdomain sshkeys"""),
}
_TAG = re.compile(r"(?:^|,)tag=([0-9]+)(?:,|$)")
_TRUNKS = re.compile(r"(?:^|,)trunks=([0-9;-]+)(?:,|$)")


def vm_rights(config: Mapping[str, Any]) -> Set[Choice]:
    """What is asked for on the VM for its keys; of each choice one privilege is enough."""
    wanted: Set[Choice] = set()
    for key, value in config.items():
        members = str(value).split(",")
        if "media=cdrom" in members:
            wanted.add(("VM.Config.CDROM",))
            if "cloudinit" in members[0]:
                wanted.add(("VM.Config.Cloudinit",))
            continue
        base = key.rstrip("0123456789")
        wanted.update(choice for choice, keys in _KEYS.items() if base in keys)
    return wanted


def needs_startup_right(config: Mapping[str, Any]) -> bool:
    """Whether Sys.Modify on ``/`` is asked for: the start order changes what the host does."""
    return "startup" in config


def vlans_of(nic: Any, tag: Any = None) -> Tuple[Set[int], Set[int]]:
    """The VLAN that a NIC is in and those of its trunk; ``tag`` is the one declared for the target, if one is."""
    text = str(nic)
    match, trunks = _TAG.search(text), _TRUNKS.search(text)
    own = tag if tag is not None else match and match.group(1)
    found: Set[int] = set()
    for part in trunks.group(1).split(";") if trunks else ():
        first, _hyphen, last = part.partition("-")
        if first:
            found |= set(range(int(first), min(4094, int(last or first)) + 1))
    return ({int(own)} if own else set()), found
