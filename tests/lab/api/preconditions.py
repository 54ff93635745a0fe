# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that POST mtunnel and the tunnel's commands share, and what they undo."""

from __future__ import annotations

import re
import socket
from typing import Callable, Optional, Sequence

from lab.node.base import Die, Node, ParamError, may_all
from lab.node.cluster import Cluster
from lab.node.command_line import bridge_exists
from lab.node.destroy import destroy_files
from lab.node.storage import Storages

from . import peers

__all__ = ["bridge", "datacenter", "forget", "migration_network", "node_address", "storage", "stub"]

CREATE_FAILED = "unable to create empty VM config - "
May = Callable[[str, Sequence[str], bool], bool]


def storage(node: Node, sid: str, may: Optional[May]) -> None:
    """It exists, is enabled here, the caller may allocate, and it holds images; refused in this order."""
    Storages(node).check_enabled(sid)
    may_all(may, "/storage/" + sid, ["Datastore.AllocateSpace"])
    Storages(node).check_enabled_images(sid)


def bridge(name: str) -> None:
    """An interface of that name is there."""
    if not bridge_exists(name):
        raise Die("bridge '%s' does not exist" % name)


def stub(node: Node, vmid: int) -> None:
    """Take the VMID for the whole cluster; a taken one is a bad parameter (mtunnel-protocol 9.1)."""
    try:
        Cluster(node).create_stub(vmid, 5.0)
    except Die as error:
        prefix = "" if error.text.startswith(CREATE_FAILED) else CREATE_FAILED
        raise ParamError({"vmid": "%s%s\n" % (prefix, error.text)}) from None


def node_address(node: Node) -> str:
    """The address other nodes know this one by."""
    known = peers.addresses(node).get(node.name)
    if known:
        return known
    try:
        return socket.gethostbyname(node.name)
    except OSError:
        return "127.0.0.1"


def datacenter(node: Node, key: str) -> Optional[str]:
    """A value of datacenter.cfg."""
    try:
        text = node.path("/etc/pve/datacenter.cfg").read_text("utf-8")
    except FileNotFoundError:
        return None
    match = re.search(r"^%s:\s*(.*?)\s*$" % re.escape(key), text, re.MULTILINE)
    return match[1] if match else None


def migration_network(node: Node) -> Optional[str]:
    """`network` of the property `migration` in datacenter.cfg."""
    match = re.search(r"\bnetwork=([^,\s]+)", datacenter(node, "migration") or "")
    return match[1] if match else None


def forget(node: Node, vmid: int) -> None:
    """Destroy the VM without asking whether it runs: config and the volumes it owns."""
    destroy_files(node, vmid, skiplock=True)
