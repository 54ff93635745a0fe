# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes: status, time, network, certificates, capabilities, storages and their content."""

from __future__ import annotations

import os
import re
import subprocess
import time
from typing import Any, Dict, List, Optional

from lab.node import simulated, vm
from lab.node.base import ParamError

from .. import statd
from ..registry import Call, Need, method
from ..schema import boolean, integer, string
from .access import VERSION
from .cluster import replication_jobs

NODE = "/nodes/{node}"
NODE_AUDIT = Need("/nodes/{node}", ("Sys.Audit",))


@method("GET", "/nodes")
def nodes(call: Call) -> List[Dict[str, Any]]:
    """Nodes of the cluster; figures only for those one may audit."""
    known = statd.broadcast(call.node)
    found = []
    for name in call.cluster.nodes():
        entry: Dict[str, Any] = {
            "node": name,
            "id": "node/" + name,
            "type": "node",
            "status": "online" if name in known else "unknown",
        }
        if call.may("/nodes/" + name, ["Sys.Audit"]):
            entry.update(known.get(name, {}).get("node", {}))
        found.append(entry)
    return found


@method("GET", NODE + "/status", {}, NODE_AUDIT)
def status(call: Call) -> Dict[str, Any]:
    """Load and space of the node."""
    told = simulated.report(call.node)
    figures = told["node"] if told else statd.node_figures()
    load = [figures["cpu"] * figures["maxcpu"]] * 3 if told else list(os.getloadavg())
    root = os.statvfs("/")
    size = root.f_frsize
    return {
        "uptime": figures["uptime"],
        "cpu": figures["cpu"],
        "wait": 0,
        "idle": 0,
        "loadavg": ["%.2f" % value for value in load],
        "memory": {
            "total": figures["maxmem"],
            "used": figures["mem"],
            "free": figures["maxmem"] - figures["mem"],
            "available": figures["maxmem"] - figures["mem"],
        },
        "swap": {"total": 0, "used": 0, "free": 0},
        "rootfs": {
            "total": root.f_blocks * size,
            "used": (root.f_blocks - root.f_bfree) * size,
            "free": root.f_bfree * size,
            "avail": root.f_bavail * size,
        },
        "cpuinfo": _cpuinfo(int(figures["maxcpu"])),
        "kversion": "Linux %s" % os.uname().release,
        "pveversion": "pve-manager/%s/%s" % (VERSION["version"], VERSION["repoid"]),
        "current-kernel": {"sysname": "Linux", "release": os.uname().release, "machine": os.uname().machine},
    }


