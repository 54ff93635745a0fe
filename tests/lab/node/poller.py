# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's status daemon: asks every running VM's monitor now and then, waits 3 s, and counts what timed out.

Proxmox's own pollers do this all the time; a client that holds the one monitor connection makes them answer wrongly
(pve-cli 5). `python -m lab.node.poller [seconds]` runs it; the counts are in /run/lab-poller.json.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Dict

from . import qmp, vm
from .base import Node
from .cluster import Cluster

__all__ = ["FILE", "poll", "read"]

FILE = "/run/lab-poller.json"
QMP_SECONDS = 3.0


def poll(node: Node, counts: Dict[str, Dict[str, float]]) -> None:
    """One round over the VMs of the node; counts gains asked, timed_out, longest (seconds) per VMID."""
    for vmid in Cluster(node).local():
        if vm.pid(node, vmid) is None:
            continue
        entry = counts.setdefault(str(vmid), {"asked": 0, "timed_out": 0, "longest": 0.0})
        began = time.monotonic()
        results = qmp.batch(node, vmid, [("query-status", None), ("query-blockstats", None)], QMP_SECONDS)
        entry["longest"] = max(entry["longest"], round(time.monotonic() - began, 3))
        entry["asked"] += 1
        if not results and vm.pid(node, vmid) is not None:
            entry["timed_out"] += 1


def read(node: Node) -> Dict[str, Dict[str, float]]:
    """The counts so far."""
    try:
        counts: dict[str, dict[str, float]] = json.loads(node.path(FILE).read_text("ascii"))
    except FileNotFoundError:
        return {}
    return counts


def _main() -> None:
    node, pause = Node(), float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    counts: Dict[str, Dict[str, float]] = {}
    while True:
        poll(node, counts)
        temporary = node.path(FILE + ".new")
        temporary.write_text(json.dumps(counts), "ascii")
        os.replace(temporary, node.path(FILE))
        time.sleep(pause)


if __name__ == "__main__":
    _main()
