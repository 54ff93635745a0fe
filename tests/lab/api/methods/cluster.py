# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/cluster: status, resources, next id, HA, options, replication, firewall."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from lab.node.base import Denied, Die, ParamError
from lab.node.ha import Resources
from lab.node.properties import parse_list

from .. import peers, statd
from ..registry import Call, Need, method
from ..schema import boolean, enum, integer, string

AUDIT = Need("/", ("Sys.Audit",))


@method("GET", "/cluster/status", {}, AUDIT)
def status(call: Call) -> List[Dict[str, Any]]:
    """Nodes as corosync sees them; the cluster entry only when there is more than one."""
    names, addresses = call.cluster.nodes(), peers.addresses(call.node)
    alive = statd.broadcast(call.node)
    found: List[Dict[str, Any]] = []
    if len(names) > 1:
        found.append(
            {
                "type": "cluster",
                "id": "cluster",
                "name": statd.cluster_name(call.node),
                "nodes": len(names),
                "quorate": int(call.cluster.quorate()),
                "version": len(names),
            }
        )
    for number, name in enumerate(names):
        found.append(
            {
                "type": "node",
                "id": "node/" + name,
                "name": name,
                "local": int(name == call.node.name),
                "nodeid": number + 1 if len(names) > 1 else 0,
                "level": "",
                "ip": addresses.get(name, ""),
                "online": int(name == call.node.name or name in alive),
            }
        )
    return found


@method("GET", "/cluster/resources", {"type": enum("vm", "storage", "node", "sdn", optional=True)})
def resources(call: Call) -> List[Dict[str, Any]]:
    """What the nodes last reported; a VM nobody reported yet is unknown and has no name."""
    wanted = call.params.get("type")
    known = statd.broadcast(call.node)
    found: List[Dict[str, Any]] = []
    if wanted in (None, "vm"):
        found += _vms(call, known)
    if wanted in (None, "node"):
        found += _nodes(call, known)
    if wanted in (None, "storage"):
        found += _storages(call, known)
    if wanted is None:
        found += [
            {"id": "/pool/" + name, "type": "pool", "pool": name}
            for name in sorted(call.access.config.pools)
            if call.may("/pool/" + name, ["Pool.Audit"])
        ]
    return found


def _vms(call: Call, known: Dict[str, Any]) -> List[Dict[str, Any]]:
    states = {sid: keys.get("state", "started") for sid, keys in Resources(call.node).sections().items()}
    pools = {vmid: name for name, members in call.access.config.pools.items() for vmid in members["vms"]}
    found = []
    for vmid, (name, kind) in sorted(call.cluster.vms().items()):
        if not call.may("/vms/%d" % vmid, ["VM.Audit"]):
            continue
        entry: Dict[str, Any] = {
            "id": "%s/%d" % (kind, vmid),
            "node": name,
            "type": kind,
            "vmid": vmid,
            "status": "unknown",
        }
        entry.update(_reported(known.get(name, {}).get("vms", {}).get(str(vmid))))
        sid = ("vm:%d" if kind == "qemu" else "ct:%d") % vmid
        if sid in states:
            entry["hastate"] = states[sid]
        if str(vmid) in pools:
            entry["pool"] = pools[str(vmid)]
        found.append(entry)
    return found