def _cpuinfo(count: int) -> Dict[str, Any]:
    """The first processor's words; flags are those of the kernel."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            words = dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", stream.read().split("\n\n")[0], re.MULTILINE))
    except OSError:
        words = {}
    return {
        "cpus": count,
        "cores": count,
        "sockets": 1,
        "model": words.get("model name", "unknown"),
        "mhz": words.get("cpu MHz", "0"),
        "flags": words.get("flags", ""),
        "hvm": "1" if {"vmx", "svm"} & set(words.get("flags", "").split()) else "0",
        "user_hz": os.sysconf("SC_CLK_TCK"),
    }


@method("GET", NODE + "/time", {}, NODE_AUDIT)
def clock(call: Call) -> Dict[str, Any]:
    """Clock of the node."""
    now = int(time.time())
    return {"time": now, "localtime": now - time.timezone, "timezone": "UTC"}


@method("GET", NODE + "/version")
def version(call: Call) -> Dict[str, str]:
    """Release of the node."""
    return VERSION


@method("GET", NODE + "/network", {"type": string(optional=True)})
def network(call: Call) -> List[Dict[str, Any]]:
    """Interfaces of the node; bridges and physical ones."""
    wanted = call.params.get("type")
    found = []
    for name in sorted(os.listdir("/sys/class/net")):
        if name == "lo" or name.startswith(("tap", "veth", "fwbr")):
            continue
        bridge = os.path.isdir("/sys/class/net/%s/bridge" % name)
        kind = "bridge" if bridge else "eth"
        if wanted in (None, kind) or (wanted in ("any_bridge", "any_local_bridge", "include_sdn") and bridge):
            found.append(_interface(name, kind))
    return found


@method("GET", NODE + "/network/{iface}", {}, NODE_AUDIT)
def interface(call: Call) -> Dict[str, Any]:
    """One interface."""
    name = call.params["iface"]
    if not os.path.isdir("/sys/class/net/" + os.path.basename(name)):
        raise ParamError({"iface": "interface does not exist"})
    bridge = os.path.isdir("/sys/class/net/%s/bridge" % name)
    return {key: value for key, value in _interface(name, "bridge" if bridge else "eth").items() if key != "iface"}


def _interface(name: str, kind: str) -> Dict[str, Any]:
    entry: Dict[str, Any] = {
        "iface": name,
        "type": kind,
        "active": 1,
        "autostart": 1,
        "method": "manual",
        "method6": "manual",
        "families": ["inet"],
        "priority": 3,
    }
    if kind == "bridge":
        entry.update({"bridge_ports": "", "bridge_fd": "0", "bridge_stp": "off"})
    else:
        entry["exists"] = 1
    shown = subprocess.run(
        ["ip", "-o", "addr", "show", "dev", name], stdout=subprocess.PIPE, text=True, check=False
    ).stdout
    match = re.search(r"inet ([\d.]+)/(\d+)", shown)
    if match:
        entry.update({"method": "static", "address": match[1], "netmask": match[2], "cidr": "%s/%s" % match.groups()})
    match = re.search(r"inet6 ([0-9a-f:]+)/(\d+) scope global", shown)
    if match:
        entry.update(
            {"method6": "static", "address6": match[1], "netmask6": match[2], "cidr6": "%s/%s" % match.groups()}
        )
    return entry


@method("GET", NODE + "/certificates/info")
def certificates(call: Call) -> List[Dict[str, Any]]:
    """The node's certificates; any authenticated user."""
    found = []
    for name in ("pve-ssl.pem", "pveproxy-ssl.pem"):
        path = call.node.path("/etc/pve/nodes/%s/%s" % (call.node.name, name))
        if path.exists():
            found.append({"filename": name, **_certificate(str(path)), "pem": path.read_text("ascii")})
    return found


def _certificate(path: str) -> Dict[str, Any]:
    argv = [
        "openssl",
        "x509",
        "-in",
        path,
        "-noout",
        "-fingerprint",
        "-sha256",
        "-subject",
        "-issuer",
        "-dates",
        "-ext",
        "subjectAltName",
        "-nameopt",
        "compat",
        "-dateopt",
        "iso_8601",
    ]
    out = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    text = dict(re.findall(r"^(\S+?) ?= ?(.*)$", out, re.MULTILINE))
    fingerprint = next((value for key, value in text.items() if "ingerprint" in key), "")
    fingerprint = fingerprint or (re.search(r"Fingerprint=(\S+)", out, re.IGNORECASE) or ["", ""])[1]
    names = re.search(r"Alternative Name:.*\n\s*(.+)", out)
    san = [part.strip().partition(":")[2] for part in names[1].split(",")] if names else []
    return {
        "fingerprint": fingerprint,
        "subject": text.get("subject", ""),
        "issuer": text.get("issuer", ""),
        "san": san,
        "notbefore": _moment(text.get("notBefore")),
        "notafter": _moment(text.get("notAfter")),
        "public-key-type": "id-ecPublicKey",
        "public-key-bits": 256,
    }


def _moment(text: Optional[str]) -> int:
    for form in ("%Y-%m-%d %H:%M:%SZ", "%b %d %H:%M:%S %Y %Z"):
        try:
            return int(time.mktime(time.strptime(text or "", form)))
        except ValueError:
            continue
    return 0


