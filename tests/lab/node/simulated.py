# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that exist in configuration and load only, for fleets: any real node of their cluster answers in their place.

/etc/pve/.lab-fleet.json names them; what they "told the cluster" lies, as everybody's, in /etc/pve/.lab-status/. Their
VMs have configs and figures, but no volumes and no processes: they can be looked at and planned with, not started.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional

from .base import Node

__all__ = ["FILE", "REPORTS", "as_node", "names", "report", "summary"]

FILE = "/etc/pve/.lab-fleet.json"
REPORTS = "/etc/pve/.lab-status"


def names(node: Node) -> List[str]:
    """The simulated nodes of the cluster."""
    try:
        found: List[str] = json.loads(node.path(FILE).read_text("utf-8"))["nodes"]
    except FileNotFoundError:
        return []
    return found


def as_node(node: Node, name: Optional[str]) -> Node:
    """The node that a call for `name` works on: a simulated one where there is one of that name."""
    if name is None or name in ("localhost", node.name) or name not in names(node):
        return node
    return Node(node.root, name)


def report(node: Node) -> Optional[Dict[str, Any]]:
    """What a simulated node told; None for a real one."""
    if not node.path(FILE).exists() or node.name not in names(node):
        return None
    told: Dict[str, Any] = json.loads(node.path(f"{REPORTS}/{node.name}.json").read_text("utf-8"))
    return told


def summary(node: Node, vmid: int) -> Dict[str, Any]:
    """Figures of a simulated VM; empty for a real one."""
    told = report(node)
    found: Dict[str, Any] = (told or {}).get("vms", {}).get(str(vmid), {})
    return found
