# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node says about its VMs: status/current with the 3 s fallback (pve-cli 5), `qm status`, the VM list.

When the monitor does not answer within 3 s (it serves one client), qmpstatus falls back to the process state: `running`
even for a VM that is paused or waits for a migration, and every field that came from QMP is missing.
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Mapping

from . import qmp, simulated, vm
from .base import Node
from .cluster import Cluster
from .command_line import nics, tap_name
from .ha import Resources
from .properties import drive_keys, parse_drive, parse_list, parse_size
from .vmconfig import VmConfig, load

__all__ = ["current", "listing", "summary", "verbose", "word"]

QMP_SECONDS = 3.0
PRESSURE = (
    "pressurecpufull",
    "pressurecpusome",
    "pressureiofull",
    "pressureiosome",
    "pressurememoryfull",
    "pressurememorysome",
)


def word(node: Node, vmid: int) -> str:
    """What `qm status` prints: the QMP word of a running VM, else stopped."""
    load(node, vmid)
    if vm.pid(node, vmid) is None:
        return "stopped"
    results = qmp.batch(node, vmid, [("query-status", None)], QMP_SECONDS)
    return results[0]["status"] if results else "running"


def current(node: Node, vmid: int) -> Dict[str, Any]:
    """The data of GET status/current."""
    config = load(node, vmid)
    answer = summary(node, vmid, config)
    answer["qmpstatus"] = answer["status"]
    answer["ha"] = _ha(node, vmid)
    if "vga" in config.values:
        answer["clipboard"] = None
    if parse_list(config.values.get("agent", "0"), "enabled").get("enabled") == "1":
        answer["agent"] = 1
    if "pid" in answer:
        answer.update(_from_monitor(node, vmid))
    return answer


def summary(node: Node, vmid: int, config: VmConfig) -> Dict[str, Any]:
    """The fields that need no monitor, as in GET /nodes/x/qemu (plus nics)."""
    values = config.values
    answer: Dict[str, Any] = {
        "vmid": vmid,
        "name": values.get("name", f"VM {vmid}"),
        "status": "stopped",
        "cpu": 0,
        "cpus": _cpus(values),
        "disk": 0,
        "maxdisk": _boot_disk_size(values),
        "maxmem": int(parse_list(values.get("memory", "512"), "current")["current"]) << 20,
        "mem": 0,
        "memhost": 0,
        "netin": 0,
        "netout": 0,
        "uptime": 0,
    }
    if any(key.startswith("serial") for key in values):
        answer["serial"] = 1
    if values.get("template") == "1":
        answer["template"] = 1
    for key in ("lock", "tags"):
        if key in values:
            answer[key] = values[key]
    answer.update(simulated.summary(node, vmid))
    number = vm.pid(node, vmid)
    if number is not None:
        answer.update({"status": "running", "pid": number, "uptime": _uptime(number), **{key: 0 for key in PRESSURE}})
        _network(vmid, values, answer)
    return answer


def listing(node: Node) -> List[Dict[str, Any]]:
    """GET /nodes/x/qemu: process states only."""
    answer = []
    for vmid in Cluster(node).local():
        entry = summary(node, vmid, load(node, vmid))
        entry.pop("nics", None)
        answer.append(entry)
    return answer


def _cpus(values: Mapping[str, str]) -> int:
    return int(values.get("vcpus", int(values.get("sockets", "1")) * int(values.get("cores", "1"))))


def _boot_disk_size(values: Mapping[str, str]) -> int:
    order = parse_list(values.get("boot", ""), "legacy").get("order", "").split(";")
    # without an order only the old key bootdisk counts: a VM that has neither shows 0 (recorded)
    for key in [key for key in order if key] or [values.get("bootdisk", "")]:
        drive = parse_drive(values[key]) if key in values and key in drive_keys(values) else {}
        if drive.get("media") != "cdrom" and "size" in drive and key not in ("efidisk0", "tpmstate0"):
            return parse_size(drive["size"])
    return 0


def _uptime(number: int) -> int:
    try:
        with open(f"/proc/{number}/stat", encoding="ascii", errors="replace") as stream:
            ticks = int(stream.read().rpartition(")")[2].split()[19])
    except OSError:
        return 0
    return max(0, int(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")))


def _network(vmid: int, values: Mapping[str, str], answer: Dict[str, Any]) -> None:
    found: Dict[str, Dict[str, int]] = {}
    for key in nics(values):
        base = f"/sys/class/net/{tap_name(vmid, key)}/statistics"
        try:
            # what the host sends into the tap is what the guest receives
            counts = {"netin": _number(f"{base}/tx_bytes"), "netout": _number(f"{base}/rx_bytes")}
        except OSError:
            continue
        found[tap_name(vmid, key)] = counts
        answer["netin"] += counts["netin"]
        answer["netout"] += counts["netout"]
    if found:
        answer["nics"] = found


def _number(path: str) -> int:
    with open(path, encoding="ascii") as stream:
        return int(stream.read())


def _ha(node: Node, vmid: int) -> Dict[str, Any]:
    if not Resources(node).managed(vmid):
        return {"managed": 0}
    return {"managed": 1, "state": None}


def _from_monitor(node: Node, vmid: int) -> Dict[str, Any]:
    commands = [
        ("query-status", None),
        ("query-blockstats", None),
        ("qom-get", {"path": "/machine", "property": "type"}),
        ("query-version", None),
    ]
    results = qmp.batch(node, vmid, commands, QMP_SECONDS)
    answer: Dict[str, Any] = {}
    if results:
        answer["qmpstatus"] = results[0]["status"]
    if len(results) > 1:
        stats = {
            entry["device"][len("drive-") :]: entry["stats"]
            for entry in results[1]
            if entry.get("device", "").startswith("drive-")
        }
        answer["blockstat"] = stats
        answer["diskread"] = sum(entry["rd_bytes"] for entry in stats.values())
        answer["diskwrite"] = sum(entry["wr_bytes"] for entry in stats.values())
    if len(results) > 2:
        answer["running-machine"] = str(results[2]).replace("-machine", "")
    if len(results) > 3:
        version = results[3]["qemu"]
        answer["running-qemu"] = f"{version['major']}.{version['minor']}.{version['micro']}"
    return answer


def verbose(answer: Mapping[str, Any]) -> str:
    """The text of `qm status --verbose`."""
    hidden = ("clipboard", "cpu", "ha")
    lines: List[str] = []
    _nested({key: value for key, value in answer.items() if key not in hidden}, 0, lines)
    return "".join(line + "\n" for line in lines)


def _nested(values: Mapping[str, Any], depth: int, lines: List[str]) -> None:
    for key in sorted(values):
        value = values[key]
        if isinstance(value, Mapping):
            lines.append("\t" * depth + f"{key}:")
            _nested(value, depth + 1, lines)
        elif isinstance(value, list):
            lines.append("\t" * depth + f"{key}:")
            lines += ["\t" * (depth + 1) + f"- {entry}" for entry in value]
        elif value is not None:
            lines.append("\t" * depth + f"{key}: {int(value) if isinstance(value, bool) else value}")
