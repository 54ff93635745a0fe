# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Message texts that several modules use; each is a literal a program may match (mtunnel-protocol 9, pve-cli 4)."""

from __future__ import annotations

__all__ = [
    "MISSING",
    "NO_QUORUM",
    "UNDEFINED",
    "config_missing",
    "locked",
    "no_such_config",
    "not_running",
    "storage_disabled",
    "storage_missing",
    "storage_no_images",
    "stub_exists",
]

MISSING = "property is missing and it is not optional"
UNDEFINED = "property is not defined in schema and the schema does not allow additional properties"
NO_QUORUM = "cluster not ready - no quorum?"


def config_missing(node: str, vmid: int) -> str:
    """Reading the config of a VM that is not on that node."""
    return f"Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist"


def no_such_config(node: str, vmid: int) -> str:
    """Commands that look for the file themselves (qm stop, qm start)."""
    return f"unable to find configuration file for VM {vmid} on node '{node}'"


def locked(word: str) -> str:
    """Any action on a VM whose config carries a lock."""
    return f"VM is locked ({word})"


def not_running(vmid: int) -> str:
    """A monitor command without a QEMU process."""
    return f"VM {vmid} not running"


def stub_exists(kind: str, vmid: int, node: str) -> str:
    """A VMID taken anywhere in the cluster."""
    return f"unable to create empty VM config - {kind} {vmid} already exists on node '{node}'"


def storage_missing(sid: str) -> str:
    """An unknown storage id."""
    return f"storage '{sid}' does not exist"


def storage_disabled(sid: str) -> str:
    """A storage switched off, or not for this node."""
    return f"storage '{sid}' is disabled"


def storage_no_images(sid: str) -> str:
    """A storage whose content types lack images."""
    return f"storage '{sid}' does not support vm images"
