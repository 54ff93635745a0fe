# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes: status, time, network, certificates, capabilities, storages and their content."""

from __future__ import annotations

import os
import re
import subprocess
import time
from typing import Any, Dict, List, Mapping, Optional

from lab.node import simulated, vm
from lab.node.base import Denied, ParamError
from lab.node.storage import Storage, Storages, Volume, check_format, parse_kib

from .. import statd
from ..registry import Call, Need, method
from ..schema import boolean, enum, split_list, string
from .access import VERSION

NODE = "/nodes/{node}"
NODE_AUDIT = Need("/nodes/{node}", ("Sys.Audit",))
SPACE = ("Datastore.Audit", "Datastore.AllocateSpace")
STORAGE = Need("/storage/{storage}", SPACE, True)


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
        "cpuinfo": {"cpus": figures["maxcpu"], "cores": figures["maxcpu"], "sockets": 1, "model": "lab", "hvm": "0"},
        "kversion": "Linux %s" % os.uname().release,
        "pveversion": "pve-manager/%s/%s" % (VERSION["version"], VERSION["repoid"]),
        "current-kernel": {"sysname": "Linux", "release": os.uname().release, "machine": os.uname().machine},
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


# -- storages ---------------------------------------------------------------------------------------------------------

FORMAT = enum("raw", "qcow2", "subvol", "vmdk", optional=True)
FILTER = {
    "content": string(optional=True),
    "enabled": boolean(optional=True),
    "format": boolean(optional=True),
    "storage": string(optional=True, format="storage"),
    "target": string(optional=True),
}


@method("GET", NODE + "/storage", FILTER)
def storages(call: Call) -> List[Dict[str, Any]]:
    """Storages of the node that one may use or audit.

    `content` leaves out what is not usable here; `enabled` only what is switched off, not what other nodes have.
    """
    known = Storages(call.node).all()
    told = (simulated.report(call.node) or {}).get("storages", {})
    if call.params.get("storage") is not None:
        _known(call)
    found = []
    for sid in sorted(known):
        if call.params.get("storage") not in (None, sid) or not call.may("/storage/" + sid, SPACE, True):
            continue
        if _wanted(call, known[sid]):
            answer = told.get(sid) or Storages(call.node).status(sid)
            found.append({"storage": sid, **answer, **_fraction(answer), **_formats(call, known[sid])})
    return found


def _wanted(call: Call, storage: Storage) -> bool:
    content, target = split_list(call.params.get("content")), call.params.get("target")
    if content and not (set(content) & set(storage.content) and storage.enabled(call.node.name)):
        return False
    if target and not (storage.on(call.node.name) and storage.on(target)):
        return False
    return not (call.params.get("enabled") and storage.disabled)


def _fraction(answer: Mapping[str, Any]) -> Dict[str, float]:
    return {"used_fraction": answer["used"] / answer["total"]} if answer["total"] else {}


def _formats(call: Call, storage: Storage) -> Dict[str, Any]:
    if not call.params.get("format"):
        return {}
    return {"format": [{form: 1 for form in storage.formats}, storage.default_format]}


@method("GET", NODE + "/storage/{storage}/status", {}, STORAGE)
def storage_status(call: Call) -> Dict[str, Any]:
    """Space of one storage."""
    _known(call)
    return Storages(call.node).status(call.params["storage"])


def _known(call: Call) -> None:
    if call.params["storage"] not in Storages(call.node).all():
        raise ParamError({"storage": "No such storage."})


@method(
    "GET",
    NODE + "/storage/{storage}/content",
    {"content": string(optional=True), "vmid": string(optional=True, format="vmid")},
    STORAGE,
)
def content(call: Call) -> List[Dict[str, Any]]:
    """Images and files on a storage."""
    sid, wanted = call.params["storage"], call.params.get("content")
    here = Storages(call.node)
    here.check_enabled(sid)
    volumes = here.listing(sid, wanted, int(call.params["vmid"]) if "vmid" in call.params else None)
    return [_volume(call, volume) for volume in volumes if _visible(call, sid, volume)]


def _visible(call: Call, sid: str, volume: Volume) -> bool:
    if call.may("/storage/" + sid, ["Datastore.Allocate"]) or call.may("/storage/" + sid, ["Datastore.Audit"]):
        return True
    if volume.content in ("iso", "vztmpl"):
        return True
    return bool(volume.vmid) and call.may("/vms/%d" % volume.vmid, ["VM.Config.Disk"])


def _volume(call: Call, volume: Volume) -> Dict[str, Any]:
    entry: Dict[str, Any] = {
        "volid": volume.volid,
        "format": volume.format,
        "size": volume.size,
        "content": volume.content,
        "ctime": _ctime(call, volume.volid),
    }
    return {**entry, "vmid": volume.vmid} if volume.vmid else entry


def _ctime(call: Call, volid: str) -> int:
    try:
        return int(os.stat(Storages(call.node).real_path(volid)).st_ctime)
    except OSError:
        return 0


@method(
    "POST",
    NODE + "/storage/{storage}/content",
    {"filename": string(), "size": string(), "vmid": string(format="vmid"), "format": FORMAT},
    Need("/storage/{storage}", ("Datastore.AllocateSpace",)),
)
def allocate(call: Call) -> str:
    """Make a volume."""
    name, kib = call.params["filename"], parse_kib(call.params["size"])
    form = call.params.get("format")
    if form:
        check_format(name, form)
    return Storages(call.node).alloc(call.params["storage"], int(call.params["vmid"]), form, name, kib)


def _volid(call: Call) -> str:
    volume = call.params["volume"]
    return volume if ":" in volume else "%s:%s" % (call.params["storage"], volume)


def _check_volume(call: Call, volid: str, privilege: str) -> None:
    storage, name = Storages(call.node).split(volid)
    owner = Storages(call.node).owner_and_format(storage, name)[0]
    if call.may("/storage/" + storage.sid, ["Datastore.Allocate"]):
        return
    if not call.may("/storage/" + storage.sid, [privilege]) or not call.may("/vms/%d" % owner, ["VM.Config.Disk"]):
        raise Denied("/storage/" + storage.sid, ["Datastore.Allocate"])


@method("GET", NODE + "/storage/{storage}/content/{volume}")
def volume(call: Call) -> Dict[str, Any]:
    """One volume's path, format and sizes."""
    volid = _volid(call)
    _check_volume(call, volid, "Datastore.Audit")
    size, form, used = Storages(call.node).size(volid)
    return {"path": Storages(call.node).path(volid), "size": size, "used": used, "format": form}


@method("DELETE", NODE + "/storage/{storage}/content/{volume}", {"delay": string(optional=True)})
def remove(call: Call) -> str:
    """Remove a volume in a task, in use or not."""
    volid = _volid(call)
    _check_volume(call, volid, "Datastore.AllocateSpace")
    storages_here = Storages(call.node)
    storage, name = storages_here.split(volid)
    owner = storages_here.owner_and_format(storage, name)[0]

    def work() -> None:
        storages_here.free(volid)
        os.write(1, ("Removed volume '%s'\n" % volid).encode())

    return call.spawn("imgdel", "%d@%s" % (owner, storage.sid), work)


@method("GET", NODE + "/replication", {"guest": string(optional=True)})
def replication(call: Call) -> List[Dict[str, Any]]:
    """Replication jobs of the node."""
    return [{"id": job, **keys} for job, keys in call.cluster.sections("/etc/pve/replication.cfg").items()]
