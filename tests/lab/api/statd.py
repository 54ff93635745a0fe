# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status daemon of a node: tells the cluster every few seconds what runs here, polling each VM's monitor for it.

It is the poller that must never time out because of somebody else; its counts are those of lab.node.poller. What it
tells lies in /etc/pve/.lab-status/<node>.json; /cluster/resources knows no more than that.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Dict

from lab.node import poller, status, vmconfig
from lab.node.base import Die, Node
from lab.node.cluster import Cluster
from lab.node.storage import Storages

from .personality import current

__all__ = ["broadcast", "cluster_name", "node_figures", "serve"]

DIRECTORY = "/etc/pve/.lab-status"
STALE_SECONDS = 30.0


def node_figures() -> Dict[str, Any]:
    """Load of this machine."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        memory = dict(line.split(":", 1) for line in stream)
    total, free = (int(memory[key].split()[0]) << 10 for key in ("MemTotal", "MemAvailable"))
    with open("/proc/uptime", encoding="ascii") as stream:
        uptime = int(float(stream.read().split()[0]))
    cpus = os.cpu_count() or 1
    return {
        "uptime": uptime,
        "cpu": min(1.0, os.getloadavg()[0] / cpus),
        "maxcpu": cpus,
        "mem": total - free,
        "maxmem": total,
        "level": "",
        "disk": 0,
        "maxdisk": 0,
    }


class Reporter:
    """One node's reports."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.counts: Dict[str, Dict[str, float]] = {}

    def report(self) -> None:
        """One round."""
        vms: Dict[str, Any] = {}
        for vmid in Cluster(self.node).local():
            try:
                vms[str(vmid)] = status.summary(self.node, vmid, vmconfig.load(self.node, vmid))
            except Die:
                continue
        storages = {sid: Storages(self.node).status(sid) for sid in Storages(self.node).all()}
        told = {"time": time.time(), "node": node_figures(), "vms": vms, "storages": storages}
        _write(self.node, "%s/%s.json" % (DIRECTORY, self.node.name), told)
        poller.poll(self.node, self.counts)
        _write(self.node, poller.FILE, self.counts)


def _write(node: Node, path: str, value: Dict[str, Any]) -> None:
    real = node.path(path)
    real.parent.mkdir(parents=True, exist_ok=True)
    temporary = real.with_name(".%s.new" % real.name)
    temporary.write_text(json.dumps(value), "utf-8")
    os.replace(temporary, real)


def serve(node: Node) -> None:
    """Report for ever."""
    reporter = Reporter(node)
    while True:
        pause = current().statd
        try:
            if pause:
                reporter.report()
        except (Die, OSError, ValueError) as error:
            os.write(2, ("pvestatd: %s\n" % error).encode())
        time.sleep(pause or 1.0)


def broadcast(node: Node) -> Dict[str, Dict[str, Any]]:
    """What each node last told, unless that is too long ago."""
    found = {}
    directory = node.path(DIRECTORY)
    for path in sorted(directory.glob("[!.]*.json")) if directory.is_dir() else []:
        try:
            told = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if time.time() - told["time"] < STALE_SECONDS or told.get("simulated"):
            found[path.stem] = told
    return found


def cluster_name(node: Node) -> str:
    """Name of the cluster, from .members."""
    try:
        return str(json.loads(node.path("/etc/pve/.members").read_text("utf-8"))["cluster"]["name"])
    except (OSError, KeyError, TypeError, ValueError):
        return node.name