@method("GET", NODE + "/capabilities/qemu/machines")
def machines(call: Call) -> List[Dict[str, str]]:
    """Machine types the installed QEMU knows."""
    out = subprocess.run([vm.PROGRAM, "-machine", "help"], stdout=subprocess.PIPE, text=True, check=False).stdout
    found = []
    for name in re.findall(r"^(pc-(?:i440fx|q35)-(?:\d+\.\d+(?:\.\d+)?))\s", out, re.MULTILINE):
        found.append({"id": name, "type": "q35" if "q35" in name else "i440fx", "version": name.rsplit("-", 1)[1]})
    return found


@method("GET", NODE + "/capabilities/qemu/migration")
def migration(call: Call) -> Dict[str, int]:
    """What the node can do in a migration."""
    return {"has-dbus-vmstate": 1}


@method("GET", NODE + "/lxc")
def containers(call: Call) -> List[Dict[str, Any]]:
    """Containers of the node that one may audit; none ever runs here."""
    return [
        {"vmid": vmid, "type": "lxc", "status": "stopped", "name": "CT%d" % vmid}
        for vmid, (name, kind) in sorted(call.cluster.vms().items())
        if kind == "lxc" and name == call.node.name and call.may("/vms/%d" % vmid, ["VM.Audit"])
    ]


@method("GET", NODE + "/sdn/zones")
def zones(call: Call) -> List[Dict[str, str]]:
    """The one zone there is without SDN: the node's own bridges."""
    seen = call.may("/sdn/zones/localnetwork", ["SDN.Audit", "SDN.Use"], True)
    return [{"zone": "localnetwork", "status": "available"}] if seen else []


@method("GET", NODE + "/sdn/zones/localnetwork/content")
def zone_content(call: Call) -> List[Dict[str, str]]:
    """The bridges of that zone that one may use."""
    names = [name for name in sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net/%s/bridge" % name)]
    return [
        {"vnet": name, "status": "available"}
        for name in names
        if call.may("/sdn/zones/localnetwork/" + name, ["SDN.Audit", "SDN.Use"], True)
    ]


@method("GET", NODE + "/dns", {}, NODE_AUDIT)
def dns(call: Call) -> Dict[str, str]:
    """Name servers."""
    path = call.node.path("/etc/resolv.conf")
    words = [line.split() for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    servers = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    search = [line[1] for line in words if len(line) > 1 and line[0] in ("search", "domain")]
    return {
        **({"search": search[0]} if search else {}),
        **{"dns%d" % (at + 1): ip for at, ip in enumerate(servers[:3])},
    }


@method("GET", NODE + "/hardware/pci", {"verbose": boolean(optional=True)}, NODE_AUDIT)
def pci(call: Call) -> List[Dict[str, Any]]:
    """No devices to pass through."""
    return []


@method("GET", NODE + "/hardware/usb", {}, NODE_AUDIT)
def usb(call: Call) -> List[Dict[str, Any]]:
    """No devices to pass through."""
    return []


@method("GET", NODE + "/capabilities/qemu/cpu")
def cpus(call: Call) -> List[Dict[str, Any]]:
    """CPU models."""
    names = ("qemu64", "kvm64", "max", "host", "Nehalem", "x86-64-v2", "x86-64-v2-AES", "x86-64-v3")
    return [{"name": name, "custom": 0, "vendor": "default"} for name in names]


@method("GET", NODE + "/replication", {"guest": integer(optional=True)})
def replication(call: Call) -> List[Dict[str, Any]]:
    """Replication jobs of the node's guests that one may audit."""
    return [
        entry
        for entry in replication_jobs(call)
        if call.params.get("guest") in (None, entry["guest"])
        and (call.cluster.locate(entry["guest"]) or ("",))[0] == call.node.name
    ]