def _reported(summary: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    if not summary:
        return {}
    shown = {
        key: summary[key]
        for key in (
            "name",
            "status",
            "cpu",
            "maxmem",
            "mem",
            "maxdisk",
            "disk",
            "netin",
            "netout",
            "uptime",
            "lock",
            "tags",
        )
        if key in summary
    }
    return {
        **shown,
        "maxcpu": summary.get("cpus", 1),
        "template": summary.get("template", 0),
        "diskread": summary.get("diskread", 0),
        "diskwrite": summary.get("diskwrite", 0),
    }


def _nodes(call: Call, known: Dict[str, Any]) -> List[Dict[str, Any]]:
    found = []
    for name in call.cluster.nodes():
        entry: Dict[str, Any] = {
            "id": "node/" + name,
            "node": name,
            "type": "node",
            "status": "online" if name in known else "unknown",
        }
        if call.may("/nodes/" + name, ["Sys.Audit"]):
            entry.update({key: value for key, value in known.get(name, {}).get("node", {}).items() if key != "ssl"})
        found.append(entry)
    return found


def _storages(call: Call, known: Dict[str, Any]) -> List[Dict[str, Any]]:
    found = []
    for name, report in sorted(known.items()):
        for sid, answer in sorted(report.get("storages", {}).items()):
            if call.may("/storage/" + sid, ["Datastore.Audit", "Datastore.AllocateSpace"], True):
                found.append(
                    {
                        "id": "storage/%s/%s" % (name, sid),
                        "node": name,
                        "storage": sid,
                        "type": "storage",
                        "plugintype": answer["type"],
                        "status": "available" if answer["active"] else "unknown",
                        "content": answer["content"],
                        "shared": answer["shared"],
                        "disk": answer["used"],
                        "maxdisk": answer["total"],
                    }
                )
    return found


@method("GET", "/cluster/nextid", {"vmid": string(optional=True, format="vmid")})
def nextid(call: Call) -> str:
    """The lowest free VMID, or the given one when it is free."""
    wanted = call.params.get("vmid")
    if wanted is None:
        return str(call.cluster.next_id())
    if call.cluster.locate(int(wanted)) is not None:
        raise ParamError({"vmid": "VM %s already exists" % wanted})
    return str(wanted)


@method("GET", "/cluster/ha/resources", {"type": string(optional=True)}, AUDIT)
def ha_resources(call: Call) -> List[Dict[str, str]]:
    """HA resources in any state."""
    return Resources(call.node).listing()


@method("GET", "/cluster/ha/resources/{sid}", {}, AUDIT)
def ha_resource(call: Call) -> Dict[str, str]:
    """One HA resource."""
    return Resources(call.node).get(_sid(call))


@method("GET", "/cluster/ha/status/current", {}, AUDIT)
def ha_status(call: Call) -> List[Dict[str, Any]]:
    """HA services; no manager runs in the lab, so requests stay queued (recorded)."""
    found: List[Dict[str, Any]] = [
        {
            "id": "quorum",
            "type": "quorum",
            "node": call.node.name,
            "quorate": 1,
            "status": "OK" if call.cluster.quorate() else "No quorum!",
        },
        {
            "id": "fencing",
            "type": "fencing",
            "node": call.node.name,
            "armed-state": "standby",
            "status": "standby (CRM watchdog standby)",
        },
    ]
    for entry in Resources(call.node).listing():
        holder = call.cluster.locate(int(entry["sid"].partition(":")[2]))
        node = holder[0] if holder else call.node.name
        state = "ignored" if entry["state"] == "ignored" else "queued"
        found.append(
            {
                "id": "service:" + entry["sid"],
                "type": "service",
                "sid": entry["sid"],
                "state": state,
                "status": "%s (%s, %s)" % (entry["sid"], node, state),
                "request_state": entry["state"],
                "node": node,
                "failback": int(entry.get("failback", 1)),
                "max_relocate": int(entry.get("max_relocate", 1)),
                "max_restart": int(entry.get("max_restart", 1)),
            }
        )
    return found


PUBLIC_OPTIONS = ("console", "tag-style")
NESTED_OPTIONS = ("crs", "ha", "migration", "next-id", "notify", "tag-style", "u2f", "user-tag-access", "webauthn")


@method("GET", "/cluster/options")
def options(call: Call) -> Dict[str, Any]:
    """datacenter.cfg, property strings taken apart; without Sys.Audit on / only what a user interface needs."""
    path = call.node.path("/etc/pve/datacenter.cfg")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    values: Dict[str, Any] = dict(line.split(": ", 1) for line in lines if ": " in line)
    for key in NESTED_OPTIONS:
        if key in values:
            values[key] = parse_list(values[key], "type")
    every = call.may("/", ["Sys.Audit"])
    return {**{key: values[key] for key in values if every or key in PUBLIC_OPTIONS}, "allowed-tags": []}


@method("GET", "/cluster/replication")
def replication(call: Call) -> List[Dict[str, Any]]:
    """Replication jobs of the VMs one may audit."""
    return replication_jobs(call)


def replication_jobs(call: Call) -> List[Dict[str, Any]]:
    """The jobs of replication.cfg that one may see; their names are <vmid>-<number>."""
    found = []
    for job, keys in sorted(call.cluster.sections("/etc/pve/replication.cfg").items()):
        guest, _, number = job.partition("-")
        if call.may("/vms/" + guest, ["VM.Audit"]):
            found.append({"id": job, "guest": int(guest), "jobnum": int(number or 0), **keys})
    return found


@method("GET", "/cluster/backup", {}, AUDIT)
def backup(call: Call) -> List[Dict[str, Any]]:
    """No backup jobs."""
    return []


@method("GET", "/cluster/config/nodes", {}, AUDIT)
def config_nodes(call: Call) -> List[Dict[str, Any]]:
    """Members of the cluster, as its configuration numbers them."""
    names, known = call.cluster.nodes(), peers.addresses(call.node)
    if len(names) < 2:
        return []
    return [
        {"name": name, "node": name, "nodeid": str(number), "quorum_votes": "1", "ring0_addr": known.get(name, "")}
        for number, name in enumerate(names, 1)
    ]


@method("GET", "/cluster/qemu/custom-cpu-models")
def cpu_models(call: Call) -> List[Dict[str, str]]:
    """CPU models of the cluster that one may use."""
    return [entry for entry in _cpu_models(call) if _may_use(call, entry["cputype"])]


@method("GET", "/cluster/qemu/custom-cpu-models/{cputype}")
def cpu_model(call: Call) -> Dict[str, str]:
    """One CPU model (mtunnel-protocol 2.2, step 7)."""
    name = call.params["cputype"].replace("custom-", "", 1)
    if not _may_use(call, "custom-" + name):
        raise Denied("/mapping/cpu/" + name, ["Mapping.Audit", "Mapping.Use"], True)
    for entry in _cpu_models(call):
        if entry["cputype"] == "custom-" + name:
            return entry
    raise Die("Custom cputype 'custom-%s' not found" % name)


def _may_use(call: Call, name: str) -> bool:
    path = "/mapping/cpu/" + name.replace("custom-", "", 1)
    return call.may(path, ["Mapping.Audit", "Mapping.Use", "Mapping.Modify"], True)


def _cpu_models(call: Call) -> List[Dict[str, str]]:
    sections = call.cluster.sections("/etc/pve/virtual-guest/cpu-models.conf")
    return [
        {"cputype": "custom-" + name, **{key: value for key, value in keys.items() if key != "type"}}
        for name, keys in sorted(sections.items())
        if keys["type"] == "cpu-model"
    ]


def _nothing(call: Call) -> List[Dict[str, Any]]:
    """The lab has none of these."""
    return []


for _path in ("/cluster/mapping/pci", "/cluster/mapping/usb", "/cluster/mapping/dir", "/cluster/sdn/vnets"):
    method("GET", _path)(_nothing)
for _path in ("/cluster/ha/groups", "/cluster/ha/rules", "/cluster/jobs"):
    method("GET", _path, {}, AUDIT)(_nothing)


CONSOLE = Need("/", ("Sys.Console",))
STATE = enum("started", "stopped", "enabled", "disabled", "ignored", optional=True)
WANTED = {
    "state": STATE,
    "comment": string(optional=True),
    "group": string(optional=True),
    "max_relocate": integer(optional=True, minimum=0),
    "max_restart": integer(optional=True, minimum=0),
}


def _sid(call: Call) -> str:
    sid = str(call.params["sid"])
    return sid if ":" in sid else "vm:" + sid


@method("POST", "/cluster/ha/resources", {"sid": string(), "type": string(optional=True), **WANTED}, CONSOLE)
def ha_add(call: Call) -> None:
    """Make a VM an HA resource."""
    if _sid(call) in Resources(call.node).sections():
        raise Die("resource ID '%s' already defined" % _sid(call))
    number = _sid(call).partition(":")[2]
    if not number.isdigit() or call.cluster.locate(int(number)) is None:
        raise Die("unable to add resource - guest '%s' does not exist" % _sid(call))
    Resources(call.node).set(_sid(call), call.params.get("state", "started"))


@method("PUT", "/cluster/ha/resources/{sid}", {**WANTED, "delete": string(optional=True)}, CONSOLE)
def ha_set(call: Call) -> None:
    """Change the requested state."""
    found = Resources(call.node).get(_sid(call))
    Resources(call.node).set(_sid(call), call.params.get("state", found["state"]))


@method("DELETE", "/cluster/ha/resources/{sid}", {"purge": boolean(optional=True)}, CONSOLE)
def ha_remove(call: Call) -> None:
    """Take a VM out of HA."""
    Resources(call.node).remove(_sid(call))
